"""The guarded closure."""

from __future__ import annotations

from ._core import Scope, scope

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    R = TypeVar("R")

__all__ = ["scoped"]


def scoped(fn: Callable[[Scope], R], /) -> R | None:
    """Calls ``fn`` with a new scope, joins every task spawned in it (G2), and returns what ``fn`` returned.

    None if the scope was cancelled and that ended ``fn``.

    Raises: as leaving a ``tether.scope()`` block does.

    >>> import tether
    >>> tether.scoped(lambda s: s.spawn(pow, 2, 5).join())
    32
    """
    if not callable(fn):
        raise TypeError(f"scoped() needs a callable, not {type(fn).__name__}")
    with scope() as s:
        return fn(s)
    return None
