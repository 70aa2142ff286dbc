"""The workers of `Executor`: dedicated tasks, which keep their thread and its thread-locals from call to call.

    queue     cells of calls that nobody has begun, and empty ones whose call was run or cancelled otherwise
    permits   one for each worker that may be started; a worker gives its own back when it ends
    idle      locks of the workers that sleep, the last one to fall asleep first
    debts     permits that were lent and must come back: the next worker between two calls ends without giving its back

All four are deques, whose operations are atomic. A worker that finds nothing puts its lock among the idle and then
looks once more; a submitter puts its cell into the queue and then looks for an idle worker or a permit. So one of them
sees the other.

*Nested waits.* A call that waits for a future of its pool runs that future's call itself, if nobody has begun it:
that is no new dependency, since it waits for it anyway. To run any *other* call on top of a waiting one would be, and
could deadlock (rayon#592). So a call that waits for one that runs elsewhere lends its permit while it waits, and with
that the queue another worker. The same where calls are nested deep, since the stack of one thread is finite.
"""

from __future__ import annotations

import functools
import itertools
import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures.thread import BrokenThreadPool
from contextlib import suppress
from contextvars import Context
from types import TracebackType
from typing import Any

from . import _core
from ._behind import behind
from ._bell import wait_for
from ._chunking import MOST_WORKERS
from ._errors import Cancelled, ForkedError, KilledTask, ShutdownError, TetherError
from ._future import Cell, cancel_cell, run_cell

__all__ = ["CLOSED", "Pool", "Worker"]

CLOSED = "cannot schedule new futures after shutdown"
_GOING_DOWN = "cannot schedule new futures after interpreter shutdown"
_HANDSHAKE = 1.0  # seconds that submit waits at most for a worker to begin

_REFUSALS = (RuntimeError, MemoryError, TetherError)  # to start a thread, or to take a call; others are interrupts

_DEEP = 32  # calls on top of one another on one worker: some 200 Python frames of the 1,000 that are the default limit
_here = threading.local()
_pools: weakref.WeakSet[Pool] = weakref.WeakSet()
_numbers = itertools.count()


