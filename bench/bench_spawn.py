"""One task at a time."""

from __future__ import annotations

import pytest

from tether._bench import fib, spawn

COUNT = 1_000


@pytest.mark.benchmark(group="spawn + join, 1,000 times")
@pytest.mark.parametrize("side", ["tether-lazy", "tether-dedicated", "Thread", "ThreadPoolExecutor(2)"])
def bench_one_by_one(benchmark, executor, side):
    run = {
        "tether-lazy": lambda: spawn.lazy(COUNT),
        "tether-dedicated": lambda: spawn.dedicated(COUNT),
        "Thread": lambda: spawn.thread(COUNT),
        "ThreadPoolExecutor(2)": lambda: spawn.pool(executor, COUNT),
    }[side]
    benchmark.pedantic(run, rounds=7, warmup_rounds=1)


@pytest.mark.benchmark(group="fib(20), a scope and a spawn at every node")
@pytest.mark.parametrize("side", ["tether", "plain-calls"])
def bench_fib(benchmark, side):
    run = {"tether": fib.fib, "plain-calls": fib.plain}[side]
    assert benchmark.pedantic(run, args=(20,), rounds=7, warmup_rounds=1) == 6765
