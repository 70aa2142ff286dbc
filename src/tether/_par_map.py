"""`par_map`: map, with the calls spread over tasks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import chain, repeat, starmap
from types import TracebackType
from typing import Any, Generic, NoReturn, Protocol, Self, TypeVar, overload

from ._chunking import MOST_WORKERS, Pace, count_of
from ._core import _Turnstile
from ._flight import Collected, Flight, Source, Work

__all__ = ["ParMap", "par_map"]

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
R_co = TypeVar("R_co", covariant=True)
R = TypeVar("R")


class _Bar(Protocol):
    """A progress bar, as tqdm's."""

    def update(self, n: int, /) -> object: ...


Telling = bool | Callable[[int], object] | _Bar | None


_gil_enabled = getattr(sys, "_is_gil_enabled", None)  # asked for once: what a module has not is looked for at length
_EXECUTING = "par_map is already executing: somebody else is asking it for a result, maybe further down here"
_FEW = 16  # items of a batch whose results are let go one by one


class _Turns:
    """Batches for chain(), which takes any exception for the end: nobody may come in between without all being told."""

    __slots__ = ("_batches", "_busy", "_disturbed")

    def __init__(self, batches: Generator[list[Any]]) -> None:
        self._batches = batches
        self._busy = self._disturbed = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Iterable[Any]:
        if self._busy:
            self.refuse()
        self._busy = True
        try:
            batch = next(self._batches)
        finally:
            self._busy = False
        if self._disturbed:
            raise RuntimeError("somebody else asked par_map for a result meanwhile: give each its own, or use a lock")
        if len(batch) > _FEW:
            return batch
        batch.reverse()
        return map(batch.pop, repeat(-1, len(batch)))  # results may be large, and are not ours to keep

    def refuse(self) -> NoReturn:
        """Tells who comes in between."""
        self._disturbed = self._busy
        raise ValueError(_EXECUTING)


class ParMap(Generic[R_co]):
    """The iterator that par_map returns. Its exhaustion, ``close()``, the end of a ``with`` block or its drop ends it.

    >>> import tether
    >>> with tether.par_map(str.upper, ["a", "b", "c"]) as letters:
    ...     next(letters)
    'A'
    """

    __slots__ = ("__weakref__", "_batches", "_flight", "_results")

    def __init__(self, flight: Flight, batches: Generator[list[Any]]) -> None:
        self._flight = flight
        self._batches = batches
        turns = _Turns(batches)
        results: Iterator[R_co] = chain.from_iterable(turns)
        self._results = results if _has_gil() else _Turnstile(results, turns.refuse)

    def __iter__(self) -> Iterator[R_co]:
        return self._results  # made in C: a loop over it costs no call of ours for each item

    def __next__(self) -> R_co:
        return next(self._results)

    def close(self) -> None:
        """Ends it early: what has not begun never does, what runs is cancelled and joined (G1). Idempotent.

        Raises: ValueError while it is asked for a result, by another thread or by what closes it.
        """
        try:
            self._batches.close()
        except ValueError:
            raise ValueError(
                "par_map cannot be closed while somebody waits for a result of it: another thread, or whoever made the "
                "call that closes it. Close it there, or cancel the task that waits"
            ) from None
        self._results = iter(())
        self._flight.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


