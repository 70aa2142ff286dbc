"""What a kill leaves taken of the import system's locks, given back at the end of the task.

CPython's importlib takes the lock of the import system, and those of modules, in Python code, a step before the ``try``
that gives them back. ``KilledTask`` may come between the two. Nobody else could ever import again.

    taken by this thread, and no frame on the stack holds it    given back
    a module's, wanted by threads that nobody would wake        one of them is woken

A thread that waits for another one's import is handed a token, ``wakeup``, which it passes on at once. Killed in
between, it keeps it; so does who is killed while it gives the module's lock back. Whether the token was lost, or is
about to be passed on, cannot be told from outside; so it is given out once more, and from then on it does no harm to
pass it on twice: whoever is woken looks again.
"""

from __future__ import annotations

import sys
from _imp import release_lock
from collections.abc import Iterator
from contextlib import suppress
from importlib import _bootstrap
from threading import get_ident
from types import FrameType
from typing import Any

__all__ = ["give_back"]

_modules: Any = vars(_bootstrap)["_module_locks"]
_SOURCE = _bootstrap.ModuleSpec.__init__.__code__.co_filename
_HOLDERS = ("_find_and_load", "_exec", "_load")
"""Functions that hold a module's lock while they call others."""
_LOCKS = ("_get_module_lock", "cb", "_lock_unlock_module", "acquire", "release", "has_deadlock")
"""Functions that take and give back locks, each for an instant."""


class _Token:
    """A ``wakeup`` that may be passed on twice."""

    def __init__(self, lock: Any) -> None:
        self.acquire = lock.acquire
        self.locked = lock.locked
        self._release = lock.release

    def release(self) -> None:
        with suppress(RuntimeError):  # it is free
            self._release()


def give_back() -> None:
    """Called by the thread of a killed task, after the task's code."""
    below = list(_frames())
    if any(frame.f_code.co_name in _LOCKS for frame in below):
        return  # the task ran in place above them (a destructor joined it); they are not done with their locks
    with suppress(RuntimeError):  # not, or not any more, this thread's
        while True:
            release_lock()
    held = [_module_of(frame) for frame in below if frame.f_code.co_name in _HOLDERS]
    for name, ref in list(_modules.items()):
        lock = ref()
        if lock is not None:
            _free(lock, held.count(name))


def _frames() -> Iterator[FrameType]:
    """Those of importlib that stand below."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename == _SOURCE:
            yield frame
        frame = frame.f_back


def _module_of(frame: FrameType) -> str:
    values = frame.f_locals
    name: str = values["name"] if "name" in values else values["spec"].name
    return name


def _free(lock: Any, held: int) -> None:
    if lock.owner == get_ident():
        taken = lock.count if isinstance(lock.count, int) else len(lock.count)  # a list from 3.12 on
        for _ in range(taken - held):
            lock.release()
    with lock.lock:
        if lock.wakeup.locked() and not (lock.waiters and lock.count):  # who would wake somebody?
            lock.wakeup = _Token(lock.wakeup)
            lock.wakeup.release()
