"""`Executor`: tether behind the interface of concurrent.futures."""

from __future__ import annotations

import itertools
import os
import sys
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from contextvars import copy_context
from itertools import islice, starmap
from typing import Any, ParamSpec, TypeVar

from ._behind import behind
from ._chunking import whole_of
from ._future import PoolFuture
from ._pool import CLOSED, Pool

__all__ = ["Executor"]

P = ParamSpec("P")
R = TypeVar("R")
_numbers = itertools.count()


class Executor(ThreadPoolExecutor):
    """A ``concurrent.futures.ThreadPoolExecutor`` whose nested waits cannot deadlock.

    Wherever a ThreadPoolExecutor is expected, this will do: asyncio (``loop.set_default_executor``), dask, and whoever
    takes an executor. The futures are real ones. Each call runs in a copy of the submitter's context (G18). Workers are
    native threads, and keep their thread-locals from call to call, as ``initializer`` expects.

    Inside of a call, ``result()`` and ``exception()`` of a future of the pool run the call that they wait for, if
    nobody has begun it. While a call waits for one that has (so, too, in ``concurrent.futures.wait`` and
    ``as_completed``, and in tasks that it has spawned), another worker takes its place; for a moment, one more than
    ``max_workers`` may be at work when it goes on. Waits that are none of tether's (a lock, an event) are not known to
    the pool.

    Parameters:
        max_workers: most calls at the same time. None: the number of cores and 4 more, 32 at most.
        thread_name_prefix: of the workers' names, for debugging.
        initializer: called by each worker at its start, with ``initargs``. If it fails, so do all calls that have not
            begun, and submit, with BrokenThreadPool.
        initargs: a tuple.

    Raises: RuntimeError from submit and map, after shutdown.

    >>> import tether
    >>> with tether.Executor(max_workers=1) as pool:
    ...     def nested():
    ...         return pool.submit(pow, 2, 5).result()
    ...     pool.submit(nested).result()
    32
    """

    def __init__(
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        if max_workers is None:
            cores: int | None = getattr(os, "process_cpu_count", os.cpu_count)()
            max_workers = min(32, (cores or 1) + 4)
        max_workers = whole_of("max_workers", max_workers)
        if max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self._max_workers = max_workers
        self._thread_name_prefix = thread_name_prefix or f"tether.Executor-{next(_numbers)}"
        self._initializer = initializer  # type: ignore[assignment]
        self._initargs = initargs
        self._pool = pool = Pool(max_workers, self._thread_name_prefix, initializer, tuple(initargs))
        pool.watch(self)

    # What others read of a ThreadPoolExecutor, though it is not public.

    @property
    def _threads(self) -> set[Any]:  # type: ignore[override]
        return {worker.entry or worker for worker in self._pool.alive.copy()}

    @property
    def _work_queue(self) -> _Queue:  # type: ignore[override]
        return _Queue(self._pool)

    @property
    def _shutdown(self) -> bool:  # type: ignore[override]
        return self._pool.refusal is not None

    @property
    def _broken(self) -> bool | str:  # type: ignore[override]
        return str(self._pool.refusal) if self._pool.broken() else False

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Queues ``fn(*args, **kwargs)``, to run in a copy of the context as it is now; returns its future."""
        pool = self._pool
        if pool.refusal is not None:
            raise pool.refused()
        future: PoolFuture[R] = PoolFuture(pool)
        future._cell.append((future, fn, args, kwargs, copy_context()))
        pool.add(future._cell)
        return future

    def map(
        self,
        fn: Callable[..., R],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[R]:
        """``map(fn, *iterables)``, the calls made by the workers; results in order.

        Parameters:
            timeout: seconds from now within which each result must be there.
            chunksize: calls that are submitted together: more than 1 for many cheap ones (and see ``tether.par_map``,
                which finds it out).
            buffersize: most submissions whose results have not been asked for. None: all are submitted at once, so the
                iterables must be finite.

        Raises: TimeoutError from the iterator; what ``fn`` raises, when the results before it were given. What has not
            begun is cancelled then, and when the iterator is closed or dropped.
        """
        if buffersize is not None and not isinstance(buffersize, int):
            raise TypeError("buffersize must be an integer or None")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        deadline = None if timeout is None else timeout + time.monotonic()
        chunksize = min(chunksize, sys.maxsize)
        if buffersize is not None:
            buffersize = min(buffersize, sys.maxsize)
        items = zip(*iterables, strict=False)
        chunks = iter(lambda: list(islice(items, chunksize)), [])
        futures = deque(self.submit(_chunk, fn, chunk) for chunk in islice(chunks, buffersize))
        return _results(futures, chunks if buffersize is not None else None, fn, weakref.ref(self), deadline)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no more calls; idempotent.

        Parameters:
            wait: return when all calls and the workers have ended. A cancellation point of tether.
            cancel_futures: cancel what has not begun.

        Inside of a call of another executor, another worker takes over there while this waits, as in ``result``.

        Raises: RuntimeError, if one of its own workers would wait for itself.
        """
        pool = self._pool
        pool.close(RuntimeError, CLOSED)
        if cancel_futures:
            pool.abort()
        if wait:
            if pool.worker_here() is not None:
                raise RuntimeError(
                    "a worker of this executor waits in shutdown() for all workers, and so for itself: "
                    "use shutdown(wait=False) inside of its calls"
                )
            with behind.get() or nullcontext():
                pool.wait()


class _Queue:
    """The face of a queue."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def qsize(self) -> int:
        """Calls that nobody has begun."""
        return sum(map(bool, list(self._pool.queue)))

    def empty(self) -> bool:
        return self.qsize() == 0


def _chunk(fn: Callable[..., R], items: list[tuple[Any, ...]]) -> tuple[list[R], BaseException | None]:
    results: list[R] = []
    try:
        results.extend(starmap(fn, items))
    except BaseException as error:
        return results, error
    if len(results) < len(items):
        return results, RuntimeError("the function raised StopIteration")
    return results, None


def _results(
    futures: deque[Future[Any]],
    chunks: Iterator[list[Any]] | None,
    fn: Callable[..., R],
    executor: weakref.ref[Executor],
    deadline: float | None,
) -> Iterator[R]:
    """Does not keep the executor alive, nor a future whose results were given."""
    try:
        while futures:
            if chunks is not None and (pool := executor()) is not None:
                futures.extend(pool.submit(_chunk, fn, chunk) for chunk in islice(chunks, 1))
                del pool
            results, error = _result_or_cancel(futures.popleft(), deadline)
            results.reverse()
            while results:
                yield results.pop()
            if error is not None:
                try:
                    raise error
                finally:
                    del error
    finally:
        for future in futures:
            future.cancel()


def _result_or_cancel(future: Future[Any], deadline: float | None) -> Any:
    try:
        return future.result(None if deadline is None else max(0.0, deadline - time.monotonic()))
    finally:
        future.cancel()
        del future
