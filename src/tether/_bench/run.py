"""Rows in, outcomes out."""

import time
from collections.abc import Callable, Iterable

from .measure import Samples, measure
from .outcome import Outcome
from .row import Row


def run(chosen: Iterable[Row], budget: float, tell: Callable[[float, str], None]) -> list[Outcome]:
    """Measures the rows one after another; a row that fails says so in its outcome, and the others go on.

    `tell` hears how many rows are done (a fraction among them) and the label of the row at work.
    """
    return [_outcome(number, row, budget, tell) for number, row in enumerate(chosen)]


def _outcome(number: int, row: Row, budget: float, tell: Callable[[float, str], None]) -> Outcome:
    start = time.perf_counter()
    tell(number, row.label)
    if row.lacks:
        return Outcome(row, Samples())
    try:
        samples = measure(row, budget, lambda part: tell(number + part, row.label))
        share = row.in_place() if row.in_place is not None else None
    except Exception as error:
        return Outcome(row, Samples(), seconds=time.perf_counter() - start, error=f"{type(error).__name__}: {error}")
    return Outcome(row, samples, share, time.perf_counter() - start)
