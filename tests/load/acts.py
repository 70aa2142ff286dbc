"""The acts of the soak. Each takes a `random.Random`, ends by itself, leaves nothing behind, and checks what it got."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import os
import queue
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import tether

Act = tuple[int, Callable[[random.Random], None]]
Dice = random.Random

TICKS: Counter[str] = Counter()
"""What the timer's handler did."""
LIMIT = 60.0

_reports: list[str] = []
_color: contextvars.ContextVar[int] = contextvars.ContextVar("color", default=0)
_local = threading.local()


class Planned(Exception):
    """A failure that belongs to the soak."""


def watch_hooks() -> None:
    """Planned failures may be reported; anything else that reaches a hook is wrong."""

    def note(kind: type[BaseException], value: BaseException | None, where: Any) -> None:
        parts = value.exceptions if isinstance(value, BaseExceptionGroup) else (value,)
        if not all(isinstance(part, Planned | KeyboardInterrupt) for part in parts):
            _reports.append(f"{kind.__name__}: {value} ({where!r})"[:2000])

    sys.unraisablehook = lambda report: note(report.exc_type, report.exc_value, report.err_msg or report.object)
    threading.excepthook = lambda report: note(report.exc_type, report.exc_value, report.thread)


def unexpected() -> list[str]:
    return list(_reports)


def expect(condition: object, what: str) -> None:
    if not condition:
        raise AssertionError(what)


def maker(dice: Dice) -> Callable[..., tether.JoinGuard[Any]]:
    """One of the ways to spawn."""
    return tether.options(dedicated=True).spawn if dice.random() < 0.15 else tether.spawn


# ---- what tasks do --------------------------------------------------------------------------------------------------


def square(n: int) -> int:
    return n * n


def fail(n: int) -> None:
    raise Planned(n)


def own_state(n: int) -> int:
    """A task has its own context and thread-locals (G18)."""
    expect(not hasattr(_local, "n"), "thread-locals of somebody else")
    _local.n = n
    _color.set(n)
    return _color.get()


def nap(n: int) -> int:
    tether.sleep(n / 10_000)
    return n


def loop_for_ever() -> None:
    while True:
        tether.checkpoint()
        sum(range(100))


def busy(n: int) -> int:
    return sum(range(n * 100))


# ---- acts for any thread --------------------------------------------------------------------------------------------


def spawn_and_join(dice: Dice) -> None:
    n = dice.randrange(100)
    expect(maker(dice)(square, n).join() == n * n, "a wrong result")


def spawn_many(dice: Dice) -> None:
    spawn = maker(dice)
    fn = dice.choice([square, own_state, nap])
    guards = [spawn(fn, n) for n in range(dice.randrange(1, 40))]
    dice.shuffle(guards)
    for guard in guards:
        guard.join()


def nested_scopes(dice: Dice) -> None:
    def branch(depth: int, width: int) -> int:
        if depth == 0:
            return busy(1) * 0 + 1
        with tether.scope() as s:
            below = [s.spawn(branch, depth - 1, width) for _ in range(width)]
        return sum(handle.join() for handle in below)

    depth, width = dice.choice([(1, 10), (2, 4), (3, 3), (5, 2)])
    expect(branch(depth, width) == width**depth, "leaves were lost")


def failing_scope(dice: Dice) -> None:
    on_error = dice.choice(["cancel", "wait"])
    failures = dice.randrange(1, 5)
    try:
        with tether.scope(on_error=on_error) as s:
            for n in range(failures):
                s.spawn(fail, n)
                s.spawn(square, n)
    except* Planned as caught:
        if on_error == "wait":
            expect(len(caught.exceptions) == failures, "a failure was lost")
    else:
        expect(False, "all failures were lost")


def failing_task(dice: Dice) -> None:
    guard = maker(dice)(fail, 1)
    with contextlib.suppress(Planned):
        guard.join()
        expect(False, "a failure was lost")


def dropped_failure(dice: Dice) -> None:
    maker(dice)(fail, 2)


def cancel_sleepers(dice: Dice) -> None:
    guards = [maker(dice)(tether.sleep, 3600) for _ in range(8)]
    for guard in guards:
        guard.cancel("soak")
    for guard in guards:
        expect(isinstance(guard.exit_value(), tether.Killed), "a cancelled sleeper completed")


