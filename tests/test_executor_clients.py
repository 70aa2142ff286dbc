"""Real clients, unchanged, on Executor and par_map: asyncio, joblib, dask, tqdm, SciPy."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
import types

import pytest

import tether
from support import poll


def needs(name: str) -> types.ModuleType:
    """Import a client of the test extra, or skip: it has no wheel for every build that we test."""
    build = sys.implementation.cache_tag + sys.abiflags
    return pytest.importorskip(
        name, reason=f"{name} is not installed: does it have a wheel for {build}?", exc_type=ImportError
    )


# ---- asyncio ----------------------------------------------------------------------------------------------------


def test_asyncio_default_executor():
    # G18: the context goes along.
    variable = contextvars.ContextVar("variable", default=0)

    def call(x):
        return x, variable.get(), threading.current_thread().name

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_default_executor(tether.Executor(2, "aio"))
        variable.set(7)
        results = await asyncio.gather(*(asyncio.to_thread(call, i) for i in range(50)))
        assert [result[:2] for result in results] == [(i, 7) for i in range(50)]
        assert all(result[2].startswith("aio_") for result in results)
        assert await loop.run_in_executor(None, pow, 2, 5) == 32

    asyncio.run(main())  # shuts the executor down, too
    assert tether.tasks() == []


def test_asyncio_failure_and_cancellation():
    async def main():
        loop = asyncio.get_running_loop()
        with tether.Executor(1) as pool:
            with pytest.raises(ZeroDivisionError):
                await loop.run_in_executor(pool, lambda: 1 // 0)
            gate = threading.Event()
            busy = loop.run_in_executor(pool, gate.wait, 60)
            queued = loop.run_in_executor(pool, int)
            queued.cancel()
            with pytest.raises(asyncio.CancelledError):
                await queued
            gate.set()
            assert await busy is True

    asyncio.run(main())


def test_asyncio_wraps_futures():
    async def main(pool):
        return await asyncio.gather(*(asyncio.wrap_future(pool.submit(abs, -i)) for i in range(20)))

    with tether.Executor(2) as pool:
        assert asyncio.run(main(pool)) == list(range(20))


def test_asyncio_name_resolution():
    async def main():
        asyncio.get_running_loop().set_default_executor(tether.Executor(2))
        return await asyncio.get_running_loop().getaddrinfo("127.0.0.1", 80)

    assert asyncio.run(main())


# ---- joblib -----------------------------------------------------------------------------------------------------


def test_joblib_backend():
    joblib = needs("joblib")
    import tether.joblib

    with joblib.parallel_config(backend="tether", n_jobs=3):
        assert joblib.Parallel()(joblib.delayed(pow)(i, 2) for i in range(200)) == [i * i for i in range(200)]
        names = set(joblib.Parallel()(joblib.delayed(lambda: threading.current_thread().name)() for _ in range(5)))
    assert all(name.startswith("joblib_") for name in names)
    assert joblib.Parallel(n_jobs=2, backend="tether")([joblib.delayed(abs)(-1)]) == [1]
    assert joblib.Parallel(n_jobs=1, backend="tether")([joblib.delayed(abs)(-1)]) == [1]
    poll(lambda: tether.tasks() == [], "the workers to end")


@pytest.mark.parametrize("how", ["generator", "generator_unordered"])
def test_joblib_generators(how):
    joblib = needs("joblib")
    import tether.joblib

    results = joblib.Parallel(n_jobs=2, backend="tether", return_as=how)(joblib.delayed(abs)(-i) for i in range(50))
    assert sorted(results) == list(range(50))
    del results
    poll(lambda: tether.tasks() == [], "the workers to end")


def test_joblib_failure():
    joblib = needs("joblib")
    import tether.joblib

    with pytest.raises(ZeroDivisionError):
        joblib.Parallel(n_jobs=2, backend="tether")(joblib.delayed(divmod)(1, i - 5) for i in range(50))
    # Not with the same Parallel: joblib 1.6 may do batches of a failed call in the next one, on any backend.
    assert joblib.Parallel(n_jobs=2, backend="tether")(joblib.delayed(abs)(-i) for i in range(5)) == list(range(5))
    poll(lambda: tether.tasks() == [], "the workers to end")


def test_joblib_nested():
    # G8: inner calls use the same workers, and do not wait for one that never comes.
    joblib = needs("joblib")
    import tether.joblib

    def inner(i, j):
        return i * j

    def outer(i):
        return sum(joblib.Parallel(n_jobs=2)(joblib.delayed(inner)(i, j) for j in range(10)))

    with joblib.parallel_config(backend="tether", n_jobs=2):
        assert joblib.Parallel()(joblib.delayed(outer)(i) for i in range(10)) == [45 * i for i in range(10)]
    poll(lambda: tether.tasks() == [], "the workers to end")


def test_joblib_missing_is_explained(run_python):
    code = """
        import sys
        sys.modules["joblib"] = None
        try:
            import tether.joblib
        except ImportError as error:
            print(error)
    """
    assert "pip install 'joblib" in run_python(code, check=True).out


# ---- dask -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["pool", "scheduler"])
def test_dask_arrays(how):
    numpy = needs("numpy")
    dask = needs("dask")
    array = needs("dask.array")
    with tether.Executor(3) as pool, dask.config.set(**{how: pool}):
        x = array.arange(100_000, chunks=1000)
        assert int((x * 2).sum().compute()) == 2 * sum(range(100_000))
        square = array.from_array(numpy.arange(10_000.0).reshape(100, 100), chunks=(50, 50))
        assert numpy.allclose((square @ square.T).compute(), square.compute() @ square.compute().T)


def test_dask_delayed_and_failure():
    dask = needs("dask")

    @dask.delayed
    def add(a, b):
        return a + b

    @dask.delayed
    def fail():
        raise ZeroDivisionError

    with tether.Executor(2) as pool, dask.config.set(pool=pool):
        total = add(0, 0)
        for i in range(50):
            total = add(total, i)
        assert total.compute() == sum(range(50))
        with pytest.raises(ZeroDivisionError):
            fail().compute()


def test_dask_inside_of_a_call():
    # G8: dask waits in a queue of its own, which the pool does not know; a pool of two has a worker to spare.
    array = needs("dask.array")
    dask = needs("dask")
    with tether.Executor(2) as pool, dask.config.set(pool=pool):
        assert pool.submit(lambda: int(array.ones(1000, chunks=100).sum().compute())).result() == 1000


# ---- tqdm -------------------------------------------------------------------------------------------------------


def test_tqdm_shows_the_progress_of_par_map(capsys):
    needs("tqdm")
    assert list(tether.par_map(abs, [-1] * 50, progress=True)) == [1] * 50
    shown = capsys.readouterr().err
    assert "par_map(abs)" in shown
    assert "50/50" in shown


def test_tqdm_around_an_executor():
    tqdm = needs("tqdm")
    with tether.Executor(2) as pool:
        assert list(tqdm.tqdm(pool.map(abs, range(20)), total=20, disable=True)) == list(range(20))


def test_tqdm_bar_of_the_caller(capsys):
    tqdm = needs("tqdm")
    with tqdm.tqdm(total=30) as bar:
        assert sum(tether.par_map(abs, range(30), progress=bar)) == sum(range(30))
        assert bar.n == 30


# ---- SciPy ------------------------------------------------------------------------------------------------------


def sphere(x):
    return float((x * x).sum())


@pytest.mark.parametrize("how", ["par_map", "Executor.map"])
def test_scipy_differential_evolution(how):
    optimize = needs("scipy.optimize")
    with tether.Executor(2) as pool:
        workers = tether.par_map if how == "par_map" else pool.map
        found = optimize.differential_evolution(
            sphere, [(-5, 5)] * 3, workers=workers, updating="deferred", rng=1, maxiter=60, polish=False
        )
    assert found.fun < 1e-3
