"""Restartable tasks: `Restart`, and the run, which stands in for the task's function (cext/binding/restart.c)."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from . import _core
from ._copies import Arguments
from ._errors import Cancelled, KilledTask, SendError
from ._exit import _Frozen

__all__ = ["Limit", "Restart", "Run", "check_limit"]

_ENDS = (Cancelled, KilledTask, KeyboardInterrupt)  # asked for from outside, whatever `on` says
_DEEP = 100  # exceptions looked at, one in the context of another
_LONG = 300  # characters of a note
_KEPT = 10  # notes: enough to see a pattern, and a service may run for years


class Restart(_Frozen):
    """How a task that fails is run again: ``tether.options(restart=Restart(...))``.

    The task stays one task, with one guard; each attempt has the same function, equal arguments, and its own copy of
    the context and its own thread-locals (G18). What it is given must be immutable, made for sharing between threads,
    or copyable: each attempt gets a copy of what was given at the spawn. ``join`` gives the value of the attempt that
    completed, or raises the last failure, with the earlier ones as notes. A cancelled or killed task is not run again.

    Parameters:
        max_restarts: most restarts ``within`` so many seconds; with one failure more, the failure stands.
        within: seconds.
        backoff: seconds before a restart; doubled for each one more within that time.
        on: exception class, or a tuple of them, after which it is run again.

    Raises: SendError at the spawn, for arguments that cannot be had twice.

    The limit, and its name, are those of Erlang/OTP's supervisors (restart intensity).

    >>> import tether
    >>> answers = iter([OSError("busy"), OSError("busy"), 42])
    >>> def ask():
    ...     answer = next(answers)
    ...     if isinstance(answer, OSError):
    ...         raise answer
    ...     return answer
    >>> tether.options(restart=tether.Restart(backoff=0.001)).spawn(ask).join()
    42
    """

    __slots__ = ("backoff", "max_restarts", "on", "within")

    max_restarts: int
    within: float
    backoff: float
    on: type[BaseException] | tuple[type[BaseException], ...]

    def __init__(
        self,
        max_restarts: int = 3,
        within: float = 60.0,
        backoff: float = 0.1,
        on: type[BaseException] | tuple[type[BaseException], ...] = Exception,
    ) -> None:
        check_limit(max_restarts, within)
        if not 0 <= as_float("backoff", backoff) < float("inf"):
            raise ValueError(f"backoff must be a finite number of seconds, 0 or more, not {backoff!r}")
        for kind in on if isinstance(on, tuple) else (on,):
            if not (isinstance(kind, type) and issubclass(kind, BaseException)):
                raise TypeError(f"on must be an exception class or a tuple of them, not {on!r}")
        for name, value in (("max_restarts", max_restarts), ("within", within), ("backoff", backoff), ("on", on)):
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        on = self.on.__name__ if isinstance(self.on, type) else f"({', '.join(kind.__name__ for kind in self.on)})"
        return f"Restart(max_restarts={self.max_restarts}, within={self.within}, backoff={self.backoff}, on={on})"

    def _key(self) -> tuple[object, ...]:
        return self.max_restarts, self.within, self.backoff, self.on

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, Restart) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())

    def __reduce__(self) -> tuple[type[Restart], tuple[object, ...]]:
        return Restart, self._key()

    def prepare(self, fn: Callable[..., Any], values: tuple[Any, ...], names: tuple[str, ...], guards: bool) -> Run:
        """Called by spawn: what runs instead of ``fn``."""
        return _Alone(self, fn, values, names, guards)


def as_float(name: str, value: float) -> float:
    """``value``, if it is a number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name} is too large a number of seconds") from None


def check_limit(max_restarts: int, within: float) -> None:
    """Are these fit for a Limit?"""
    if isinstance(max_restarts, bool) or not isinstance(max_restarts, int):
        raise TypeError(f"max_restarts must be an int, not {type(max_restarts).__name__}")
    if max_restarts < 0:
        raise ValueError(f"max_restarts must be 0 or more, not {max_restarts}")
    if not as_float("within", within) > 0:
        raise ValueError(f"within must be a positive number of seconds, not {within!r}")


class Limit:
    """Counts restarts: at most ``most`` within ``within`` seconds."""

    def __init__(self, most: int, within: float) -> None:
        self._most = most
        self._within = within
        self._times: deque[float] = deque()

    def take(self) -> int:
        """How many restarts there have been lately, this one included; 0 when there may be none."""
        now = time.monotonic()
        while self._times and now - self._times[0] > self._within:
            self._times.popleft()
        if len(self._times) >= self._most:
            return 0
        self._times.append(now)
        return len(self._times)

    def __str__(self) -> str:
        return f"{self._most} restart{'' if self._most == 1 else 's'} within {self._within:g} s"


