"""joblib on tether: importing this module registers the backend ``"tether"``.

>>> import tether.joblib                                                              # doctest: +SKIP
>>> with joblib.parallel_config(backend="tether", n_jobs=4):                          # doctest: +SKIP
...     joblib.Parallel()(joblib.delayed(load)(path) for path in paths)

Threads of one `Executor`. Nested calls use the same one instead of more and more threads: while a call waits for its
parts, another worker takes its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from typing import Any

try:
    from joblib import cpu_count, register_parallel_backend
    from joblib._parallel_backends import FallbackToBackend, SequentialBackend
    from joblib.parallel import AutoBatchingMixin, ParallelBackendBase
except ImportError as error:
    raise ImportError(
        "tether.joblib is a backend for joblib, which is not installed, or too old: pip install 'joblib>=1.5'",
        name="joblib",
    ) from error

from ._behind import behind
from ._executor import Executor

__all__ = ["TetherBackend"]


class TetherBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """The backend; made by joblib."""

    supports_retrieve_callback = True
    uses_threads = True
    supports_sharedmem = True

    def __init__(self, executor: Executor | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._outer = executor  # of the call that we are nested in
        self._executor = executor
        self._jobs = 1

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """How many calls run at the same time; -1 means one for each core, -2 one less, and so on."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            return 1
        return n_jobs if n_jobs > 0 else max(int(cpu_count()) + 1 + n_jobs, 1)

    def configure(self, n_jobs: int | None = 1, parallel: Any = None, **options: Any) -> int:
        """Called before each use."""
        self._jobs = self.effective_n_jobs(n_jobs)
        if self._jobs == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        self.parallel = parallel
        if self._executor is None:
            self._executor = Executor(self._jobs, "joblib")
        return self._jobs

    def submit(self, func: Callable[[], Any], callback: Callable[[Future[Any]], object] | None = None) -> Future[Any]:
        """Queues a batch of calls."""
        assert self._executor is not None, "configure() comes first"
        future = self._executor.submit(func)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        """What a batch came to."""
        return out.result()

    @contextmanager
    def retrieval_context(self) -> Iterator[None]:
        """Around the waits of a call: if that is one of a worker's, another worker takes over meanwhile."""
        with behind.get() or nullcontext():
            yield

    def get_nested_backend(self) -> tuple[ParallelBackendBase, int | None]:
        """For calls inside of calls: the same workers."""
        level = (self.nesting_level or 0) + 1
        return TetherBackend(executor=self._executor, nesting_level=level), self._jobs

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """A call has failed: the others are of no interest."""
        if self._outer is not None:
            return  # the workers are the outer call's, and there its other calls go on
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(cancel_futures=True)  # waits: what a call's end sets going must not reach the next one
        if ensure_ready:
            self._executor = Executor(self._jobs, "joblib")

    def terminate(self) -> None:
        """Ends the workers."""
        if self._outer is None and self._executor is not None:
            executor, self._executor = self._executor, None
            executor.shutdown()


register_parallel_backend("tether", TetherBackend)
