"""Bytes of memory that a task takes while it is queued, and while it is blocked.

Called in a fresh process (``probe.py``), where nothing else moves the resident set.
"""

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Lock, Thread

import tether

from . import spawn

PATIENCE = 120.0  # seconds until a run whose tasks do not all start is given up


def resident() -> int:
    """Bytes of this process that are in memory now.

    ``smaps_rollup`` walks the page tables; the cheaper ``statm`` may lag by some hundred KiB for each core.
    """
    found = re.search(r"^Rss:\s+(\d+) kB$", Path("/proc/self/smaps_rollup").read_text(), re.MULTILINE)
    if found is None:
        raise RuntimeError("/proc/self/smaps_rollup has no line 'Rss:'")
    return int(found[1]) * 1024


def queued_tasks(count: int) -> float:
    """Resident bytes for each of `count` tasks of tether that nobody can start: task, guard and context.

    The crew is bounded to one thread, and that one is kept busy. The list of the guards is in memory beforehand.
    """
    tether.configure(max_threads=1)
    _warm_up_tasks()
    with _busy() as (block, started):
        blocker = tether.spawn(block)
        _wait_for(1, started)
        guards = [blocker] * count
        before = resident()
        for i in range(count):
            guards[i] = tether.spawn(spawn.empty)
        grown = resident() - before
    blocker.join()
    for guard in guards:
        guard.join()
    return grown / count


def queued_futures(count: int) -> float:
    """The same for futures in the queue of a ``ThreadPoolExecutor(2)`` whose threads are kept busy."""
    with ThreadPoolExecutor(2) as pool:
        with _busy() as (block, started):
            blockers = [pool.submit(block) for _ in range(2)]
            _wait_for(2, started)
            futures = blockers[:1] * count
            before = resident()
            for i in range(count):
                futures[i] = pool.submit(spawn.empty)
            grown = resident() - before
        for future in blockers + futures:
            future.result()
    return grown / count


def blocked_tasks(count: int) -> float:
    """Resident bytes for each of `count` tasks of one scope that all wait in a C lock at once."""
    tether.configure(max_threads=count + 64)  # a thread for each is the point here
    _warm_up_tasks()
    before = resident()
    with tether.scope() as s, _busy() as (block, started):
        for _ in range(count):
            s.spawn(block)
        _wait_for(count, started)
        return (_settled() - before) / count


def blocked_threads(count: int) -> float:
    """The same for a ``threading.Thread`` each."""
    spawn.thread(10)
    before = resident()
    workers = []
    with _busy() as (block, started):
        for _ in range(count):
            workers.append(Thread(target=block))
            workers[-1].start()
        _wait_for(count, started)
        grown = _settled() - before
    for worker in workers:
        worker.join()
    return grown / count


def _warm_up_tasks() -> None:
    """Makes what exists once in a process: crew, ticker, free lists."""
    with tether.scope() as s:
        for _ in range(10):
            s.spawn(spawn.empty)


@contextmanager
def _busy() -> Iterator[tuple[Callable[[], None], list[None]]]:
    """Gives a function that blocks in C until the `with` block is left, and a list with an item for each call begun."""
    gate = Lock()
    started: list[None] = []

    def block() -> None:
        started.append(None)
        gate.acquire()
        gate.release()

    with gate:
        yield block, started


def _wait_for(count: int, started: list[None]) -> None:
    deadline = time.monotonic() + PATIENCE
    while len(started) < count:
        if time.monotonic() > deadline:
            raise RuntimeError(f"only {len(started)} of {count} tasks had started after {PATIENCE:.0f} s")
        time.sleep(0.005)


def _settled() -> int:
    """The resident set once it has stopped growing: the last tasks are still on their way into the lock."""
    last, now = -1, resident()
    while now > last:
        time.sleep(0.1)
        last, now = now, resident()
    return now
