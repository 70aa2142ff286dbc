"""tether: scoped parallelism whose guards cannot be forgotten.

Layout: this package is thin. ``_core`` is the native part (cext/binding over cext/runtime): spawn, guards, scopes.
``_errors``, ``_exit``, ``_settle``, ``_crew`` are what it needs from Python; ``_scoped``, ``_tree``, ``_statistics`` are
written on top of it. ``_bench`` and ``__main__`` are the command line.

>>> import tether
>>> with tether.scope() as s:
...     total = [s.spawn(sum, range(n)) for n in (10, 20)]
>>> [guard.join() for guard in total]
[45, 190]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._core import (
    JoinGuard,
    Options,
    Scope,
    TaskRef,
    checkpoint,
    configure,
    current,
    options,
    scope,
    sleep,
    spawn,
    tasks,
)
from ._errors import (
    Cancelled,
    DeadlockError,
    ForkedError,
    KilledTask,
    OwnershipError,
    ReapedError,
    ScopeClosedError,
    ShutdownError,
    TaskKilled,
    TetherError,
)
from ._exit import Completed, ExitValue, Killed, KillReason, TaskState
from ._scoped import scoped
from ._tree import dump

if TYPE_CHECKING:
    from ._statistics import Statistics, statistics

__version__ = "0.1.0"

__all__ = [
    "Cancelled",
    "Completed",
    "DeadlockError",
    "ExitValue",
    "ForkedError",
    "JoinGuard",
    "KillReason",
    "Killed",
    "KilledTask",
    "Options",
    "OwnershipError",
    "ReapedError",
    "Scope",
    "ScopeClosedError",
    "ShutdownError",
    "Statistics",
    "TaskKilled",
    "TaskRef",
    "TaskState",
    "TetherError",
    "checkpoint",
    "configure",
    "current",
    "dump",
    "options",
    "scope",
    "scoped",
    "sleep",
    "spawn",
    "statistics",
    "tasks",
]


def __getattr__(name: str) -> object:
    # dataclasses cost more to import than all the rest: only for those who ask.
    if name in ("Statistics", "statistics"):
        from . import _statistics

        globals().update(Statistics=_statistics.Statistics, statistics=_statistics.statistics)
        return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