class Worker:
    """One worker. As a context manager: around what blocks the call that it runs."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.lock = threading.Lock()  # what it sleeps on
        self.lock.acquire()
        self.begun = threading.Lock()
        self.begun.acquire()
        self.tasks: list[_core.TaskRef] = []  # its task, from its start on
        self.entry: threading.Thread | None = None  # from its start on
        self.depth = 0
        self._mark = functools.partial(behind.set, self)
        self._waits = 0  # of its call, and of tasks that this has made
        self._books = threading.RLock()

    def blocks(self) -> None:
        """The call that it runs waits for something: another worker may take its place."""
        with self._books:
            self._waits += 1
            first = self._waits == 1
        if first:
            self.pool.lend()

    def goes_on(self) -> None:
        """The wait is over."""
        with self._books:
            self._waits -= 1
            last = self._waits == 0
        if last:
            self.pool.take_back()

    def __enter__(self) -> None:
        self.blocks()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.goes_on()

    def may_nest(self) -> bool:
        """Is there room on its stack for one call more?"""
        return self.depth < _DEEP

    def nest(self, cell: Cell) -> bool:
        """Runs a call on top of the one that waits for it, unless somebody else did."""
        self.depth += 1
        try:
            ran = run_cell(cell, self._mark)
        finally:
            self.depth -= 1
        if ran:
            self.pool.trim()
        return ran

    def run(self, cell: Cell) -> None:
        """Runs a call."""
        run_cell(cell, self._mark)


class Pool:
    """What an executor and its workers share. They refer to this and not to the executor: so that can be dropped."""

    def __init__(
        self, most: int, name: str, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]
    ) -> None:
        self.name = name
        self.initialize = None if initializer is None else functools.partial(initializer, *initargs)
        self.queue: deque[Cell] = deque()
        self.permits: deque[None] = deque(itertools.repeat(None, min(most, MOST_WORKERS)))
        self.idle: deque[threading.Lock] = deque()
        self.debts: deque[None] = deque()
        self.refusal: tuple[type[Exception], str] | None = None  # why submit takes no more
        self.alive: set[Worker] = set()
        self._leaving: list[Worker] = []  # not alive any more, but their tasks may be
        self._books = threading.RLock()  # these, and the listeners
        self._listeners: list[Callable[[], None]] = []
        self._names = itertools.count()
        self._owner: weakref.ref[object] | None = None
        _pools.add(self)

    def watch(self, executor: object) -> None:
        """When the executor is dropped, what is queued is still done, and then the workers end."""
        self._owner = weakref.ref(executor, lambda _: self.close(RuntimeError, CLOSED))

    def refused(self) -> Exception:
        """What submit raises."""
        assert self.refusal is not None
        kind, text = self.refusal
        return kind(text)

    def check_process(self) -> None:
        """Is it that in which the workers are? Raises ForkedError."""
        if self.refusal is not None and self.refusal[0] is ForkedError:
            raise self.refused()

    # ---- who is asking?

    def worker_here(self) -> Worker | None:
        """The worker of this pool on whose thread, and with whose thread-locals, the caller runs."""
        worker = getattr(_here, "worker", None)
        return worker if worker is not None and worker.pool is self else None

    # ---- work

    def add(self, cell: Cell) -> None:
        """Queues a call, and sees to it that somebody takes it."""
        self.queue.append(cell)
        try:
            if self.idle or self.permits:
                self.wake()
            if self.refusal is None:
                return
            refusal: BaseException = self.refused()  # closed meanwhile; the last worker may have looked before
        except BaseException as error:
            refusal = error  # there is no worker, and no thread to be had
        try:
            cell.pop()
        except IndexError:  # somebody runs it, or has cancelled it: only an interrupt is news then
            if isinstance(refusal, _REFUSALS):
                return
        raise refusal

    def wake(self) -> None:
        """Somebody should look at the queue: one that sleeps, or a new one if there is a permit."""
        try:
            self.idle.pop().release()
            return
        except IndexError:
            pass
        try:
            self.permits.pop()
        except IndexError:
            return
        worker = Worker(self)
        try:
            self._start(worker)
        except BaseException as error:
            if not worker.tasks:  # it has not started: an interrupt may come at any time
                self.permits.append(None)
                self._ended(worker)
            if isinstance(error, ShutdownError):
                raise RuntimeError(_GOING_DOWN) from None
            if worker.tasks or not self.alive or not isinstance(error, _REFUSALS):
                raise
            # those that are alive will come to it

    def _start(self, worker: Worker) -> None:
        with self._books:
            self.alive.add(worker)
        _prepare()
        options = _core.options(name=f"{self.name}_{next(self._names)}", dedicated=True, context=Context())
        # One call of C, in which no interrupt comes: in between, one would drop the guard, and that waits for the task.
        worker.tasks.extend(map(_core.JoinGuard.detach, map(options.spawn, (self._work,), (worker,))))
        # As Thread.start does. Else, with a GIL, whoever submits and then closes would never see a call begin.
        worker.begun.acquire(timeout=_HANDSHAKE)

    def lend(self) -> None:
        """A worker is about to block."""
        self.permits.append(None)
        if self.queue:
            self.wake()

    def take_back(self) -> None:
        """It goes on: one worker more than permits now, until one of them has ended its call."""
        try:
            self.permits.pop()
        except IndexError:
            self.debts.append(None)
            with suppress(IndexError):
                self.idle.pop().release()

    def trim(self) -> None:
        """Calls that were nested leave empty cells in the queue, mostly where the last ones were put."""
        try:
            if self.queue[-1]:
                return
            cell = self.queue.pop()
        except IndexError:
            return
        if cell:  # it came in between
            self.queue.append(cell)
            if self.idle or self.permits:
                self.wake()  # one that looked meanwhile has missed it

    # ---- the life of a worker

    def _work(self, worker: Worker) -> None:
        worker.entry = threading.current_thread()
        worker.begun.release()
        _here.worker = worker
        permit = True
        try:
            if self._initialized():
                permit = self._serve(worker)
        except (Cancelled, KilledTask):
            pass  # somebody found it among tether.tasks(): another one takes its place
        finally:
            _here.worker = None
            if permit:
                self.permits.append(None)
            self._ended(worker)
            if self.queue:
                self.wake()

    def _initialized(self) -> bool:
        if self.initialize is None:
            return True
        try:
            self.initialize()
        except BaseException:
            logging.getLogger("concurrent.futures").critical("Exception in initializer:", exc_info=True)
            self.refusal = BrokenThreadPool, "A thread initializer failed, the thread pool is not usable anymore"
            self.close(*self.refusal)
            self.abort()
            return False
        return True

    def _serve(self, worker: Worker) -> bool:
        """Runs calls. Is its permit to be given back?"""
        while True:
            _core.checkpoint()
            if self.debts:
                with suppress(IndexError):
                    self.debts.pop()
                    return False
            try:
                cell = self.queue.popleft()
            except IndexError:
                if self.refusal is not None:
                    return True
                self._sleep(worker)
                continue
            if cell:
                worker.run(cell)
            del cell

    def _sleep(self, worker: Worker) -> None:
        self.idle.append(worker.lock)
        if self.queue or self.refusal is not None or self.debts:
            try:
                self.idle.remove(worker.lock)
                return
            except ValueError:
                pass  # somebody wakes us already
        worker.lock.acquire()

    def _ended(self, worker: Worker) -> None:
        with self._books:
            self.alive.discard(worker)
            self._leaving = [gone for gone in self._leaving if any(task.is_alive() for task in gone.tasks)]
            self._leaving.append(worker)
            listeners = [] if self.alive else self._listeners[:]
        for listener in listeners:
            listener()

    # ---- the end

    def close(self, kind: type[Exception], text: str) -> None:
        """Takes no more; what is queued is done. Waits for nobody: may be called by the collector."""
        if self.refusal is None:
            self.refusal = kind, text
        self._owner = None
        while self.idle:
            try:
                self.idle.pop().release()
            except IndexError:  # others were faster. (Not suppress(): that may be gone, when the interpreter ends.)
                return

    def broken(self) -> bool:
        """Has an initializer failed?"""
        return self.refusal is not None and self.refusal[0] is BrokenThreadPool

    def abort(self) -> None:
        """What is queued is not done: it is cancelled, or fails as submit does."""
        while self.queue:
            with suppress(IndexError):
                cancel_cell(self.queue.popleft(), self.refused() if self.broken() else None)

    def wait(self) -> None:
        """Until the last worker has ended."""
        while self.alive:
            listener: list[Callable[[], None]] = []

            def subscribe(ring: Callable[[], None], kept: list[Callable[[], None]] = listener) -> None:
                kept.append(ring)
                with self._books:
                    self._listeners.append(ring)

            try:
                wait_for(subscribe, lambda: not self.alive)
            finally:
                with self._books, suppress(ValueError, IndexError):  # an interrupt may have come before it was there
                    self._listeners.remove(listener[0])
        for worker in self._leaving:
            while any(task.is_alive() for task in worker.tasks):  # for the last few instructions
                _core.sleep(1e-4)

    def forked(self) -> None:
        """In the child."""
        self.refusal = ForkedError, "this executor is the parent's, and so are its workers: make a new one in the child"
        self._books = threading.RLock()
        self.alive.clear()
        self.queue.clear()
        self.idle.clear()


_prepared = False


def _prepare() -> None:
    """Has the workers end before the runtime drains its tasks, which they are, too: exit functions run last-in
    first-out."""
    global _prepared
    if not _prepared:
        _core.spawn(int).join()  # now the runtime's is there
        threading._register_atexit(_exit)  # type: ignore[attr-defined]
        _prepared = True


def _exit() -> None:
    pools = list(_pools)
    for pool in pools:
        pool.close(RuntimeError, _GOING_DOWN)
    for pool in pools:
        pool.wait()


def _forked() -> None:
    """The workers are the parent's."""
    for pool in list(_pools):
        pool.forked()


os.register_at_fork(after_in_child=_forked)