class Run:
    """The function of a restartable task: what the user gave, and its history."""

    def __init__(self, fn: Callable[..., Any], values: tuple[Any, ...], names: tuple[str, ...], guards: bool) -> None:
        plain = len(values) - len(names)
        self._fn = fn
        self._arguments = Arguments(values[:plain], dict(zip(names, values[plain:], strict=True)))
        if guards:
            hint = "it holds a guard, which can be given away once; spawn inside the task instead"
            raise SendError.at("the function", fn, hint)
        name = getattr(fn, "__name__", None)
        self.__name__ = name if isinstance(name, str) else type(fn).__name__
        self.restarts = 0
        self.notes: tuple[str, ...] = ()

    def __call__(self) -> Any:
        args, kwargs = self._arguments.fresh()
        return self._fn(*args, **kwargs)

    def begins(self) -> None:
        """Called before each attempt, as the task; an exception takes the attempt's place."""

    def ended(self, failure: BaseException | None) -> bool:
        """Called after each attempt, as the task: shall there be another? May wait. Neither can be killed."""
        raise NotImplementedError

    def note(self, failure: str | None) -> None:
        """Counts an attempt after which there is another; remembers its failure, unless others made it end."""
        self.restarts += 1
        if failure is not None:
            self.notes = (*self.notes, f"attempt {self.restarts} failed: {failure}")[-_KEPT:]

    def give_up(self, failure: BaseException, why: str | None = None) -> None:
        """Tells the last failure of the earlier ones."""
        for text in (*self.notes, *(() if why is None else (why,))):
            try:
                failure.add_note(text)
            except Exception:  # a class may refuse notes; the failure itself matters more
                return

    def leave(self, failure: BaseException) -> bool:
        """The task was cancelled. What it failed with while it was being ended stands; a failure after which it would
        have been run again is a note on the cancellation."""
        if answers(failure):
            self.give_up(failure)
            return False
        self.note(describe(failure))
        _core.checkpoint()
        return True

    def history(self) -> str:
        """For dump."""
        if not self.restarts:
            return ""
        times = "once" if self.restarts == 1 else f"{self.restarts} times"
        return f"restarted {times}" + (f", {self.notes[-1]}" if self.notes else "")


class _Alone(Run):
    """The run of a task that is restarted for itself."""

    def __init__(
        self, policy: Restart, fn: Callable[..., Any], values: tuple[Any, ...], names: tuple[str, ...], guards: bool
    ) -> None:
        super().__init__(fn, values, names, guards)
        self._policy = policy
        self._limit = Limit(policy.max_restarts, policy.within)

    def ended(self, failure: BaseException | None) -> bool:
        if failure is None:
            return False
        if isinstance(failure, _ENDS) or not isinstance(failure, self._policy.on):
            self.give_up(failure)
            return False
        if cancelled():
            return self.leave(failure)
        n = self._limit.take()
        if n == 0:
            self.give_up(failure, f"not run again: {self._limit} are allowed")
            return False
        self.note(describe(failure))
        if self._policy.backoff:
            _core.sleep(min(self._policy.backoff * 2.0 ** min(n - 1, 60), 3.0e9))
        return True


def cancelled() -> bool:
    """Was the calling task asked to end?"""
    try:
        _core.checkpoint()
    except (Cancelled, KilledTask):
        return True
    return False


def answers(failure: BaseException | None) -> bool:
    """Is it a cancellation, or was it raised while one was handled?"""
    for _ in range(_DEEP):
        if failure is None or isinstance(failure, (Cancelled, KilledTask)):
            break
        failure = failure.__context__
    return failure is not None


def describe(failure: BaseException) -> str:
    """One line: what, and where it was raised. Runs the exception's own code."""
    try:
        text = f"{type(failure).__name__}: {failure}".splitlines()[0]
    except Exception:
        text = type(failure).__name__
    if len(text) > _LONG:
        text = f"{text[:_LONG]}..."
    where = failure.__traceback__
    while where is not None and where.tb_next is not None:
        where = where.tb_next
    return text if where is None else f"{text} ({where.tb_frame.f_code.co_filename}:{where.tb_lineno})"
