"""`supervisor`: a scope whose tasks are restarted, with the strategies of Erlang/OTP.

How a group is restarted. The tasks stay where they are, each on its thread; only what they do ends and begins anew.
All below is under one lock, which is never held in a wait:

    running    in an attempt                    until `ended` is called
    waiting    its attempt has ended            it sleeps until it is released
    (neither)  not begun, or between the two

A failure sets `_first`, the first task of the group to stop. Tasks are stopped one at a time, the last spawned first:
`_renew` makes what it does raise `Cancelled`, and `ended` goes on to the next. When nobody of the group runs, all that
wait are released, in the order of their spawns, by `_renew` again: it ends their sleep. A task that completes, is
cancelled by somebody, or fails for good leaves the group; the others do not wait for it.

Every `_renew` that stops is sent under the lock while its task is `running`, and `ended` takes it back under the lock.
So one that arrives in a waiting task is its release. A task of a group never runs in place above another (job.apart):
it could not wait for the end of what lies below it.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from . import _core
from ._errors import Cancelled
from ._restart import Limit, Run, check_limit

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


def _forget(children: dict[int, weakref.ref[_Child]], index: int, ref: object) -> None:
    children.pop(index, None)


class _Held(Exception):
    """Raised by a task that would begin while its group is being stopped."""


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
        self.index = 0
        self.task: _core.TaskRef | None = None  # from its first beginning on
        self.running = self.waiting = False

    def __call__(self) -> Any:
        self._supervision.begins(self)
        return super().__call__()

    def ended(self, failure: BaseException | None) -> bool:
        again, wait = self._supervision.ended(self, failure)
        if wait:
            _core.sleep(_FOR_EVER)  # ended by its release, or by a cancellation
        return again


class _Supervision:
    """The books of one supervisor."""

    def __init__(self, strategy: str, limit: Limit) -> None:
        self._strategy = strategy
        self._limit = limit
        self._lock = threading.Lock()
        self._children: dict[int, weakref.ref[_Child]] = {}  # the tasks hold them
        self._spawned = 0
        self._first: int | None = None

    def prepare(self, fn: Callable[..., Any], values: tuple[Any, ...], names: tuple[str, ...], guards: bool) -> _Child:
        """Called by spawn: what runs instead of ``fn``."""
        child = _Child(self, fn, values, names, guards)
        with self._lock:
            self._spawned = child.index = self._spawned + 1
            self._children[child.index] = weakref.ref(child, partial(_forget, self._children, child.index))
        return child

    def begins(self, child: _Child) -> None:
        """An attempt begins, unless its group is being stopped."""
        with self._lock:
            child.task = _core.current()
            if self._stops(child):
                raise _Held
            child.running = True

    def _stops(self, child: _Child) -> bool:
        return self._first is not None and child.index >= self._first

    def ended(self, child: _Child, failure: BaseException | None) -> tuple[bool, bool]:
        """Shall there be another attempt, and must it wait for its release?"""
        with self._lock:
            asked = _core._spare() or isinstance(failure, _Held)
            child.running = False
            again = self._again(child, failure, asked)
            if not again:
                self._children.pop(child.index, None)
            child.waiting = again and self._stops(child)
            self._go_on(child)
            return again, child.waiting

    def _again(self, child: _Child, failure: BaseException | None, asked: bool) -> bool:
        if failure is None:
            return False
        if asked and isinstance(failure, (Exception, Cancelled)):
            child.restarts += 1
            return True
        if not isinstance(failure, Exception):
            child.give_up(failure)  # cancelled or killed by somebody; an interrupt
            return False
        if not self._limit.take():
            child.give_up(failure, f"the supervisor gives up: {self._limit} are allowed")
            return False
        child.note(failure)
        if self._strategy != "one_for_one":
            first = child.index if self._strategy == "rest_for_one" else 1
            self._first = first if self._first is None else min(self._first, first)
        return True

    def _go_on(self, caller: _Child) -> None:
        """Stops the next task of the group, or, when none runs, releases them all."""
        if self._first is None:
            return
        known = [child for _, ref in sorted(self._children.items()) if (child := ref()) is not None]
        group = [child for child in known if self._stops(child)]
        running = [child for child in group if child.running]
        if running:
            assert running[-1].task is not None
            _core._renew(running[-1].task)
            return
        self._first = None
        for child in group:
            if child.waiting:
                child.waiting = False
                if child is not caller:
                    assert child.task is not None
                    _core._renew(child.task)
