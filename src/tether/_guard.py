"""Guards written in Python: `Guard`, and what is built on it, `callback` and draining."""

from __future__ import annotations

import atexit
import functools
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Generic, Self, TypeVar

from . import _core

__all__ = ["Drain", "Guard", "callback"]

T = TypeVar("T")
_wrapped: weakref.WeakSet[Callable[[Any], None]] = weakref.WeakSet()
_living: weakref.WeakValueDictionary[int, Guard] = weakref.WeakValueDictionary()


def _once(release: Callable[[Any], None]) -> Callable[[Any], None]:
    """``release`` as callers see it: the first call counts, by the owner, and what that calls of its base classes."""

    @functools.wraps(release)
    def released(self: Guard) -> None:
        if not self._begin() or released in self._ran:
            return
        outermost = not self._ran
        self._ran = self._ran | {released}
        try:
            release(self)
        finally:
            if outermost:
                self._end()

    _wrapped.add(released)
    return released


class Guard(_core.Held):
    """The base of guards that cannot be forgotten: what leaves its owner in an invalid state until it is released.

    Override ``release()``. It is called exactly once: explicitly, at the end of ``with guard:``, when the guard is
    dropped, when the scope it is bound to ends, at interpreter exit at the latest. It has one owner, the task that
    made it; given to a task it moves there, and only its owner may release it (G3). A guard that the cyclic collector
    finds, or that somebody else drops, is released by a task of its own: nothing waits in the collector (G5). That is
    so, too, if ``__init__`` failed. In a forked child the guards of the parent do nothing.

    Raises: OwnershipError from ``release`` and ``bind``, for anyone but the owner.

    >>> import tether
    >>> class Chdir(tether.Guard):
    ...     def __init__(self, path):
    ...         import os
    ...         self.before = os.getcwd()
    ...         os.chdir(path)
    ...     def release(self):
    ...         import os
    ...         os.chdir(self.before)
    >>> with Chdir("/"):
    ...     import os
    ...     os.getcwd()
    '/'
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "release" in cls.__dict__ or cls.release not in _wrapped:  # its own, or that of a class which is no Guard
            setattr(cls, "release", _once(cls.release))  # noqa: B010 (it is a method for checkers)

    _ran: frozenset[Callable[[Any], None]] = frozenset()  # the functions of its release that have begun

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        _living[self._number] = self
        return self

    @_once
    def release(self) -> None:
        """Called once. Override it; call ``super().release()`` where a base class has one."""

    def bind(self, scope: _core.Scope) -> Self:
        """Has the scope release it when its tasks have ended, the last one bound first. Returns the guard."""
        scope._bind(self)
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()

    def __del__(self) -> None:
        if self.released or self._foreign:
            return
        if self._here():
            self.release()
            return
        try:
            _core.spawn(_release_adopted, _Box(self)).detach()
        except Exception:  # the interpreter ends, or there is nothing left to make a task of
            _release_adopted(_Box(self))


class _Box:
    """Hides a guard from the capture walk: what it holds may be another task's, for which the runtime acts."""

    __slots__ = ("guard",)

    def __init__(self, guard: Guard) -> None:
        self.guard = guard


def _release_adopted(box: _Box) -> None:
    box.guard._adopt()
    box.guard.release()


def _release_all() -> None:
    """At exit, when the tasks have ended: the newest first."""
    for _, guard in sorted(_living.items(), reverse=True):
        if not guard.released and not guard._foreign:
            try:
                _release_adopted(_Box(guard))
            except BaseException as error:  # whatever it is: the others' turn comes
                _core._report_unraisable(error, f"<release of {guard!r} at exit>")


atexit.register(_release_all)


class _Callback(Guard):
    """See `callback`."""

    _registered = False

    def __init__(self, register: Callable[[T], Any], unregister: Callable[[Any], object], fn: T) -> None:
        self._unregister = unregister
        self.fn = fn
        token = register(fn)
        self._token = fn if token is None else token
        self._registered = True

    def release(self) -> None:
        if self._registered:
            self._unregister(self._token)


def callback(register: Callable[[T], Any], unregister: Callable[[Any], object], fn: T) -> Guard:
    """Registers ``fn`` with foreign code, and returns the guard that unregisters it.

    However the guard goes, ``fn`` is unregistered before it, and what it holds, can go away (see Guard).

    Parameters:
        register: called with ``fn``. What it returns, unless None, is what ``unregister`` gets; else that is ``fn``.
        unregister: called once.
        fn: what foreign code will call: a ctypes or cffi callback, or any callable.

    >>> import tether
    >>> listeners = []
    >>> with tether.callback(listeners.append, listeners.remove, print):
    ...     len(listeners)
    1
    >>> listeners
    []
    """
    return _Callback(register, unregister, fn)


class Drain(Guard, Generic[T]):
    """See Owned.drain."""

    _borrow: _core.Exclusive[Any] | None = None

    def __init__(self, owned: _core.Owned[Any], start: int, stop: int | None) -> None:
        borrow = owned.borrow_mut()
        try:
            self._value = borrow.value
            if not isinstance(self._value, (list, bytearray)):
                raise TypeError(f"only an owned list or bytearray can be drained, not {type(self._value).__name__}")
            self._start, self._stop, _ = slice(start, stop).indices(len(self._value))
        except BaseException:
            borrow.release()
            raise
        self._next = self._start
        self._borrow = borrow

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        borrow = self._borrow
        if self.released or borrow is None or self._next >= self._stop:
            raise StopIteration
        value = borrow.value  # BorrowError: not ours, or it ended with the task that had it
        at = self._next
        self._next += 1
        item: T = value[at]
        if isinstance(value, list):
            value[at] = None  # the item is the caller's now
        return item

    def release(self) -> None:
        if self._borrow is None:
            return  # it never began
        again = None
        try:
            if self._borrow.expired:  # it has ended with the task that had it
                source = self._borrow.source
                assert isinstance(source, _core.Owned)
                again = source.borrow_mut()
                if again.value is not self._value:
                    return
            del self._value[self._start : self._stop]
        finally:
            self._borrow = None  # ends it, whoever we are
            if again is not None:
                again.release()
