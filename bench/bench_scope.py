"""Many tasks at once."""

from __future__ import annotations

import pytest

from tether._bench import scope


@pytest.mark.benchmark(group="empty tasks, all handed in, then all results")
@pytest.mark.parametrize("count", [10, 100, 1_000, 10_000])
@pytest.mark.parametrize("side", ["tether", "ThreadPoolExecutor(2)"])
def bench_empty_tasks(benchmark, executor, side, count):
    run = {"tether": scope.tasks, "ThreadPoolExecutor(2)": lambda n: scope.pool(executor, n)}[side]
    benchmark.pedantic(run, args=(count,), rounds=7, warmup_rounds=1)
