"""The futures of `Executor`: real ``concurrent.futures.Future`` objects that are made and finished without a lock.

Two decisions are taken by one atomic operation each.

*Who begins.* The call lies in a cell, a list that the future shares with the queue. Whoever pops it, a worker, a waiter
that runs it itself, or ``cancel()``, goes on; everyone else finds the cell empty.

*Who is told.* The condition that the methods of the base class use is made when one of them first asks for it, by
``setdefault`` in the future's dict, and whoever finishes the future puts `_unasked` there by ``setdefault``, after the
result. If that finds a condition, there may be waiters and callbacks, and they are told under it, as in the base class.
Else nobody has asked yet, and whoever does finds `_unasked`, and so knows that the future has finished.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING, RUNNING
from contextlib import nullcontext, suppress
from contextvars import Context
from typing import TYPE_CHECKING, Any, TypeVar

from ._behind import behind
from ._bell import wait_for

if TYPE_CHECKING:
    from ._pool import Pool, Worker

__all__ = ["Call", "Cell", "PoolFuture", "cancel_cell", "run_cell"]

R = TypeVar("R")
Call = tuple["PoolFuture[Any]", Callable[..., Any], tuple[Any, ...], dict[str, Any], Context]
Cell = list[Call]

_ENDED = (CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED)


class _Waiters(list[Any]):
    """What concurrent.futures.wait and as_completed put into a future: there a worker may be about to block."""

    def __init__(self) -> None:
        super().__init__()
        self._blocked: dict[int, Worker] = {}

    def append(self, waiter: Any) -> None:
        super().append(waiter)
        worker = behind.get()
        if worker is not None:
            self._blocked[id(waiter)] = worker
            worker.blocks()

    def remove(self, waiter: Any) -> None:
        super().remove(waiter)
        worker = self._blocked.pop(id(waiter), None)
        if worker is not None:
            worker.goes_on()


class PoolFuture(Future[R]):
    """Made by ``Executor.submit``."""

    _state: str = PENDING
    _result: R | None = None
    _exception: BaseException | None = None
    _unasked: Any = object()  # here, and not a global: those may be gone when the interpreter ends

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._cell: Cell = []

    # ---- what the base class makes in __init__, made when it is asked for

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]
        mine = self.__dict__
        condition = mine.get("_asked")
        if condition is None:
            condition = mine.setdefault("_asked", threading.Condition())
        if condition is self._unasked:  # it has finished, and nobody will be told any more
            self._state = FINISHED  # maybe before `finish` comes to it
            condition = mine.setdefault("_asked_late", threading.Condition())
        return condition  # type: ignore[no-any-return]

    @property
    def _waiters(self) -> _Waiters:  # type: ignore[override]
        mine = self.__dict__
        return mine.get("_waiting") or mine.setdefault("_waiting", _Waiters())  # type: ignore[no-any-return]

    @property
    def _done_callbacks(self) -> list[Callable[[Future[R]], object]]:
        mine = self.__dict__
        return mine.get("_callbacks") or mine.setdefault("_callbacks", [])  # type: ignore[no-any-return]

    # ---- the worker's side

    def finish(self, result: Any, exception: BaseException | None) -> None:
        """Called once, by whoever ran the call."""
        self._result = result
        self._exception = exception
        condition = self.__dict__.setdefault("_asked", self._unasked)
        if condition is self._unasked:
            self._state = FINISHED
            return
        with condition:
            self._state = FINISHED
            for waiter in self._waiters:
                (waiter.add_result if exception is None else waiter.add_exception)(self)
            condition.notify_all()
        self._invoke_callbacks()  # type: ignore[attr-defined]

    # ---- everyone else's

    def cancel(self) -> bool:
        """Cancels it if it has not begun: then it never will. Was that so, now or before?"""
        if self.__dict__.get("_asked") is self._unasked:
            return False  # it has finished
        with self._condition:
            try:
                self._cell.pop()
            except IndexError:
                return self._state in (CANCELLED, CANCELLED_AND_NOTIFIED)
            self._state = CANCELLED_AND_NOTIFIED
            for waiter in self._waiters:
                waiter.add_cancelled(self)
            self._condition.notify_all()
        self._invoke_callbacks()  # type: ignore[attr-defined]
        return True

    def cancelled(self) -> bool:
        """Was it cancelled?"""
        return self._state in (CANCELLED, CANCELLED_AND_NOTIFIED)

    def running(self) -> bool:
        """Is it being run?"""
        return self._state == RUNNING

    def done(self) -> bool:
        """Has it ended, one way or the other?"""
        return self._state in _ENDED

    def result(self, timeout: float | None = None) -> R:
        """Waits for the call to end; returns what it returned, or raises what it raised.

        Inside of one of the pool's own calls it runs this one if that has not begun, and else lets another worker take
        over meanwhile: nested waits need no worker of their own (G8). A cancellation point of tether (G12).

        Raises: CancelledError, if this future was cancelled; TimeoutError.
        """
        if self._state != FINISHED:
            self._await(timeout)
        if self._exception is None and self._state == FINISHED:
            return self._result  # type: ignore[return-value]
        try:
            return super().result(0)
        finally:
            del self  # the exception's traceback holds this frame

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """As ``result``, but returns the exception, or None."""
        if self._state != FINISHED:
            self._await(timeout)
        return super().exception(0)

    def _await(self, timeout: float | None) -> None:
        if self._state in _ENDED:
            return
        self._pool.check_process()
        worker = self._pool.worker_here()
        if worker is not None and timeout is None and worker.may_nest() and worker.nest(self._cell):
            return
        with behind.get() or nullcontext():
            self._block(timeout)

    def _block(self, timeout: float | None) -> None:
        bells: list[Callable[[Future[R]], object]] = []

        def subscribe(ring: Callable[[], None]) -> None:
            bells.append(lambda _: ring())
            self.add_done_callback(bells[0])

        try:
            wait_for(subscribe, self.done, timeout)
        finally:
            with self._condition:
                if self._state not in _ENDED:  # else they are being called, one after the other
                    with suppress(ValueError, IndexError):  # an interrupt may have come before it was there
                        self._done_callbacks.remove(bells[0])


def run_cell(cell: Cell, mark: Callable[[], object]) -> bool:
    """Runs the call, unless somebody else did, or cancelled it. ``mark`` is called before it, in its context."""
    try:
        future, fn, args, kwargs, context = cell.pop()
    except IndexError:
        return False
    future._state = RUNNING
    try:
        context.run(mark)
        result = context.run(fn, *args, **kwargs)
    except BaseException as error:
        future.finish(None, error)
        del future  # the traceback holds this frame, and the future the exception
    else:
        future.finish(result, None)
    return True


def cancel_cell(cell: Cell, error: BaseException | None = None) -> None:
    """Ends a call that has not begun: it is cancelled, or fails with ``error``."""
    try:
        future = cell[0][0]
    except IndexError:
        return
    if error is None:
        future.cancel()
        return
    with suppress(IndexError):
        cell.pop()
        future.finish(None, error)
