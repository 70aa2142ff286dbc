"""What tether raises. Each says what happened, who holds it, where, and what to do."""

from __future__ import annotations

TYPE_CHECKING = False  # as typing's, which costs more to import than all of tether
if TYPE_CHECKING:
    from ._core import TaskRef
    from ._exit import KillReason

__all__ = [
    "BorrowError",
    "Cancelled",
    "DeadlockError",
    "ForkedError",
    "KilledTask",
    "MovedError",
    "NativeError",
    "OwnershipError",
    "ReapedError",
    "ScopeClosedError",
    "SendError",
    "ShutdownError",
    "TaskKilled",
    "TetherError",
]


class TetherError(Exception):
    """The base of tether's errors."""


class OwnershipError(TetherError):
    """A guard was used by somebody else than its owner, or would have come to own itself (G3, G4); nothing changed."""


class BorrowError(TetherError):
    """A borrow that cannot be had, or was used after its end (G13, G14); nothing changed.

    ``holder`` is the TaskRef of the task that has what is in the way (None: the program's own threads), ``site`` the
    line where it was borrowed, or None, and ``range`` its ``(start, stop)``.
    """

    holder: TaskRef | None
    site: str | None
    range: tuple[int, int] | None

    def __init__(
        self,
        message: str,
        holder: TaskRef | None = None,
        site: str | None = None,
        range: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(message)
        self.holder = holder
        self.site = site
        self.range = range


class MovedError(TetherError):
    """The value was moved elsewhere, by this handle or another one's making; it cannot be used here any more."""


class NativeError(TetherError):
    """A C function that `tether.native.parallel_for` called answered other than 0; nothing more was begun.

    ``function`` is what was given, ``code`` the answer, ``range`` the ``(begin, end)`` of the part: numbers, or bytes
    of the region.
    """

    function: object
    code: int
    range: tuple[int, int]

    def __init__(self, message: str, function: object, code: int, range: tuple[int, int]) -> None:
        super().__init__(message)
        self.function = function
        self.code = code
        self.range = range


class SendError(TetherError, TypeError):
    """A value may not be given to the task; nothing was spawned.

    ``path`` says where it is (``"args[0]['items']"``), ``value_type`` what it is, ``hint`` what to do instead.
    """

    path: str
    value_type: type
    hint: str

    def __init__(self, message: str, *, path: str, value_type: type, hint: str) -> None:
        super().__init__(message)
        self.path = path
        self.value_type = value_type
        self.hint = hint

    @classmethod
    def at(cls, path: str, value: object, hint: str) -> SendError:
        """The error for ``value``, found at ``path``."""
        kind = type(value)
        return cls(f"{path} is a {kind.__qualname__}: {hint}", path=path, value_type=kind, hint=hint)


class TaskKilled(TetherError):
    """The joined task did not complete: it was cancelled or killed.

    ``reason`` is a KillReason; ``detail`` is the text given to ``cancel``, or None; ``__cause__`` is what the task
    ended with, if it had started.
    """

    reason: KillReason
    detail: str | None

    def __init__(self, name: str, site: str, reason: KillReason, detail: str | None = None) -> None:
        why = f": {detail}" if detail else ""
        super().__init__(f"task '{name}', spawned at {site}, was cancelled before it completed{why}")
        self.reason = reason
        self.detail = detail


class ReapedError(TetherError):
    """The exit value was taken already; it is kept until it is taken, once (G9)."""


class ScopeClosedError(TetherError):
    """The scope's block was left and its last task has ended: it takes no more tasks."""


class ForkedError(TetherError):
    """The guard belongs to the parent process; its task does not exist in this one."""


class ShutdownError(TetherError):
    """The interpreter is shutting down: nothing new is spawned."""


class DeadlockError(TetherError):
    """This wait could never end: those waited for wait for the caller. ``cycle`` names the tasks."""

    cycle: list[TaskRef]

    def __init__(self, cycle: list[TaskRef]) -> None:
        steps = "; ".join([f"'{task.name}' (spawned at {task.spawned_at})" for task in cycle])
        why = f"for {steps}, which waits for" if steps else "for a scope that waits for, or a borrow that is held by,"
        super().__init__(
            f"this wait can never end: it is {why} the one that is to wait here. Let one of them return, or give back "
            "what it has borrowed, instead of waiting"
        )
        self.cycle = cycle


class Cancelled(BaseException):
    """Raised inside a cancelled task, or in the body of a cancelled scope, at a checkpoint or blocking call (G12).

    Let it pass: scopes, ``with guard:`` and destructors still join on the way out.
    """


class KilledTask(BaseException):
    """Raised anywhere inside a killed task. Let it pass."""
