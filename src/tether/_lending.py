"""What is said when a borrow cannot be had (cext/binding/pyborrow.c)."""

from __future__ import annotations

from ._errors import BorrowError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._core import TaskRef

__all__ = ["blocked", "escaped"]


def _holder(task: TaskRef | None) -> str:
    if task is None:
        return "the program itself"
    return f"task '{task.name}' (spawned at {task.spawned_at})"


def _where(what: str, range: tuple[int, int] | None) -> str:
    return what if range is None else f"bytes {range[0]} to {range[1]} of {what}"


def blocked(
    what: str,
    verb: str,
    wanted: tuple[int, int] | None,
    range: tuple[int, int] | None,
    exclusive: bool,
    viewed: bool,
    waiting: bool,
    task: TaskRef | None,
    site: str | None,
) -> BorrowError:
    """The error for wanting to ``verb`` the range ``wanted``, when another loan of ``range`` is in the way."""
    how = "exclusively" if exclusive else "shared"
    place = f", borrowed at {site}" if site else ""
    if waiting:
        state = f"{_where(what, range)} are awaited ({how}) by {_holder(task)}, who came first{place}"
        fix = "Wait, too, with timeout="
    elif viewed:
        state = (
            f"{_where(what, range)} are still seen by a raw view (a memoryview or an array) "
            f"of a borrow that has ended, of {_holder(task)}{place}"
        )
        fix = "Let go of that view first"
    else:
        state = f"{_where(what, range)} are lent {how} to {_holder(task)}{place}"
        fix = "Wait for its end with timeout=, end that borrow first, or give out disjoint ranges (chunks_mut)"
    if range is None:
        state = state.replace(" are ", " is ", 1)
    want = "" if wanted is None else f" (bytes {wanted[0]} to {wanted[1]})"
    return BorrowError(f"cannot {verb} {what}{want}: {state}. {fix}", task, site, range)


def escaped(what: str, range: tuple[int, int] | None, task: TaskRef | None, site: str | None) -> BorrowError:
    """The error for a view that outlives the borrow of a task, raised when the scope ends."""
    place = f", borrowed at {site}" if site else ""
    return BorrowError(
        f"a raw view (a memoryview or an array) of {_where(what, range)} outlives the borrow of {_holder(task)}{place}"
        ": the range stays lent until it is gone. Return a copy instead, or let go of the view in the task",
        task,
        site,
        range,
    )
