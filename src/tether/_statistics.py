"""Counters of what is alive now."""

from __future__ import annotations

from dataclasses import dataclass

from ._core import _counters

__all__ = ["Statistics", "statistics"]


@dataclass(frozen=True, slots=True)
class Statistics:
    """What this interpreter's runtime holds at one moment. All zero when everything has been joined (G9)."""

    tasks_live: int
    """Tasks spawned that have not ended."""
    tasks_queued: int
    """Of these, not started."""
    tasks_running: int
    """Of these, started."""
    threads: int
    """Native threads of the crew that are busy."""
    guards: int
    """Armed guards: not joined, detached, adopted or held by a scope."""
    scopes: int
    """Scopes whose block has not been left."""
    regions: int
    """Mapped regions."""
    borrows: int
    """Ranges and values lent."""
    bytes_mapped: int
    """Bytes in mapped regions."""


def statistics() -> Statistics:
    """Counts what is alive now.

    >>> import tether
    >>> tether.spawn(int).join()
    0
    >>> tether.statistics().tasks_live
    0
    """
    return Statistics(*_counters())
