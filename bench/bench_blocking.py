"""Tasks that block in C."""

from __future__ import annotations

import pytest

from tether._bench import sleeping


@pytest.mark.benchmark(group="tasks that sleep in C")
@pytest.mark.parametrize(("count", "seconds"), [(8, 0.01), (100, 0.02), (1_000, 0.05)])
@pytest.mark.parametrize("side", ["tether", "Thread"])
def bench_sleeping(benchmark, side, count, seconds):
    run = {"tether": sleeping.tasks, "Thread": sleeping.threads}[side]
    benchmark.pedantic(run, args=(count, seconds), rounds=5, warmup_rounds=1)
