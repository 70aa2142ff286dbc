"""A measured row, judged."""

from dataclasses import dataclass

from .measure import Samples, Spread, spread
from .row import Goal, Judged, Row


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came out of a row: its samples, or why there are none."""

    row: Row
    samples: Samples
    in_place: float | None = None  # share of the tasks that ran in place; None: not asked
    seconds: float = 0.0  # that the row took
    error: str = ""

    @property
    def ours(self) -> Spread | None:
        return spread(self.samples.ours) if self.samples.ours else None

    @property
    def rival(self) -> Spread | None:
        return spread(self.samples.rival) if self.samples.rival else None

    @property
    def ratio(self) -> float | None:
        """How many times cheaper than the rival; for a row judged by its share: the share of the rival's figure."""
        if self.ours is None or self.rival is None:
            return None
        times = self.row.judged is not Judged.SHARE
        over, under = (self.rival, self.ours) if times else (self.ours, self.rival)
        return over.median / under.median if under.median > 0 else None

    @property
    def mark(self) -> str:
        """ "aim", "reach" or "below"; "-" for a row without a goal or without what it takes, "failed" for an error."""
        if self.error:
            return "failed"
        if self.ratio is None and (self.row.lacks or self.row.judged is not Judged.FIGURE):
            return "-"
        if self.row.aim is not None and self.meets(self.row.aim):
            return "aim"
        if self.row.reach is not None and self.meets(self.row.reach):
            return "reach"
        return "-" if self.row.reach is None and self.row.aim is None else "below"

    @property
    def place(self) -> str:
        """ "in place", a percentage of it, or nothing."""
        if not self.in_place:
            return ""
        return "in place" if self.in_place > 0.995 else f"{max(1, round(self.in_place * 100))}% in place"

    def meets(self, goal: Goal) -> bool:
        """Whether the medians keep the bound."""
        if self.row.judged is Judged.FIGURE:
            return self.ours is not None and self.ours.median <= goal.bound
        if self.ratio is None:
            return False
        return self.ratio >= goal.bound if self.row.judged is Judged.TIMES else self.ratio <= goal.bound
