"""The rows about memory: mapped regions, borrows, and the programs that are built on them."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from threading import Lock

import tether

from . import filling, lending, mapping, sums
from .measure import timed
from .row import Goal, Judged, Pair, Row, pair
from .sizes import Sizes

LOOP = 20_000
BATCH = 1_000
MANY, FEW = 10_000, 10  # ranges that are lent while others are asked for
GIB = 1 << 30
MAPPINGS = 100


def data_rows(sizes: Sizes) -> list[Row]:
    """In the order they are run and shown."""
    return [*_borrow_rows(sizes), *_memory_rows(sizes)]


def _borrow_rows(sizes: Sizes) -> list[Row]:
    return [
        Row(
            "share", "with region.share(): pass", "s", Judged.SHARE,
            _lock_sides(lending.shared), sizes.rounds, "with Lock()", Goal("4x at most", 4), Goal("2x", 2),
        ),
        Row(
            "borrow-mut", "with region.borrow_mut(): pass", "s", Judged.SHARE,
            _lock_sides(lending.exclusive), sizes.rounds, "with Lock()", Goal("4x at most", 4), Goal("2x", 2),
        ),
        Row(
            "chunks", "chunks_mut(1,000), a task each, back, per chunk", "s", Judged.FIGURE,
            _chunk_sides, sizes.rounds, reach=Goal("2 µs", 2e-6), aim=Goal("0.8 µs", 0.8e-6),
        ),
        Row(
            "conflicts", f"borrow_mut beside {MANY:,} ranges that are lent", "s", Judged.SHARE,
            _crowd_sides, sizes.rounds, f"beside {FEW}", Goal("3x at most", 3), Goal("1.5x", 1.5),
        ),
    ]  # fmt: skip


def _memory_rows(sizes: Sizes) -> list[Row]:
    rival = sums.rival()
    return [
        Row(
            "map", "Region of 1 GiB, made and closed, untouched", "s", Judged.SHARE,
            pair(
                timed(partial(mapping.region, GIB, MAPPINGS), MAPPINGS),
                timed(partial(mapping.bare, GIB, MAPPINGS), MAPPINGS),
            ),
            sizes.rounds, "mmap.mmap", Goal("1.2x at most", 1.2), Goal("1.0x", 1),
        ),
        Row(
            "fill", f"NumPy fills {sizes.fill_mib} MiB of a region, 2 tasks", "s", Judged.TIMES,
            partial(_fill_sides, sizes.fill_mib << 20), sizes.rounds, "NumPy, one thread", Goal("1.5x faster", 1.5),
            lacks="" if filling.HAS_NUMPY else "NumPy is not installed",
        ),
        Row(
            "sum", f"tether sum, {sizes.sum_files} files of {sizes.sum_mb} MB, warm", "s", Judged.TIMES,
            partial(_sum_sides, sizes.sum_files, sizes.sum_mb), sizes.rounds,
            rival if sums.rival_is_here() else f"{rival}: not on this machine",
            Goal("not slower", 1), Goal("1.2x faster", 1.2),
        ),
    ]  # fmt: skip


def _lock_sides(loop: Callable[[tether.Region, int], None]) -> Callable[[], AbstractContextManager[Pair]]:
    @contextmanager
    def sides() -> Iterator[Pair]:
        lock = Lock()
        with tether.Region(1 << 20) as region:
            yield Pair(timed(partial(loop, region, LOOP), LOOP), timed(partial(lending.locked, lock, LOOP), LOOP))

    return sides


@contextmanager
def _chunk_sides() -> Iterator[Pair]:
    with tether.Region(1 << 20) as region:
        yield Pair(timed(partial(lending.chunks, region, BATCH), BATCH))


@contextmanager
def _crowd_sides() -> Iterator[Pair]:
    with lending.crowded(MANY, MANY) as many, lending.crowded(FEW, MANY) as few:
        yield Pair(
            timed(partial(lending.checks, *many), lending.GAPS),
            timed(partial(lending.checks, *few), lending.GAPS),
        )


@contextmanager
def _fill_sides(size: int) -> Iterator[Pair]:
    array = filling.Array(size)
    with tether.Region(size, huge_pages=True) as region:  # as NumPy asks for
        yield Pair(timed(partial(filling.tasks, region)), timed(array.fill))


@contextmanager
def _sum_sides(count: int, megabytes: int) -> Iterator[Pair]:
    with sums.files(count, megabytes) as paths:
        if not sums.rival_is_here():
            yield Pair(timed(partial(sums.ours, paths)))
            return
        wanted = sums.theirs(paths)

        def ours() -> None:
            if sorted(sums.ours(paths)) != wanted:
                raise RuntimeError("the lines of tether sum differ from those of sha256sum")

        yield Pair(timed(ours), timed(partial(sums.theirs, paths)))
