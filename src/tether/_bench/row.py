"""What a row of the bench is: two sides, and what is asked of them."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import Enum

Side = Callable[[], float]
"""Runs one round and returns its figure: seconds for one operation, bytes for one task, or a count."""


@dataclass(frozen=True, slots=True)
class Pair:
    """The two sides of a row; a row may be without a rival."""

    ours: Side
    rival: Side | None = None


class Judged(Enum):
    """Which number a goal is about."""

    TIMES = "times"  # rival / ours: so many times cheaper, at least
    SHARE = "share"  # ours / rival: so much of the rival, at most
    FIGURE = "figure"  # our own figure, at most


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound, and how a reader is told of it."""

    text: str
    bound: float


@dataclass(frozen=True, slots=True)
class Row:
    """One workload with both of its sides.

    `sides` opens what both need for all rounds (a warm pool, two waiting processes) and closes it afterwards.
    """

    key: str
    label: str
    unit: str  # "s", "B" or "" for a count
    judged: Judged
    sides: Callable[[], AbstractContextManager[Pair]]
    rounds: int
    rival: str = ""
    reach: Goal | None = None
    aim: Goal | None = None
    warm: bool = True  # the first round of each side is not counted
    in_place: Callable[[], float] | None = None  # the share of our tasks that their joiner runs itself
    lacks: str = ""  # what it needs and this machine does not have: then it is not run


def pair(ours: Side, rival: Side | None = None) -> Callable[[], AbstractContextManager[Pair]]:
    """The `sides` of a row that has nothing to open."""
    return lambda: nullcontext(Pair(ours, rival))
