"""Rounds of both sides, in turn, and what they come to."""

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .row import Row

FEWEST = 3  # rounds that are taken even when the time is up


@dataclass(frozen=True, slots=True)
class Samples:
    """The figure of each round, in the order they were taken."""

    ours: list[float] = field(default_factory=list)
    rival: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Spread:
    """Five numbers that say where the samples lie."""

    least: float
    lower: float  # quartile
    median: float
    upper: float  # quartile
    most: float


def spread(samples: Sequence[float]) -> Spread:
    """The spread of at least one sample."""
    if len(samples) == 1:
        only = samples[0]
        return Spread(only, only, only, only, only)
    lower, median, upper = statistics.quantiles(samples, n=4, method="inclusive")
    return Spread(min(samples), lower, median, upper, max(samples))


def measure(row: Row, budget: float, tell: Callable[[float], None]) -> Samples:
    """Runs the rounds of `row`: both sides in each, the side that begins alternating.

    After `budget` seconds no further round is begun (but `FEWEST` are taken). `tell` hears how much is done, 0 to 1.
    """
    samples = Samples()
    with row.sides() as both:
        todo = [(both.ours, samples.ours)]
        if both.rival is not None:
            todo.append((both.rival, samples.rival))
        if row.warm:
            for side, _ in todo:
                side()
        start = time.perf_counter()
        for done in range(row.rounds):
            if done >= FEWEST and time.perf_counter() - start > budget:
                break
            tell(done / row.rounds)
            gc.collect()  # so that no round pays for the litter of an earlier one
            for side, figures in todo:
                figures.append(side())
            todo.reverse()
    return samples


def timed(run: Callable[[], object], count: int = 1) -> Callable[[], float]:
    """A side: seconds that `run` takes, for each of the `count` operations that it does."""

    def side() -> float:
        start = time.perf_counter()
        run()
        return (time.perf_counter() - start) / count

    return side


def apart(run: Callable[[], object], pause: float, count: int) -> Callable[[], float]:
    """A side: mean seconds of `run`, done `count` times with a `pause` (seconds, not counted) before each.

    One more goes before them, uncounted: it follows the other side's round, so it is not `pause` apart from its like.
    """

    def side() -> float:
        run()
        total = 0.0
        for _ in range(count):
            time.sleep(pause)
            start = time.perf_counter()
            run()
            total += time.perf_counter() - start
        return total / count

    return side
