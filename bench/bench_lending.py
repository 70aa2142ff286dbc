"""Borrows of a region."""

from __future__ import annotations

from threading import Lock

import pytest

import tether
from tether._bench import lending, mapping

COUNT = 1_000


@pytest.fixture(scope="module")
def region():
    with tether.Region(1 << 20) as region:
        yield region


@pytest.mark.benchmark(group="with ...: pass, 1,000 times")
@pytest.mark.parametrize("side", ["share", "borrow_mut", "Lock"])
def bench_one_by_one(benchmark, region, side):
    lock = Lock()
    run = {
        "share": lambda: lending.shared(region, COUNT),
        "borrow_mut": lambda: lending.exclusive(region, COUNT),
        "Lock": lambda: lending.locked(lock, COUNT),
    }[side]
    benchmark.pedantic(run, rounds=7, warmup_rounds=1)


@pytest.mark.benchmark(group="chunks_mut, a task each, and back")
@pytest.mark.parametrize("count", [10, 100, 1_000, 10_000])
def bench_chunks(benchmark, region, count):
    benchmark.pedantic(lending.chunks, args=(region, count), rounds=7, warmup_rounds=1)


@pytest.mark.benchmark(group="1,000 exclusive borrows beside what is lent")
@pytest.mark.parametrize("lent", [10, 100, 1_000, 10_000])
def bench_conflicts(benchmark, lent):
    with lending.crowded(lent, 10_000) as (region, gaps):
        benchmark.pedantic(lending.checks, args=(region, gaps), rounds=7, warmup_rounds=1)


@pytest.mark.benchmark(group="1 GiB mapped and unmapped, 100 times")
@pytest.mark.parametrize("side", ["Region", "mmap"])
def bench_mapping(benchmark, side):
    run = {"Region": mapping.region, "mmap": mapping.bare}[side]
    benchmark.pedantic(run, args=(1 << 30, 100), rounds=7, warmup_rounds=1)
