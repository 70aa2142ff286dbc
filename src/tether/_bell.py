"""Waiting for what is no task, as tether waits: cancellation and Ctrl-C end it, and others run meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from . import _core
from ._errors import ForkedError

__all__ = ["wait_for"]


def wait_for(
    subscribe: Callable[[Callable[[], None]], object], over: Callable[[], bool], timeout: float | None = None
) -> None:
    """Returns when ``over()``, or after ``timeout`` seconds.

    ``subscribe`` is given the function to call, from anywhere, when that may be so; ``over`` is asked after it.

    Raises: Cancelled; what a signal handler raises.
    """

    def ring() -> None:
        with suppress(ForkedError):  # in a child, the one who sleeps is the parent's
            bell.cancel()

    failure: Exception | None = None
    with _core.scope() as bell:  # cancelling it ends the sleep in its block
        try:
            subscribe(ring)
            if not over():
                _core.sleep(float("inf") if timeout is None else max(0.0, timeout))
        except Exception as error:  # of which the scope would make a group; others go through it as they are
            failure = error
    if failure is not None:
        try:
            raise failure
        finally:
            del failure
