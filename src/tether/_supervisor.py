"""`supervisor`: a scope whose tasks are restarted, with the strategies of Erlang/OTP.

How a group is restarted. The tasks stay where they are, each on its thread; only what they do ends and begins anew.
All below is under one lock, which is never held in a wait:

    running    in an attempt, or about to be    from `begins` until `ended`
    waiting    its attempt has ended            it sleeps until it is released
    (neither)  not begun, or between the two

A failure sets `_first`, the first task of the group to stop. Tasks are stopped one at a time, the last spawned first:
`_renew` makes what it does raise `Cancelled`, and `ended` goes on to the next. When nobody of the group runs, all that
wait are released, in the order of their spawns, by `_renew` again: it ends their sleep. A task that completes, is
cancelled by somebody, or fails for good leaves the group; the others do not wait for it. What a task of the group fails
with while it is being stopped is part of the same restart, as in OTP.

Every `_renew` that stops is sent under the lock while its task is `running`, and `ended` takes it back under the lock.
So one that arrives in a waiting task is its release. A task of a group never runs in place above one that waits for
something else (task.apart): it could not wait for the end of what lies below it, and would be stopped with it.

No code of the user runs under the lock, except what the collector, a signal or a trace function calls. That may spawn:
hence an RLock, spawns that do without it, and a snapshot of the seats. If the books
themselves fail (no memory, an interrupt in place), the task fails with that, and so the scope is cancelled: nobody
sleeps on.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from itertools import count
from typing import Any, Literal

from . import _core
from ._errors import Cancelled
from ._restart import Limit, Run, cancelled, check_limit, describe

__all__ = ["supervisor"]

Strategy = Literal["one_for_one", "one_for_all", "rest_for_one"]
_STRATEGIES = ("one_for_one", "one_for_all", "rest_for_one")
_FOR_EVER = float("inf")


def supervisor(
    strategy: Strategy = "one_for_one",
    *,
    max_restarts: int = 3,
    within: float = 60.0,
    name: str | None = None,
    timeout: float | None = None,
    check: _core.Check | None = None,
) -> _core.Scope:
    """A scope whose tasks are restarted when they fail: ``with tether.supervisor() as s: s.spawn(...)``.

    A task that completes is done. What it is given must be fit for a second attempt, as for Restart. Each attempt has
    its own copy of the context and its own thread-locals (G18).

    Parameters:
        strategy: ``"one_for_one"`` restarts the task that failed; ``"one_for_all"`` all of them;
            ``"rest_for_one"`` it and those spawned after it. The others are cancelled first, the last spawned first,
            each one waited for; then all begin again, released in the order of their spawns.
        max_restarts: most restarts of the supervisor ``within`` so many seconds. With one failure more it gives up:
            the failure stands, with its history as notes, its siblings are cancelled, and leaving the block raises it
            in an ExceptionGroup (G2).
        within: seconds.
        name, timeout, check: as for ``scope``.

    The strategies and the limit are those of Erlang/OTP's supervisors, with children of the type "transient".

    >>> import tether
    >>> answers = iter([OSError("busy"), 42])
    >>> def ask():
    ...     answer = next(answers)
    ...     if isinstance(answer, OSError):
    ...         raise answer
    ...     return answer
    >>> with tether.supervisor("one_for_one", max_restarts=5, within=10.0) as s:
    ...     handle = s.spawn(ask)
    >>> handle.join()
    42
    """
    if strategy not in _STRATEGIES:
        raise ValueError(f"strategy must be one of {', '.join(map(repr, _STRATEGIES))}, not {strategy!r}")
    check_limit(max_restarts, within)
    scope = _core.scope(name, timeout=timeout, check=check)
    return _core._supervise(scope, _Supervision(strategy, Limit(max_restarts, within)))


class _Held(Exception):
    """Takes the place of an attempt that would begin while its group is being stopped."""


class _Verdict(Enum):
    """What an attempt's end comes to."""

    DONE = "it completed"
    OVER = "it failed with what is none to restart after"
    GIVES_UP = "one failure too many"
    FAILED = "another attempt"
    STOPPED = "another attempt; this one ended with its group"
    HELD = "it did not begin"
    LEAVES = "it was cancelled, by more than its group"


_AGAIN = (_Verdict.FAILED, _Verdict.STOPPED, _Verdict.HELD)


class _RunRef(weakref.ref[Run]):
    """Is put among the gone when the run goes; by C code, since a kill or an interrupt could come into Python code."""

    __slots__ = ("index",)

    index: int


class _Seat:
    """A task's entry in the books."""

    __slots__ = ("index", "run", "running", "task", "waiting")

    def __init__(self) -> None:
        self.index = 0
        self.run: _RunRef | None = None  # tells when a task is gone that never ended an attempt
        self.task: _core.TaskRef | None = None  # from its first beginning on
        self.running = self.waiting = False


