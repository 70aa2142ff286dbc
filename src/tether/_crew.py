"""Crew threads as threading sees them (G18): an entry in ``threading.enumerate()`` while the thread lives.

The entry is ours to remove: a ``_DummyThread``, which ``threading.current_thread()`` would make, stays for ever up to
3.12.
"""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Callable

from ._core import tasks
from ._import_locks import give_back

__all__ = ["CrewThread", "enter", "forked", "give_back", "leave", "tell_abandoned"]

_numbers = itertools.count(1)
_running = threading.Event()
_running.set()
_AT_ONCE = 8
_spare: list[CrewThread] = []
"""Entries without a thread. Without a GIL each thread allocates from pages of its own, one for every size that it uses;
what another thread has made costs it none, which is a fifth of the memory of a thread that only waits."""


class CrewThread(threading.Thread):
    """The entry. It is light on purpose, there may be thousands: Thread's own parts are never made."""

    _name: str
    _ident: int
    _native_id: int
    _is_stopped: bool
    _renamed: Callable[[], None]

    def __init__(self, renamed: Callable[[], None]) -> None:
        # What threading, logging and debuggers read of a Thread; not super().__init__(), which makes locks. In a dict
        # that stands by itself: py-spy 0.4.3 does not find its way through the attributes that Python 3.13 and later
        # keep inside of such an object, and one entry that it cannot read costs all threads their names.
        self.__dict__ = {
            "_name": f"tether-{next(_numbers)}",  # while it runs a task, the task's is stored here (names.c)
            "_daemonic": True,
            "_ident": None,
            "_native_id": None,
            "_started": _running,
            "_is_stopped": False,
            "_initialized": True,
            "_renamed": renamed,
        }

    def _begin(self) -> None:
        self._ident = threading.get_ident()
        self._native_id = threading.get_native_id()

    def __repr__(self) -> str:
        state = "stopped" if self._is_stopped else "started daemon"
        return f"<{type(self).__name__}({self._name}, {state} {self._ident})>"

    def is_alive(self) -> bool:
        return not self._is_stopped

    def join(self, timeout: float | None = None) -> None:
        raise RuntimeError("a crew thread belongs to tether and serves many tasks: join the task's guard instead")

    def _set_os_name(self) -> None:
        """Called by 3.14 and later when a task has set the name."""
        super()._set_os_name()  # type: ignore[misc]
        self._renamed()

    def _after_fork(self, new_ident: int | None = None) -> None:
        """In a forked child only the thread that forked exists."""
        if new_ident is None:
            self._is_stopped = True
        else:
            self._ident = new_ident

    def _reset_internal_locks(self, is_alive: bool) -> None:
        self._is_stopped = not is_alive

    def _stop(self) -> None:
        self._is_stopped = True


def _entries() -> dict[int, threading.Thread]:
    # threading's own dict. One store and one removal of our own key are atomic, so its lock is not taken: it is not
    # reentrant on every version, and a crew thread may begin while somebody holds it and waits for a task.
    return threading._active  # type: ignore[attr-defined, no-any-return]


def _stock_up(renamed: Callable[[], None]) -> CrewThread:
    first = CrewThread(renamed)
    _spare.extend([CrewThread(renamed) for _ in range(_AT_ONCE - 1)])
    return first


def enter(renamed: Callable[[], None]) -> CrewThread:
    """Called by a crew thread when it has its thread state."""
    try:
        entry = _spare.pop(0)
    except IndexError:
        entry = _stock_up(renamed)
    entry._begin()
    _entries()[entry._ident] = entry
    return entry


def leave() -> None:
    """Called by a crew thread before its thread state goes."""
    entry = _entries().pop(threading.get_ident(), None)
    if isinstance(entry, CrewThread):
        entry._stop()


def forked() -> None:
    """Called in the child of a fork. Up to here threading takes the thread that forked, even ours, for the main thread.

    But a main thread has parts that ours lack, and ``threading._shutdown`` uses them; multiprocessing calls that in its
    children. So it gets what threading makes for a thread that it does not know; it keeps its name, as a Thread does.
    """
    entry = _entries().get(threading.get_ident())
    if isinstance(entry, CrewThread):
        threading._main_thread = main = threading._MainThread()  # type: ignore[attr-defined]
        main._name = entry._name


def tell_abandoned(why: str) -> None:
    """At interpreter exit: names the tasks that are not waited for."""
    print(f"tether: {why}:", file=sys.stderr)
    for task in tasks():
        print(f"  '{task.name}' ({task.state.value}), spawned at {task.spawned_at}", file=sys.stderr)