def cancel_scope(dice: Dice) -> None:
    with tether.scope() as s:
        for _ in range(dice.randrange(1, 8)):
            s.spawn(dice.choice([loop_for_ever, busy_sleep]))
        if dice.random() < 0.5:
            tether.sleep(0.001)
        s.cancel()


def busy_sleep() -> None:
    tether.sleep(3600)


def kill_loop(dice: Dice) -> None:
    def spin() -> None:
        while True:
            pass

    started = threading.Event()
    guard = tether.options(dedicated=True).spawn(lambda: (started.set(), spin()))
    if dice.random() < 0.7:
        expect(started.wait(LIMIT), "a dedicated task did not start")
    guard.kill()
    expect(isinstance(guard.exit_value(), tether.Killed), "a killed loop completed")


def drop(dice: Dice) -> None:
    ended: list[int] = []
    guard = maker(dice)(ended.append, 1)
    if dice.random() < 0.3:
        tether.sleep(0.0005)
    del guard
    expect(ended == [1], "a drop by the owner did not wait")


def cycle(dice: Dice) -> None:
    for _ in range(dice.randrange(1, 4)):
        ring: list[Any] = [maker(dice)(square, 3)]
        ring.append(ring)
    del ring
    if dice.random() < 0.1:
        gc.collect()


def closed_generator(dice: Dice) -> None:
    def generate() -> Iterator[int]:
        guard = maker(dice)(nap, 3)
        with tether.scope() as s:
            s.spawn(nap, 2)
        yield 1
        yield guard.join()

    steps = generate()
    next(steps)
    if dice.random() < 0.5:
        steps.close()
    del steps


def timeouts(dice: Dice) -> None:
    guard = maker(dice)(nap, dice.randrange(20))
    while True:
        try:
            guard.join(timeout=0.001)
            break
        except TimeoutError:
            continue
    with contextlib.suppress(TimeoutError), tether.scope(timeout=dice.choice([0.0, 0.001, 0.01])) as s:
        s.spawn(tether.sleep, 3600)


def detach(dice: Dice) -> None:
    ref = maker(dice)(dice.choice([square, nap, fail]), 2).detach()
    expect(ref.id > 0, "a task without a number")


def send(dice: Dice) -> None:
    """Down into a task as an argument, back in its result, into a scope."""

    def keep(guard: tether.JoinGuard[int]) -> tether.JoinGuard[int]:
        return guard

    guard = maker(dice)(keep, maker(dice)(square, 7)).join()
    expect(guard.task.parent == owner_here(), "a result left its guards behind")
    with tether.scope() as s:
        guard.send(s)
    expect(guard.join() == 49, "a sent guard lost its value")


def owner_here() -> tether.TaskRef | None:
    here = tether.current()
    return None if here.id == 0 else here


class Bag:
    """Holds what is smuggled. (Not made anew each time: the free-threaded 3.13 never lets a class go.)"""

    def __init__(self, held: dict[str, tether.JoinGuard[int]]) -> None:
        self.held = held


def smuggle(dice: Dice) -> None:
    guards = {"it": tether.spawn(square, 2)}

    def thief(bag: Bag) -> bool:
        try:
            bag.held["it"].join()
        except tether.OwnershipError:
            return True
        return False

    expect(maker(dice)(thief, Bag(guards)).join(), "a stranger joined a guard")
    expect(guards.pop("it").join() == 4, "the owner could not join after a theft")


def deadlock(dice: Dice) -> None:
    size = dice.randrange(2, 5)
    handles: list[tether.JoinGuard[str]] = []
    ready = threading.Event()

    def member(n: int) -> str:
        expect(ready.wait(LIMIT), "nobody made the ring ready")
        try:
            return handles[(n + 1) % size].join()
        except tether.DeadlockError:
            return "broken"

    with tether.scope() as s:
        handles += [s.options(dedicated=True).spawn(member, n) for n in range(size)]
        ready.set()
    broken = 0
    for handle in handles:
        with contextlib.suppress(tether.ReapedError):
            broken += handle.join() == "broken"
    expect(broken <= size, "more ends than tasks")
    handles.clear()


