"""The Python names that the native part needs."""

from ._errors import (
    Cancelled,
    DeadlockError,
    KilledTask,
    OwnershipError,
    ReapedError,
    ScopeClosedError,
    ShutdownError,
    TaskKilled,
)
from ._exit import Completed, Killed, KillReason, TaskState
from ._settle import settle

__all__ = [
    "Cancelled",
    "Completed",
    "DeadlockError",
    "KillReason",
    "Killed",
    "KilledTask",
    "OwnershipError",
    "ReapedError",
    "ScopeClosedError",
    "ShutdownError",
    "TaskKilled",
    "TaskState",
    "settle",
]
