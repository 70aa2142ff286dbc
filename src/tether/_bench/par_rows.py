"""The rows about parallel work: par_map and Executor, against map, pools and bare processes."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import tether

from . import computing, digesting, machine, par_mapping, submitting
from .bare import BarePair
from .measure import timed
from .row import Goal, Judged, Pair, Row, pair
from .sizes import Sizes

POOL = "ThreadPoolExecutor(2)"
BARE = "two bare processes"
MANY = 1_000_000  # trivial calls of par_map
FEW = 10_000  # of the pool, which takes more than ten seconds for a million
BATCH = 1_000  # futures


def par_rows(sizes: Sizes) -> list[Row]:
    """In the order they are run and shown."""
    return [*_call_rows(sizes), *_core_rows(sizes)]


def _call_rows(sizes: Sizes) -> list[Row]:
    with_gil = machine.gil_enabled()
    identity, short = par_mapping.identity, par_mapping.short
    return [
        Row(
            "par-map", "list(par_map(f, range(1,000,000))), trivial f", "s", Judged.SHARE,
            pair(timed(partial(par_mapping.ours, identity, MANY)), timed(partial(par_mapping.plain, identity, MANY))),
            sizes.rounds, "list(map())",
            Goal("1.5x at most", 1.5) if with_gil else None, Goal("1.2x", 1.2) if with_gil else None,
        ),
        Row(
            "par-map-pool", "the same, per item", "s", Judged.TIMES,
            _map_pool_sides, sizes.rounds, f"{POOL}.map", Goal("100x faster", 100), Goal("200x faster", 200),
        ),
        Row(
            "par-map-nested", "par_map in par_map, 100 x 100 calls of 1 µs", "s", Judged.SHARE,
            pair(timed(partial(par_mapping.nested, short)), timed(partial(par_mapping.flat, short))),
            sizes.rounds, "flat", Goal("1.2x at most", 1.2), Goal("1.05x", 1.05),
        ),
        Row(
            "submit", "Executor: 1,000 submits, then results, each", "s", Judged.TIMES,
            _submit_sides, sizes.rounds, POOL, Goal("1.5x faster", 1.5), Goal("3x faster", 3),
        ),
    ]  # fmt: skip


def _core_rows(sizes: Sizes) -> list[Row]:
    with_gil = machine.gil_enabled()
    reach, aim = Goal("0.93 of their speed", 0.93), Goal("0.98", 0.98)
    return [
        Row(
            "compute", f"pure Python, {computing.CHUNKS} chunks of {sizes.chunk_ms} ms", "s", Judged.TIMES,
            partial(_compute_sides, sizes.chunk_ms / 1000), sizes.rounds, BARE,
            None if with_gil else reach, None if with_gil else aim,
        ),
        Row(
            "digest", f"SHA-256, CRC-32, {digesting.CHUNKS} buffers of {sizes.chunk_ms} ms", "s", Judged.TIMES,
            partial(_digest_sides, sizes.chunk_ms / 1000), sizes.rounds, BARE, reach, aim,
        ),
    ]  # fmt: skip


@contextmanager
def _map_pool_sides() -> Iterator[Pair]:
    identity = par_mapping.identity
    with ThreadPoolExecutor(2) as pool:
        yield Pair(
            timed(partial(par_mapping.ours, identity, MANY), MANY),
            timed(partial(par_mapping.pool, pool, identity, FEW), FEW),
        )


@contextmanager
def _submit_sides() -> Iterator[Pair]:
    with tether.Executor(2) as ours, ThreadPoolExecutor(2) as pool:
        yield Pair(
            timed(partial(submitting.batch, ours, BATCH), BATCH),
            timed(partial(submitting.batch, pool, BATCH), BATCH),
        )


@contextmanager
def _compute_sides(seconds: float) -> Iterator[Pair]:
    rounds = computing.rounds_for(seconds)
    wanted = computing.chunk(rounds)

    def ours() -> None:
        if list(tether.par_map(computing.chunk, [rounds] * computing.CHUNKS)) != [wanted] * computing.CHUNKS:
            raise RuntimeError("par_map computed something else")

    def rival() -> None:
        if processes.run() != [str(wanted * (computing.CHUNKS // 2))] * 2:
            raise RuntimeError("the two bare processes computed something else")

    with BarePair(computing.__file__, rounds) as processes:
        yield Pair(timed(ours), timed(rival))


@contextmanager
def _digest_sides(seconds: float) -> Iterator[Pair]:
    size = digesting.size_for(seconds)
    data = digesting.buffer(size)
    wanted = digesting.digest(data)

    def ours() -> None:
        if list(tether.par_map(digesting.digest, [data] * digesting.CHUNKS)) != [wanted] * digesting.CHUNKS:
            raise RuntimeError("par_map computed something else")

    def rival() -> None:
        if processes.run() != [wanted] * 2:
            raise RuntimeError("the two bare processes computed something else")

    with BarePair(digesting.__file__, size) as processes:
        yield Pair(timed(ours), timed(rival))
