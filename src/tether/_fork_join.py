"""`join`: two calls, the second of which may run elsewhere meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ._core import spawn

__all__ = ["join"]

A = TypeVar("A")
B = TypeVar("B")


def join(f: Callable[[], A], g: Callable[[], B], /) -> tuple[A, B]:
    """Calls both, possibly at the same time, and returns ``(f(), g())`` when both have ended (G1).

    ``f`` is called here. ``g`` is a task: a thread that is idle takes it; if none does, it runs here, after ``f``.
    Recursive programs that divide their work in two need no more than this, at any depth (G8).

    Raises: what ``f`` raises, when ``g`` was cancelled and has ended; else what ``g`` raises.

    The same as rayon's ``join``, which has it from Cilk.

    >>> import tether
    >>> def total(numbers):
    ...     if len(numbers) < 1000:
    ...         return sum(numbers)
    ...     half = len(numbers) // 2
    ...     return sum(tether.join(lambda: total(numbers[:half]), lambda: total(numbers[half:])))
    >>> total(range(10_000))
    49995000
    """
    for function in (f, g):
        if not callable(function):
            raise TypeError(f"join() needs callables, not {type(function).__name__}")
    with spawn(g) as guard:
        return f(), guard.join()
