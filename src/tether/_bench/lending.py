"""Borrows, one at a time and many at once, and the lock that they are compared with."""

import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from threading import Lock

import tether

BLOCK = 64  # bytes; every second one is lent, the others are free
GAPS = 1_000  # free blocks that are asked for, in no order


def shared(region: tether.Region, count: int) -> None:
    """``with region.share(): pass``, `count` times."""
    for _ in range(count):
        with region.share():
            pass


def exclusive(region: tether.Region, count: int) -> None:
    """``with region.borrow_mut(): pass``, `count` times."""
    for _ in range(count):
        with region.borrow_mut():
            pass


def locked(lock: Lock, count: int) -> None:
    """``with lock: pass``, `count` times."""
    for _ in range(count):
        with lock:
            pass


def chunks(region: tether.Region, count: int) -> None:
    """All of `region` in `count` exclusive parts, each given to a task of one scope, and back with its end."""
    with tether.scope() as s:
        spawn = s.spawn
        for part in region.chunks_mut(count):
            spawn(_take, part)


def _take(part: tether.Exclusive[object]) -> None:
    pass


@contextmanager
def crowded(lent: int, of: int) -> Iterator[tuple[tether.Region, Sequence[int]]]:
    """A region of twice `of` blocks, `lent` of them lent evenly; and the starts of `GAPS` blocks that are free."""
    gaps = [(2 * at + 1) * BLOCK for at in random.Random(1).choices(range(of), k=GAPS)]
    with tether.Region(2 * of * BLOCK) as region, ExitStack() as stack:
        for start in range(0, 2 * of * BLOCK, 2 * BLOCK * (of // lent)):
            stack.enter_context(region.share(start, start + BLOCK))
        yield region, gaps


def checks(region: tether.Region, gaps: Sequence[int]) -> None:
    """An exclusive borrow of each gap: the book has to find that nothing lent is in the way."""
    for start in gaps:
        with region.borrow_mut(start, start + BLOCK):
            pass
