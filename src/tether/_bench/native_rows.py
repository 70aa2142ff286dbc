"""The rows about C code without the GIL: what a parallel loop costs, and how fast memory is read by one."""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import tether
from tether import native

from . import machine, openmp
from .measure import timed
from .row import Goal, Judged, Pair, Row
from .sizes import Sizes

THREADS = 2
LOOP = 5_000


def native_rows(sizes: Sizes) -> list[Row]:
    """In the order they are run and shown."""
    lacks = openmp.lacks()
    return [
        Row(
            "parallel-for", f"native.parallel_for, empty body, {THREADS} threads, per call", "s", Judged.SHARE,
            _region_sides, sizes.rounds, "OpenMP parallel region", Goal("2x at most", 2), Goal("1x", 1), lacks=lacks,
        ),
        Row(
            "sum-doubles", f"native.sum of {sizes.sum_mib} MiB of doubles in a region", "s", Judged.TIMES,
            partial(_sum_sides, sizes.sum_mib << 20), sizes.rounds, f"OpenMP, {machine.cores()} threads",
            Goal("0.9 of its bandwidth", 0.9), Goal("1.0 of it", 1), lacks=lacks,
        ),
    ]  # fmt: skip


def _calls(call: Callable[[], object]) -> None:
    for _ in range(LOOP):
        call()


@contextmanager
def _region_sides() -> Iterator[Pair]:
    """One Python call and one parallel region each."""
    with openmp.library() as rival:
        ours = partial(native.parallel_for, native.NativeFunction(rival.nothing), THREADS, threads=THREADS)
        theirs = partial(rival.region, THREADS)
        yield Pair(timed(partial(_calls, ours), LOOP), timed(partial(_calls, theirs), LOOP))


@contextmanager
def _sum_sides(size: int) -> Iterator[Pair]:
    with openmp.library() as rival, tether.Region(size) as region:
        count = size // 8
        with region.borrow_mut() as borrow:
            native.fill(borrow, 0.5, format="d")
            view = (ctypes.c_char * size).from_buffer(borrow)
            address = ctypes.addressof(view)
            del view
        with region.share() as shared:

            def ours() -> None:
                _require(native.sum(shared, format="d"), count)

            def theirs() -> None:
                _require(rival.sum(address, count, machine.cores()), count)

            yield Pair(timed(ours), timed(theirs))


def _require(total: float, count: int) -> None:
    if total != count * 0.5:
        raise RuntimeError(f"the sum of {count} halves is not {total}")
