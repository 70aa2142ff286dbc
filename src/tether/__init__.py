"""tether: scoped parallelism whose guards cannot be forgotten.

Layout: this package is thin. ``_core`` is the native part (cext/binding over cext/runtime): spawn, guards,
scopes. ``_errors``, ``_exit``, ``_settle``, ``_crew`` are what it needs from Python; ``_restart`` and
``_supervisor`` (with ``_copies``) decide about second attempts; ``_par_map``, ``_par_for`` and ``_par_reduce`` go over
``_flight`` (with ``_chunking``), ``_executor`` over ``_pool`` and ``_future``; ``native`` (with ``_callee``) runs C
functions in parallel; ``_scoped``, ``_tree``, ``_statistics`` are written on top of it. ``_bench`` and ``__main__``
are the command line.

>>> import tether
>>> with tether.scope() as s:
...     total = [s.spawn(sum, range(n)) for n in (10, 20)]
>>> [guard.join() for guard in total]
[45, 190]
"""

from __future__ import annotations

from ._core import (
    Exclusive,
    JoinGuard,
    Options,
    Owned,
    Region,
    Scope,
    Shared,
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
    BorrowError,
    Cancelled,
    DeadlockError,
    ForkedError,
    KilledTask,
    MovedError,
    NativeError,
    OwnershipError,
    ReapedError,
    ScopeClosedError,
    SendError,
    ShutdownError,
    TaskKilled,
    TetherError,
)
from ._scoped import scoped
from ._tree import dump

TYPE_CHECKING = False  # as typing's, which costs more to import than all of tether
if TYPE_CHECKING:
    from . import native as native
    from ._executor import Executor
    from ._exit import Completed, ExitValue, Killed, KillReason, TaskState
    from ._fork_join import join
    from ._guard import Guard, callback
    from ._include import get_include
    from ._par_for import par_for
    from ._par_map import par_map
    from ._par_reduce import par_reduce
    from ._restart import Restart
    from ._statistics import Statistics, statistics
    from ._supervisor import supervisor

__version__ = "0.1.0"

__all__ = [
    "BorrowError",
    "Cancelled",
    "Completed",
    "DeadlockError",
    "Exclusive",
    "Executor",
    "ExitValue",
    "ForkedError",
    "Guard",
    "JoinGuard",
    "KillReason",
    "Killed",
    "KilledTask",
    "MovedError",
    "NativeError",
    "Options",
    "Owned",
    "OwnershipError",
    "ReapedError",
    "Region",
    "Restart",
    "Scope",
    "ScopeClosedError",
    "SendError",
    "Shared",
    "ShutdownError",
    "Statistics",
    "TaskKilled",
    "TaskRef",
    "TaskState",
    "TetherError",
    "callback",
    "checkpoint",
    "configure",
    "current",
    "dump",
    "get_include",
    "join",
    "options",
    "par_for",
    "par_map",
    "par_reduce",
    "scope",
    "scoped",
    "sleep",
    "spawn",
    "statistics",
    "supervisor",
    "tasks",
]


# Behind these are typing, enum and dataclasses: imported by the first who asks, or by the first spawn.
_MODULES = ("native",)
_LATER = {
    "Completed": "_exit",
    "Executor": "_executor",
    "ExitValue": "_exit",
    "Guard": "_guard",
    "KillReason": "_exit",
    "Killed": "_exit",
    "Restart": "_restart",
    "Statistics": "_statistics",
    "TaskState": "_exit",
    "callback": "_guard",
    "get_include": "_include",
    "join": "_fork_join",
    "par_for": "_par_for",
    "par_map": "_par_map",
    "par_reduce": "_par_reduce",
    "statistics": "_statistics",
    "supervisor": "_supervisor",
}


def __getattr__(name: str) -> object:
    if name not in _LATER and name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    if name in _MODULES:
        return import_module(f".{name}", __name__)

    value = globals()[name] = getattr(import_module(f".{_LATER[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, *_MODULES])