def trace(dice: Dice) -> None:
    """threading.settrace and setprofile are for tasks that begin; on this thread nothing changes."""

    def tracer(frame: Any, event: str, arg: Any) -> None:
        return None

    before = sys.gettrace()
    threading.settrace(tracer)
    try:
        expect(maker(dice)(square, 3).join() == 9, "a wrong result under a tracer")
    finally:
        threading.settrace(None)  # type: ignore[arg-type]
    expect(sys.gettrace() is before, "a task's tracer stayed")


def from_asyncio(dice: Dice) -> None:
    async def run() -> list[int]:
        guards = [maker(dice)(nap, n) for n in range(4)]
        return await asyncio.gather(*(asyncio.to_thread(guard.join) for guard in guards))

    expect(asyncio.run(run()) == [0, 1, 2, 3], "a wrong result in asyncio")


def inside_a_task(dice: Dice) -> None:
    """Any of the others, one floor up."""
    seed = dice.random()
    menu = [act for _, act in ANYWHERE if act not in (inside_a_task, from_asyncio)]

    def run() -> None:
        inner = random.Random(seed)
        inner.choice(menu)(inner)

    if dice.random() < 0.5:
        maker(dice)(run).join()
    else:
        with tether.scope() as s:
            for _ in range(3):
                s.spawn(run)


def collect(dice: Dice) -> None:
    gc.collect()


def fork(dice: Dice) -> None:
    guard = maker(dice)(nap, 10)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            with contextlib.suppress(tether.ForkedError):
                guard.join()
                os._exit(2)
            code = 0 if tether.spawn(square, 4).join() == 16 else 3
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    guard.join()
    expect(os.waitstatus_to_exitcode(status) == 0, f"a forked child ended with {os.waitstatus_to_exitcode(status)}")


ANYWHERE: list[Act] = [
    (60, spawn_and_join),
    (20, spawn_many),
    (15, nested_scopes),
    (10, failing_scope),
    (10, failing_task),
    (5, dropped_failure),
    (6, cancel_sleepers),
    (6, cancel_scope),
    (4, kill_loop),
    (15, drop),
    (6, cycle),
    (8, closed_generator),
    (4, timeouts),
    (6, detach),
    (8, send),
    (6, smuggle),
    (4, deadlock),
    (6, trace),
    (1, from_asyncio),
    (20, inside_a_task),
]
# ---- acts for the main thread ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def ticking() -> Iterator[None]:
    """A timer whose handler runs on the main thread, wherever that is: it counts, and may spawn and join."""
    dice = random.Random(0)

    def tick(*_: object) -> None:
        TICKS["tick"] += 1
        if dice.random() < 0.2:
            TICKS["spawn"] += 1
            with contextlib.suppress(tether.Cancelled):  # it may run in a cancelled block, and is part of it
                expect(tether.spawn(square, 5).join() == 25, "a wrong result in a handler")

    before = signal.signal(signal.SIGALRM, tick)
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


_strikes: queue.SimpleQueue[float] = queue.SimpleQueue()


def striker() -> None:
    """Sends the main thread a SIGINT, so long after it was asked. (A `Timer` would be started through locks of
    `threading`, which a KeyboardInterrupt in their midst leaves in disorder.)"""
    while True:
        time.sleep(_strikes.get())
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def interrupt(dice: Dice) -> None:
    """Ctrl-C somewhere in a wait: raised once, here, and everything is joined all the same."""
    ended: list[int] = []
    pause, after = dice.random() / 200, dice.random() / 200

    def child() -> None:
        try:
            tether.sleep(pause)
        finally:
            ended.append(1)

    spawned = 0
    try:
        _strikes.put(after)
        with tether.scope() as s:
            for _ in range(3):
                s.options(dedicated=True).spawn(child)
                spawned += 1
        while True:
            tether.sleep(0.001)  # it has struck, or strikes now
    except KeyboardInterrupt:
        pass
    expect(len(ended) <= spawned + 1, "more ends than children")
    expect(s.tasks() == [] if spawned else True, "a scope was left with children alive")


MAIN_ONLY: list[Act] = [(4, interrupt), (1, collect)]
if getattr(sys, "_is_gil_enabled", lambda: True)():
    MAIN_ONLY.append((2, fork))
# Without a GIL a fork may fall into the moment in which another thread (settrace, the collector) stops the world.
# CPython 3.13 leaves that lock taken in the child, whose next settrace or collection then waits for ever.
