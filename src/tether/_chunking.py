"""How many items a batch has, so that nobody has to guess a chunk size.

A batch is one task. It should last about a millisecond: long enough that spawning it does not count, short enough
that the batches spread over the threads. Dear items (a millisecond and more) go one by one, and many are on the way
at once, since they may be waiting for something; of cheap ones, thousands go together and few batches are on the way,
since more would only take memory.

The cost of an item is measured, batch by batch. It is remembered for each function, so that the next call begins where
the last one ended. Being wrong is cheap: a batch that takes far longer than it should is divided while it runs
(``_flight.py``).
"""

from __future__ import annotations

import functools
import operator
import os
import sys
import types
from collections.abc import Callable, Hashable
from typing import Any, SupportsIndex

__all__ = ["MOST_WORKERS", "Pace", "cores", "count_of", "key_of", "whole_of"]

TARGET = 1e-3  # seconds of a batch
GROWTH = 8  # most times that a batch is larger than the last one measured: its time may have been mostly overhead
MOST = 1 << 14  # items of a batch: bounds the look-ahead
WIDE = 32  # batches on the way, when a batch is one item that may be waiting for something
MOST_WORKERS = 1 << 16  # more threads than a process gets; asking for more is asking for no limit
_KEPT = 512  # functions whose cost is remembered

_costs: dict[Hashable, float] = {}


@functools.cache
def cores() -> int:
    """Processors that this process might use when it first asked."""
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # not Linux
        return os.cpu_count() or 1


def whole_of(name: str, value: SupportsIndex) -> int:
    """The number. Raises TypeError: a bool is none, an integer of NumPy's is."""
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an int or None, not {type(value).__name__}") from None


def count_of(name: str, value: SupportsIndex | None, most: int = sys.maxsize) -> int | None:
    """None, or a number from 1 on, and ``most`` for a larger one. Raises TypeError, ValueError."""
    if value is None:
        return None
    count = whole_of(name, value)
    if count < 1:
        raise ValueError(f"{name} must be at least 1, not {count}")
    return min(count, most)


def key_of(fn: Callable[..., Any]) -> Hashable:
    """By what the cost of ``fn`` is remembered. Runs no code of the user, and keeps no object of theirs alive.

    Two functions may have the same key, one after the other: a wrong cost does little harm.
    """
    if type(fn) is types.FunctionType:
        return id(fn.__code__)
    while isinstance(fn, (functools.partial, types.MethodType)):
        fn = fn.func if isinstance(fn, functools.partial) else fn.__func__
    if isinstance(fn, types.FunctionType):
        return id(fn.__code__)
    if isinstance(fn, types.BuiltinFunctionType):
        return type(fn.__self__).__name__, fn.__name__
    kind: type = fn if isinstance(fn, type) else type(fn)
    return kind.__module__, kind.__qualname__


class Pace:
    """The size of the next batch, and how many batches may be on the way."""

    __slots__ = ("_cost", "_key", "_known", "_narrow", "_wide", "ahead", "fixed", "size")

    def __init__(self, fn: Callable[..., Any], size: int | None, workers: int | None) -> None:
        self.fixed = size is not None
        self._narrow = 2 * (workers or cores()) + 2
        self._wide = max(self._narrow, WIDE) if workers is None else self._narrow
        self._key: Hashable = None
        self._cost = self._known = 0.0
        self.size = size or 1
        self.ahead = self._wide
        if size is None:
            self._key = key_of(fn)
            try:
                self._cost = self._known = _costs[
                    self._key
                ]  # get() takes a lock, without a GIL: threads would meet there
            except KeyError:
                return
            self._adapt(MOST)

    def dear(self) -> bool:
        """Is an item known to last as long as a batch should?"""
        return self._cost >= TARGET

    def one_by_one(self) -> None:
        """No batch is taken before the last one was consumed."""
        self._narrow = self._wide = self.ahead = 1

    def measured(self, items: int, seconds: float) -> None:
        """A batch has ended."""
        if self.fixed or items == 0:
            return
        cost = seconds / items
        self._cost = cost if self._cost == 0.0 else (self._cost + cost) / 2
        self._adapt(GROWTH * items)

    def remember(self) -> None:
        """The work is over: the next one with the same function begins with what is known."""
        cost = self._cost
        if cost and not 0.5 * cost < self._known < 2 * cost:  # a write is where threads meet
            if len(_costs) >= _KEPT:
                _costs.clear()
            _costs[self._key] = self._known = cost

    def _adapt(self, most: int) -> None:
        size = int(TARGET / self._cost) if self._cost > 0 else MOST
        size = most if size > most else size  # not min() and max(): they are half of this method's time
        self.size = size = MOST if size > MOST else 1 if size < 1 else size
        self.ahead = self._narrow if size > 1 else self._wide
