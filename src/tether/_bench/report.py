"""The outcomes for programs: every sample, and what made them."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import machine
from .measure import Spread
from .outcome import Outcome
from .row import Goal

FORMAT = 1  # raised when a field changes its meaning


def report(outcomes: Sequence[Outcome], *, quick: bool) -> dict[str, Any]:
    """What ``--json`` writes; times in seconds, memory in bytes."""
    return {
        "format": FORMAT,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "machine": machine.description(),
        "rows": [_row(outcome) for outcome in outcomes],
    }


def write(path: Path, outcomes: Sequence[Outcome], *, quick: bool) -> None:
    """Writes the report as JSON."""
    path.write_text(json.dumps(report(outcomes, quick=quick), indent=1) + "\n", encoding="utf-8")


def _row(outcome: Outcome) -> dict[str, Any]:
    row = outcome.row
    return {
        "key": row.key,
        "label": row.label,
        "unit": row.unit,
        "judged": row.judged.value,
        "against": row.rival,
        "reach": _goal(row.reach),
        "aim": _goal(row.aim),
        "ratio": outcome.ratio,
        "met": outcome.mark,
        "in_place": outcome.in_place,
        "seconds": outcome.seconds,
        "error": outcome.error,
        "lacks": row.lacks,
        "ours": _side(outcome.ours, outcome.samples.ours),
        "rival": _side(outcome.rival, outcome.samples.rival),
    }


def _goal(goal: Goal | None) -> dict[str, Any] | None:
    return asdict(goal) if goal is not None else None


def _side(spread: Spread | None, samples: list[float]) -> dict[str, Any] | None:
    return {**asdict(spread), "samples": samples} if spread is not None else None
