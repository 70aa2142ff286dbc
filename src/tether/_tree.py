"""The task tree, for people."""

from __future__ import annotations

import sys

from ._core import _run_of, tasks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from ._core import TaskRef

__all__ = ["dump"]


def _id(task: TaskRef) -> int:
    return task.id


def dump(file: TextIO | None = None) -> None:
    """Writes the tree of living tasks, with states and spawn sites, to ``file`` (default: ``sys.stderr``).

    >>> import sys, tether
    >>> tether.dump(sys.stdout)
    no tasks
    """
    out = sys.stderr if file is None else file
    living = tasks()
    if not living:
        print("no tasks", file=out)
        return
    known = {task.id for task in living}
    children: dict[int, list[TaskRef]] = {}
    for task in sorted(living, key=_id):
        parent = task.parent
        children.setdefault(parent.id if parent is not None and parent.id in known else 0, []).append(task)
    stack = [(task, 0) for task in reversed(children.get(0, []))]
    while stack:
        task, depth = stack.pop()
        where = f", thread {task.native_id}" if task.native_id is not None else ""
        history = _history(task)
        print(f"{'  ' * depth}{task.name}  {task.state.name}{where}, spawned at {task.spawned_at}{history}", file=out)
        stack += [(child, depth + 1) for child in reversed(children.get(task.id, []))]


def _history(task: TaskRef) -> str:
    run = _run_of(task)
    history = "" if run is None else run.history()
    return history and f", {history}"