@overload
def par_map(
    fn: Callable[[A], R],
    items: Iterable[A],
    /,
    *,
    workers: int | None = None,
    chunksize: int | None = None,
    ordered: bool = True,
    progress: Telling = None,
    isolation: None = None,
) -> ParMap[R]: ...
@overload
def par_map(
    fn: Callable[[A, B], R],
    first: Iterable[A],
    second: Iterable[B],
    /,
    *,
    workers: int | None = None,
    chunksize: int | None = None,
    ordered: bool = True,
    progress: Telling = None,
    isolation: None = None,
) -> ParMap[R]: ...
@overload
def par_map(
    fn: Callable[[A, B, C], R],
    first: Iterable[A],
    second: Iterable[B],
    third: Iterable[C],
    /,
    *,
    workers: int | None = None,
    chunksize: int | None = None,
    ordered: bool = True,
    progress: Telling = None,
    isolation: None = None,
) -> ParMap[R]: ...
@overload
def par_map(
    fn: Callable[..., R],
    first: Iterable[Any],
    second: Iterable[Any],
    third: Iterable[Any],
    fourth: Iterable[Any],
    /,
    *more: Iterable[Any],
    workers: int | None = None,
    chunksize: int | None = None,
    ordered: bool = True,
    progress: Telling = None,
    isolation: None = None,
) -> ParMap[R]: ...
def par_map(
    fn: Callable[..., R],
    /,
    *iterables: Iterable[Any],
    workers: int | None = None,
    chunksize: int | None = None,
    ordered: bool = True,
    progress: Telling = None,
    isolation: str | None = None,
) -> ParMap[R]:
    """``map(fn, *iterables)`` with the calls spread over tasks; an iterator of the results.

    Nothing runs before the first result is asked for. Items are taken from the iterables by whoever asks, a little
    ahead of the results, so infinite inputs will do. How many calls make a task is found out by measuring: cheap ones
    are done in batches, dear ones one by one. The calls of a batch share a copy of the context and thread-locals (G18).
    Calls may use par_map themselves, at any depth (G8). Borrows and guards among the items move to the tasks (G3).

    Closing it, leaving it as a ``with`` block, or dropping it cancels what has not ended, and joins it (G1).

    Parameters:
        workers: most calls at the same time; 1 runs them where the results are asked for, without tasks. None: as many
            as the machine has cores for computing functions; up to 32 and more for those that wait.
        chunksize: items of a batch. None: measured.
        ordered: False gives the results of batches as they end.
        progress: True shows a bar of tqdm (``pip install 'tether[progress]'``); or an object with ``update(n)``, such
            as a bar of your own, or a function, either told how many more items are done.
        isolation: None; tasks in interpreters and processes of their own are yet to come.

    Raises, from the iterator: the first failure of ``fn``, with a note that names the item, when the results before it
        were given out (in order), or at once (``ordered=False``); the rest is cancelled. What an iterable raises comes
        after the results of the items before it.

    Lazy batches that their joiner runs itself are those of Mohr, Kranz and Halstead ("Lazy task creation", 1991).

    >>> import tether
    >>> list(tether.par_map(pow, range(5), [2, 2, 2, 2, 2]))
    [0, 1, 4, 9, 16]
    """
    if not callable(fn):
        raise TypeError(f"par_map() needs a callable, not {type(fn).__name__}")
    if not iterables:
        raise TypeError("par_map() needs at least one iterable")
    if workers is not None or chunksize is not None:
        workers = count_of("workers", workers, MOST_WORKERS)
        chunksize = count_of("chunksize", chunksize)
    if isolation is not None:
        _refuse(isolation)
    if len(iterables) == 1:
        items, apply = iterables[0], map
    else:
        items, apply = zip(*iterables, strict=False), starmap  # type: ignore[assignment]
    source = Source(items)
    work = Work("par_map", fn, apply, Collected)
    bar = None
    if progress is not None and progress is not False:
        from ._progress import Progress

        bar = Progress(progress, iterables, work.name())
    flight = Flight(source, work, Pace(fn, chunksize, workers), bar)
    return ParMap(flight, flight.batches(workers, ordered))


def _has_gil() -> bool:
    return _gil_enabled is None or bool(_gil_enabled())


def _refuse(isolation: object) -> None:
    if isolation not in ("interpreter", "process", "auto"):
        raise ValueError(f"isolation must be None, 'interpreter', 'process' or 'auto', not {isolation!r}")
    raise NotImplementedError(
        f"isolation={isolation!r}: tether has no isolated tasks yet. Tasks are threads (isolation=None); for "
        "pure-Python computing use a free-threaded Python, or concurrent.futures.ProcessPoolExecutor meanwhile"
    )
