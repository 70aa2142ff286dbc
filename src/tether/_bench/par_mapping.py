"""Many calls by par_map: cheap ones against ``map``, nested ones against flat ones."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain

import tether

SIDE = 100


def identity(x: int) -> int:
    """The trivial function."""
    return x


def short(x: int) -> int:
    """About a microsecond of work."""
    total = 0
    for i in range(20):
        total += i ^ x
    return total


def ours(fn: Callable[[int], int], count: int) -> list[int]:
    """By par_map."""
    return list(tether.par_map(fn, range(count)))


def plain(fn: Callable[[int], int], count: int) -> list[int]:
    """By map, without threads."""
    return list(map(fn, range(count)))


def pool(executor: ThreadPoolExecutor, fn: Callable[[int], int], count: int) -> list[int]:
    """By ``Executor.map`` on a pool that stays open."""
    return list(executor.map(fn, range(count)))


def row(fn: Callable[[int], int], start: int) -> list[int]:
    """`SIDE` calls."""
    return list(tether.par_map(fn, range(start, start + SIDE)))


def nested(fn: Callable[[int], int]) -> list[int]:
    """`SIDE` rows of `SIDE` calls, by par_map inside of par_map."""
    return list(chain.from_iterable(tether.par_map(partial(row, fn), range(0, SIDE * SIDE, SIDE))))


def flat(fn: Callable[[int], int]) -> list[int]:
    """As many calls by one par_map."""
    return ours(fn, SIDE * SIDE)
