"""How tasks stand and how they end: TaskState, and the exit values Completed and Killed."""

from __future__ import annotations

import enum
from typing import Generic, TypeAlias, TypeVar

__all__ = ["Completed", "ExitValue", "KillReason", "Killed", "TaskState"]

R_co = TypeVar("R_co", covariant=True)


class TaskState(enum.Enum):
    """The state of a task; BLOCKED is a running task that sleeps in a wait of tether."""

    NEW = "new"
    QUEUED = "queued"
    RUNNING = "running"
    BLOCKED = "blocked"
    EXITED = "exited"
    REAPED = "reaped"


class KillReason(enum.Enum):
    """Why a task did not complete: somebody asked it to end, or an exception ended it."""

    REQUESTED = "requested"
    EXCEPTION = "exception"


class _Frozen:
    """Values whose attributes are set once, by __init__. (dataclasses would cost more to import than all of tether.)"""

    __slots__ = ()

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable")


class Completed(_Frozen, Generic[R_co]):
    """The exit value of a task that returned; ``notes`` are what earlier attempts of a restarted one came to.

    >>> import tether
    >>> match tether.spawn(max, 1, 2).exit_value():
    ...     case tether.Completed(value):
    ...         print(value)
    2
    """

    __match_args__ = ("value",)
    __slots__ = ("notes", "value")

    value: R_co
    notes: tuple[str, ...]

    def __init__(self, value: R_co, notes: tuple[str, ...] = ()) -> None:
        object.__setattr__(self, "value", value)
        object.__setattr__(self, "notes", notes)

    def __reduce__(self) -> tuple[type[Completed[R_co]], tuple[R_co, tuple[str, ...]]]:
        return (Completed, (self.value, self.notes))

    def __repr__(self) -> str:
        notes = f", notes={self.notes!r}" if self.notes else ""
        return f"Completed(value={self.value!r}{notes})"

    def __eq__(self, other: object) -> bool:
        return bool(self.value == other.value) if isinstance(other, Completed) else NotImplemented

    def __hash__(self) -> int:
        return hash((Completed, self.value))


class Killed(_Frozen):
    """The exit value of a task that did not return: ``reason``, and the ``exception`` (None: it never started).

    ``notes`` are the exception's: where the task was spawned, and what earlier attempts of a restarted one came to.
    """

    __match_args__ = ("reason", "exception")
    __slots__ = ("exception", "reason")

    reason: KillReason
    exception: BaseException | None

    def __init__(self, reason: KillReason, exception: BaseException | None = None) -> None:
        object.__setattr__(self, "reason", reason)
        object.__setattr__(self, "exception", exception)

    @property
    def notes(self) -> tuple[str, ...]:
        """The exception's notes, or none."""
        return tuple(getattr(self.exception, "__notes__", ()))

    def __reduce__(self) -> tuple[type[Killed], tuple[KillReason, BaseException | None]]:
        return (Killed, (self.reason, self.exception))

    def __repr__(self) -> str:
        return f"Killed(reason={self.reason!r}, exception={self.exception!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Killed):
            return NotImplemented
        return self.reason is other.reason and self.exception == other.exception

    def __hash__(self) -> int:
        return hash((Killed, self.reason, self.exception))


ExitValue: TypeAlias = Completed[R_co] | Killed
