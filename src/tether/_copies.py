"""Arguments that can be given more than once: what a restartable task starts from each time."""

from __future__ import annotations

import contextvars
import copy
import queue
import threading
import types
from collections.abc import Iterator
from typing import Any

from ._core import JoinGuard, Scope
from ._errors import SendError

__all__ = ["Arguments"]

_IMMUTABLE = frozenset(
    {type(None), bool, int, float, complex, str, bytes, range, tuple, frozenset, type, types.FunctionType}
)
_SHORT = frozenset({type(None), bool, int, float, str, bytes})  # dict keys that are shown in paths
# Made to be shared between threads: the task is given the thing itself, every time.
_SHARED = (
    *(type(make()) for make in (threading.Lock, threading.RLock)),
    threading.Event,
    threading.Condition,
    threading.Semaphore,
    threading.Barrier,
    queue.Queue,
    queue.SimpleQueue,
    contextvars.ContextVar,
    contextvars.Context,
    Scope,
    types.ModuleType,
    types.BuiltinFunctionType,
    types.MethodType,
)
_ONCE = {
    JoinGuard: "a guard has one owner and can be given away once; spawn inside the task, or give it guard.task",
    types.GeneratorType: "a generator runs once; give the function that makes it, or a list",
    types.CoroutineType: "a coroutine runs once; give the function that makes it",
    types.AsyncGeneratorType: "a generator runs once; give the function that makes it",
}


class Arguments:
    """Positional and keyword arguments, as they were when the task was spawned.

    ``fresh()`` gives equal ones each time: immutable values, and things made for sharing (locks, queues, functions),
    themselves; anything else as a deep copy. Raises SendError for what cannot be had twice.
    """

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._shared: list[object] = []
        self._plain = True  # nothing in it can change: no copies
        for path, value in _parts(args, kwargs):
            self._look_at(path, value)
        self._kept = args, kwargs
        if not self._plain:
            self._kept = self._first_copy()

    def _look_at(self, path: str, value: Any) -> None:
        for kind, hint in _ONCE.items():
            if isinstance(value, kind):
                raise SendError.at(path, value, hint)
        if isinstance(value, _SHARED):
            self._shared.append(value)
        elif type(value) not in _IMMUTABLE:
            self._plain = False

    def _copy(self, value: Any) -> Any:
        return copy.deepcopy(value, {id(thing): thing for thing in self._shared})

    def _first_copy(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        try:
            args, kwargs = self._copy(self._kept)
            return args, kwargs
        except MemoryError:
            raise
        except Exception as error:
            path, value = self._culprit()
            hint = f"it cannot be copied for another attempt ({error}); give the task what it needs to make its own"
            raise SendError.at(path, value, hint) from error

    def _culprit(self) -> tuple[str, Any]:
        """The innermost part that cannot be copied."""
        found: tuple[str, Any] = ("the arguments", self._kept)
        for path, value in _parts(*self._kept):
            try:
                self._copy(value)
            except Exception:
                if len(path) > len(found[0]) or found[1] is self._kept:
                    found = path, value
        return found

    def fresh(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments for one attempt."""
        if self._plain:
            return self._kept
        args, kwargs = self._copy(self._kept)  # together: what they share stays shared
        return args, kwargs


def _top(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    yield from ((f"args[{i}]", value) for i, value in enumerate(args))
    yield from ((f"kwargs[{name!r}]", value) for name, value in kwargs.items())


def _parts(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The arguments and what is in their builtin containers, with paths; each object once."""
    todo = list(_top(args, kwargs))
    seen: set[int] = set()
    while todo:
        path, value = todo.pop()
        if id(value) not in seen:
            seen.add(id(value))
            yield path, value
            todo.extend(_inside(path, value))


def _inside(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    kind = type(value)
    if kind is tuple or kind is list:
        yield from ((f"{path}[{i}]", part) for i, part in enumerate(value))
    elif kind is set or kind is frozenset:
        yield from ((f"{path}{{...}}", part) for part in value)
    elif kind is dict:
        for key, part in value.items():
            yield f"{path}[{_shown(key)}]", part
            yield f"{path}.keys()", key


def _shown(key: object) -> str:
    """For a path; no code of the user's."""
    return repr(key) if type(key) in _SHORT else f"<{type(key).__name__}>"
