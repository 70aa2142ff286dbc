"""Large memory and large files: NumPy over a region, SHA-256 by commands."""

from __future__ import annotations

import pytest

import tether
from tether._bench import filling, sums

SIZE = 64 << 20


@pytest.mark.skipif(not filling.HAS_NUMPY, reason="NumPy is not installed")
@pytest.mark.benchmark(group="NumPy fills 64 MiB")
@pytest.mark.parametrize("side", ["2 tasks", "one thread"])
def bench_fill(benchmark, side):
    with tether.Region(SIZE, huge_pages=True) as region:
        run = {"2 tasks": lambda: filling.tasks(region), "one thread": filling.Array(SIZE).fill}[side]
        benchmark.pedantic(run, rounds=7, warmup_rounds=1)


@pytest.fixture(scope="module")
def paths():
    with sums.files(10, 10) as paths:
        yield paths


@pytest.mark.benchmark(group="SHA-256 of 10 files of 10 MB, by a command")
@pytest.mark.parametrize("side", ["tether sum", "xargs sha256sum"])
def bench_sum(benchmark, paths, side):
    if side == "xargs sha256sum" and not sums.rival_is_here():
        pytest.skip("xargs or sha256sum is not on this machine")
    run = {"tether sum": sums.ours, "xargs sha256sum": sums.theirs}[side]
    assert len(benchmark.pedantic(run, args=(paths,), rounds=5, warmup_rounds=1)) == 10
