"""Which worker of an `Executor` waits behind the code that runs: tasks inherit it with the context."""

from __future__ import annotations

from contextvars import ContextVar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._pool import Worker

__all__ = ["behind"]

behind: ContextVar[Worker | None] = ContextVar("tether worker", default=None)
