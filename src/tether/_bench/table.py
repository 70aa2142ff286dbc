"""The outcomes as aligned plain text."""

from collections.abc import Sequence

from .measure import Spread
from .outcome import Outcome
from .units import digits, figure

HEAD = ("workload", "tether", "±", "rival", "±", "against", "ratio", "reach", "aim", "met", "where")
LEGEND = """\
Medians of rounds, both sides taking turns in one run: the ratio is what counts. ±: half the distance of the quartiles.
ratio: how many times cheaper than the rival, or, where the goal is a share of the rival, that share.
met: aim or reach is the better goal that was met, below means neither; where: tasks that their joiner ran itself."""


def table(outcomes: Sequence[Outcome]) -> str:
    """Head, one line for each outcome, the legend, and what was not run or failed."""
    lines = [HEAD, *(_cells(outcome) for outcome in outcomes)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    numbers = {1, 2, 3, 4, 6}
    text = [
        "  ".join(
            cell.rjust(width) if column in numbers else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    text.insert(1, "  ".join("-" * width for width in widths))
    errors = [f"FAILED {outcome.row.label}: {outcome.error}" for outcome in outcomes if outcome.error]
    unrun = [f"NOT RUN {outcome.row.label}: {outcome.row.lacks}" for outcome in outcomes if outcome.row.lacks]
    return "\n".join([*text, "", LEGEND, *unrun, *errors])


def _cells(outcome: Outcome) -> tuple[str, ...]:
    row = outcome.row
    return (
        row.label,
        *_figures(outcome.ours, row.unit),
        *_figures(outcome.rival, row.unit),
        row.rival,
        f"{digits(outcome.ratio)}x" if outcome.ratio is not None else "",
        row.reach.text if row.reach else "",
        row.aim.text if row.aim else "",
        outcome.mark,
        outcome.place,
    )


def _figures(spread: Spread | None, unit: str) -> tuple[str, str]:
    if spread is None:
        return "", ""
    around = (spread.upper - spread.lower) / 2 / spread.median if spread.median else 0.0
    return figure(spread.median, unit), f"{around:.0%}" if spread.most > spread.least else ""
