"""`par_for`: a loop whose rounds are spread over tasks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, overload

from ._chunking import Pace, cores, count_of
from ._core import Exclusive, Region
from ._flight import Drained, Flight, Source, Work

__all__ = ["par_for"]

_CHUNKS = 8  # of a region, for each core: enough to even out parts that take longer


@overload
def par_for(over: int | range, body: Callable[[int], object], /, *, grain: int | None = None) -> None: ...
@overload
def par_for(
    over: Region | Exclusive[Any], body: Callable[[Exclusive[Any]], object], /, *, grain: int | None = None
) -> None: ...
def par_for(
    over: int | range | Region | Exclusive[Any], body: Callable[[Any], object], /, *, grain: int | None = None
) -> None:
    """Calls ``body`` for each index, or for each part of a region, spread over tasks; returns when all calls have (G2).

    Parameters:
        over: a number n, for the indices of ``range(n)``; a range; a Region or an Exclusive of one, for disjoint
            Exclusive parts of it, each lent for one call.
        body: called with an index, or with an Exclusive. What it returns is dropped. For indices, the calls of a batch
            share a copy of the context and thread-locals, as in par_map.
        grain: indices of a batch, or bytes of a part. None: measured; eight parts for each core.

    Raises: the first failure of ``body`` by index, with a note that names it, when all have ended; those behind it are
        cancelled. BorrowError if some of the region is lent.

    >>> import tether
    >>> squares = [0] * 5
    >>> def square(i):
    ...     squares[i] = i * i
    >>> tether.par_for(5, square)
    >>> squares
    [0, 1, 4, 9, 16]
    >>> def fill(part):
    ...     part[:] = b"x" * len(part)
    >>> with tether.Region(4096) as region:
    ...     tether.par_for(region, fill)
    ...     with region.share() as s:
    ...         bytes(s[:3])
    b'xxx'
    """
    if not callable(body):
        raise TypeError(f"par_for() needs a callable, not {type(body).__name__}")
    grain = count_of("grain", grain)
    if isinstance(over, (Region, Exclusive)):
        _over_parts(over, body, grain)
        return
    try:
        if isinstance(over, bool):
            raise TypeError
        indices = over if isinstance(over, range) else range(over)
    except TypeError:
        raise TypeError(f"par_for() goes over a number, a range or a region, not {type(over).__name__}") from None
    _run(Source(indices), body, Pace(body, grain, None))


def _over_parts(whole: Region | Exclusive[Any], body: Callable[[Any], object], grain: int | None) -> None:
    cut = whole.chunks_mut if isinstance(whole, Region) else whole.chunks
    count = max(1, min(len(whole), _CHUNKS * cores()))
    parts = deque(cut(count) if grain is None else cut(size=min(grain, max(1, len(whole)))))
    try:
        _run(Source(_popped(parts)), body, Pace(body, 1, None))
    finally:
        parts.clear()  # a traceback may keep this frame, and with it what was not given to a task


def _popped(parts: deque[Any]) -> Iterator[Any]:
    while parts:
        yield parts.popleft()


def _run(source: Source, body: Callable[[Any], object], pace: Pace) -> None:
    flight = Flight(source, Work("par_for", body, _calls, Drained), pace)
    try:
        deque(flight.batches(), maxlen=0)
    finally:
        flight.close()


def _calls(body: Callable[[Any], object], items: Iterator[Any]) -> Iterator[object]:
    return (body(item) for item in items)  # and not map(): a StopIteration of the body is no end