class _Child(Run):
    """The run of a supervised task."""

    def __init__(
        self,
        supervision: _Supervision,
        fn: Callable[..., Any],
        values: tuple[Any, ...],
        names: tuple[str, ...],
        guards: bool,
    ) -> None:
        super().__init__(fn, values, names, guards)
        self._supervision = supervision
        self.seat = _Seat()

    def begins(self) -> None:
        self._supervision.begins(self.seat)

    def ended(self, failure: BaseException | None) -> bool:
        text = describe(failure) if isinstance(failure, Exception) else None
        verdict, wait = self._supervision.ended(self.seat, failure)
        if verdict is _Verdict.LEAVES:
            assert failure is not None
            return self.leave(failure)
        if verdict not in _AGAIN:
            if failure is not None:
                self.give_up(failure, self._supervision.limit if verdict is _Verdict.GIVES_UP else None)
            return False
        if verdict is not _Verdict.HELD:
            self.note(text)
        if wait:
            _core.sleep(_FOR_EVER)  # ended by its release, or by a cancellation
        return True


class _Supervision:
    """The books of one supervisor."""

    def __init__(self, strategy: str, limit: Limit) -> None:
        self._strategy = strategy
        self._limit = limit
        self.limit = f"the supervisor gives up: {limit} are allowed"
        self._lock = threading.RLock()
        self._seats: dict[int, _Seat] = {}  # put there without the lock, hence roughly in the order of their spawns
        self._gone: deque[weakref.ref[Run]] = deque()
        self._numbers = count(1)
        self._first: int | None = None

    def prepare(self, fn: Callable[..., Any], values: tuple[Any, ...], names: tuple[str, ...], guards: bool) -> _Child:
        """Called by spawn: what runs instead of ``fn``."""
        child = _Child(self, fn, values, names, guards)
        self._admit(child)
        return child

    def begins(self, seat: _Seat) -> None:
        """An attempt begins, unless its group is being stopped."""
        _core._locked(self._lock, self._begins, seat)

    def ended(self, seat: _Seat, failure: BaseException | None) -> tuple[_Verdict, bool]:
        """What does this end come to, and must the task wait for its release?"""
        return _core._locked(self._lock, self._ended, seat, failure)

    def _admit(self, child: _Child) -> None:
        # Not under the lock: a signal's handler that comes while it is held, and joins a task, would wait for ever.
        with suppress(IndexError):  # there are no more
            while True:
                ref = self._gone.popleft()
                assert isinstance(ref, _RunRef)
                self._seats.pop(ref.index, None)
        seat = child.seat
        seat.index = next(self._numbers)
        seat.run = _RunRef(child, self._gone.append)
        seat.run.index = seat.index
        self._seats[seat.index] = seat

    def _begins(self, seat: _Seat) -> None:
        seat.task = _core.current()
        if self._stops(seat):
            raise _Held
        seat.running = True

    def _stops(self, seat: _Seat) -> bool:
        return self._first is not None and seat.index >= self._first

    def _ended(self, seat: _Seat, failure: BaseException | None) -> tuple[_Verdict, bool]:
        seat.running = False
        verdict = self._judge(seat, failure, _core._spare())
        if verdict not in _AGAIN:
            self._seats.pop(seat.index, None)
        seat.waiting = verdict in _AGAIN and self._stops(seat)
        self._go_on(seat)
        return verdict, seat.waiting

    def _judge(self, seat: _Seat, failure: BaseException | None, asked: bool) -> _Verdict:
        if failure is None:
            return _Verdict.DONE
        if isinstance(failure, _Held):
            return _Verdict.HELD
        if not isinstance(failure, (Exception, Cancelled)):
            return _Verdict.OVER
        if cancelled():
            return _Verdict.LEAVES
        if asked or (self._stops(seat) and isinstance(failure, Exception)):
            return _Verdict.STOPPED
        if not isinstance(failure, Exception):
            return _Verdict.OVER
        if not self._limit.take():
            return _Verdict.GIVES_UP
        if self._strategy != "one_for_one":
            first = seat.index if self._strategy == "rest_for_one" else 1
            self._first = first if self._first is None else min(self._first, first)
        return _Verdict.FAILED

    def _go_on(self, caller: _Seat) -> None:
        """Stops the next task of the group, or, when none runs, releases them all."""
        if self._first is None:
            return
        group = [seat for _, seat in sorted(self._seats.copy().items()) if self._stops(seat)]
        for seat in reversed(group):
            if seat.running:
                assert seat.task is not None
                _core._renew(seat.task)
                return
        self._first = None
        for seat in group:
            if seat.waiting:
                seat.waiting = False
                if seat is not caller:
                    assert seat.task is not None
                    _core._renew(seat.task)
