"""The outcomes as a picture. matplotlib comes with the extra: ``pip install "tether[bench]"``."""

from collections.abc import Sequence
from pathlib import Path

from . import machine
from .outcome import Outcome
from .row import Judged
from .units import digits, figure

MISSING = 'the plot needs matplotlib, which the bench extra brings: pip install "tether[bench]"'
COLOURS = {"aim": "#2b8a3e", "reach": "#74b816", "below": "#e8590c", "-": "#868e96"}


class PlotError(Exception):
    """The picture cannot be drawn; the message says what to do."""


def check(path: Path) -> None:
    """Raises `PlotError` where `draw` could not do its work, before minutes of measuring are spent."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PlotError(MISSING) from error
    known = FigureCanvasAgg(Figure()).get_supported_filetypes()
    if path.suffix.removeprefix(".").lower() not in known:
        raise PlotError(f"the name of the plot has to end in one of .{' .'.join(sorted(known))}, got {str(path)!r}")


def draw(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Draws how many times cheaper each row is than its rival, on a logarithmic axis, with its goals."""
    from matplotlib.figure import Figure

    shown = [outcome for outcome in outcomes if outcome.ratio is not None]
    height = 1.6 + 0.5 * max(1, len(shown))
    picture = Figure(figsize=(11, height), layout="constrained")
    axes = picture.subplots()
    axes.set_xscale("log")
    axes.set_yticks(range(len(shown)), [f"{outcome.row.label}\nagainst {outcome.row.rival}" for outcome in shown])
    axes.invert_yaxis()
    axes.axvline(1, color="black", linewidth=1)
    for y, outcome in enumerate(shown):
        times = _times(outcome, outcome.ratio or 1.0)
        axes.barh(y, times - 1, left=1, height=0.6, color=COLOURS[outcome.mark])
        assert outcome.ours is not None, "a row with a ratio has figures"
        text = f" {digits(times)}x  {figure(outcome.ours.median, outcome.row.unit)}  {outcome.place}"
        axes.annotate(text, (max(times, 1), y), va="center", fontsize=8)
        for goal, marker in ((outcome.row.reach, "|"), (outcome.row.aim, "D")):
            if goal is not None and outcome.row.judged is not Judged.FIGURE:
                axes.plot(_times(outcome, goal.bound), y, marker, color="black", markersize=9 if marker == "|" else 4)
    axes.margins(x=0.2)
    axes.set_xlabel("times cheaper than the rival (1: equal);  | reach,  ◆ aim")
    about = machine.description()
    axes.set_title(f"tether {about['tether']}, Python {about['python']} ({about['build']}), {about['cores']} cores")
    picture.savefig(path, dpi=150)


def _times(outcome: Outcome, ratio: float) -> float:
    return 1 / ratio if outcome.row.judged is Judged.SHARE else ratio
