"""Real input: SHA-256 of every file of the standard library."""

from __future__ import annotations

import pytest

from tether._bench import hashing, stdlib


@pytest.fixture(scope="module")
def paths():
    return stdlib.files()


@pytest.mark.benchmark(group="SHA-256 of the standard library")
@pytest.mark.parametrize("side", ["tether", "ThreadPoolExecutor(2)", "serial"])
def bench_hash(benchmark, executor, paths, side):
    run = {
        "tether": lambda: hashing.tasks(paths),
        "ThreadPoolExecutor(2)": lambda: hashing.pool(executor, paths),
        "serial": lambda: [stdlib.digest(path) for path in paths],
    }[side]
    result = benchmark.pedantic(run, rounds=5, warmup_rounds=1)
    assert result == [stdlib.digest(path) for path in paths]
