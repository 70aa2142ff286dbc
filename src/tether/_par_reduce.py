"""`par_reduce`: a sum, or anything else that is put together from parts, spread over tasks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from ._chunking import Pace
from ._flight import NOTHING, Flight, Folded, Source, Work

__all__ = ["par_reduce"]

A = TypeVar("A")
R = TypeVar("R")


def par_reduce(fn: Callable[[A], R], op: Callable[[R, R], R], iterable: Iterable[A], initial: R, /) -> R:
    """``functools.reduce(op, map(fn, iterable), initial)``, with the calls of both spread over tasks.

    Batches are as in par_map: measured, nested at any depth, cancelled at the first failure (G8).

    Parameters:
        fn: called with each item.
        op: must be associative, ``op(op(a, b), c) == op(a, op(b, c))``: where the brackets are depends on the
            machine. The order of the items is kept, so it need not be commutative.
        initial: comes first, once; the result if there are no items.

    Raises: the first failure of ``fn`` or ``op``, with a note that names the item.

    >>> import tether
    >>> tether.par_reduce(len, int.__add__, ["one", "two", "three"], 0)
    11
    """
    for name, function in (("fn", fn), ("op", op)):
        if not callable(function):
            raise TypeError(f"par_reduce() needs a callable {name}, not {type(function).__name__}")
    work = Work("par_reduce", fn, _calls, functools.partial(Folded, op))
    flight = Flight(Source(iterable), work, Pace(fn, None, None))
    value = initial
    try:
        for part in flight.batches():
            if part is not NOTHING:
                value = op(value, part)
    finally:
        flight.close()
    return value


def _calls(fn: Callable[[Any], Any], items: Iterator[Any]) -> Iterator[Any]:
    return (fn(item) for item in items)  # and not map(): a StopIteration of fn is no end
