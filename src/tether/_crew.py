"""Crew threads as threading sees them (G18): an entry in ``threading.enumerate()`` while the thread lives.

The entry is ours to remove: a ``_DummyThread``, which ``threading.current_thread()`` would make, stays for ever up to
3.12.
"""

from __future__ import annotations

import itertools
import sys
import threading

from ._core import tasks

__all__ = ["CrewThread", "enter", "leave", "tell_abandoned"]

_numbers = itertools.count(1)
_running = threading.Event()
_running.set()


class CrewThread(threading.Thread):
    """The entry. It is light on purpose, there may be thousands: Thread's own parts are never made."""

    def __init__(self) -> None:
        # What threading, logging and debuggers read of a Thread; not super().__init__(), which makes locks.
        self._name = f"tether-{next(_numbers)}"
        self._daemonic = True
        self._ident = threading.get_ident()
        self._native_id = threading.get_native_id()
        self._started = _running
        self._is_stopped = False
        self._initialized = True

    def __repr__(self) -> str:
        state = "stopped" if self._is_stopped else "started daemon"
        return f"<{type(self).__name__}({self._name}, {state} {self._ident})>"

    def is_alive(self) -> bool:
        return not self._is_stopped

    def join(self, timeout: float | None = None) -> None:
        raise RuntimeError("a crew thread belongs to tether and serves many tasks: join the task's guard instead")

    def _after_fork(self, *args: object) -> None:
        """In a forked child the thread does not exist."""
        self._is_stopped = True

    def _reset_internal_locks(self, is_alive: bool) -> None:
        self._is_stopped = not is_alive

    def _stop(self) -> None:
        self._is_stopped = True


def _entries() -> dict[int, threading.Thread]:
    # threading's own dict. One store and one removal of our own key are atomic, so its lock is not taken: it is not
    # reentrant on every version, and a crew thread may begin while somebody holds it and waits for a task.
    return threading._active  # type: ignore[attr-defined, no-any-return]


def enter() -> None:
    """Called by a crew thread when it has its thread state."""
    _entries()[threading.get_ident()] = CrewThread()


def leave() -> None:
    """Called by a crew thread before its thread state goes."""
    entry = _entries().pop(threading.get_ident(), None)
    if isinstance(entry, CrewThread):
        entry._stop()


def tell_abandoned() -> None:
    """The second interrupt at interpreter exit: names the tasks that are not waited for."""
    print("tether: interrupted twice at exit; not waiting for:", file=sys.stderr)
    for task in tasks():
        print(f"  '{task.name}' ({task.state.value}), spawned at {task.spawned_at}", file=sys.stderr)
