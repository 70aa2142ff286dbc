"""Waiting for what is no task, as tether waits: cancellation and Ctrl-C end it, and others run meanwhile."""

from __future__ import annotations

from collections.abc import Callable

from . import _core

__all__ = ["wait_for"]


def wait_for(
    subscribe: Callable[[Callable[[], None]], object], over: Callable[[], bool], timeout: float | None = None
) -> None:
    """Returns when ``over()``, or after ``timeout`` seconds.

    ``subscribe`` is given the function to call, from anywhere, when that may be so; ``over`` is asked after it.

    Raises: Cancelled.
    """
    with _core.scope() as bell:  # cancelling it ends the sleep in its block
        subscribe(bell.cancel)
        if not over():
            _core.sleep(float("inf") if timeout is None else max(0.0, timeout))
