"""The model: what the guarantees say about tasks, guards, owners, scopes and waits, in sequential plain Python.

It knows nothing of threads but which tasks stand on one stack (`below`). Owner slots are those of
cext/runtime/owner_graph.md: one edge up from each node, followed past what has ended.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(eq=False)
class Node:
    number: int
    owner: Node | None = None
    """The slot; None is the root."""


@dataclass(eq=False)
class Scope(Node):
    opener: Actor = None  # type: ignore[assignment]
    wait_all: bool = False
    cancelled: bool = False
    state: str = "open"  # open, left, closed
    body: str | None = None
    """With what the block was left: None, "Boom" or "Cancelled"."""
    noticed: bool = False
    """A cancellation was noticed while leaving."""
    children: list[Task] = field(default_factory=list)
    failures: list[Task] = field(default_factory=list)
    """Children that failed and whose failure nobody has collected."""

    def alive(self) -> bool:
        return any(task.live for task in self.children)


@dataclass(eq=False)
class Wait:
    """Why an actor is busy."""

    kind: str  # join, drop, leave
    target: Task | Scope
    exit_value: bool = False


@dataclass(eq=False)
class Actor(Node):
    """A task that runs, or a plain thread, which acts for the root."""

    scopes: list[Scope] = field(default_factory=list)
    wait: Wait | None = None
    below: Actor | None = None
    above: Actor | None = None

    @property
    def node(self) -> Node | None:
        return None

    def stack(self) -> Iterator[Actor]:
        at: Actor | None = self
        while at is not None:
            yield at
            at = at.below

    def top(self) -> Actor:
        at: Actor = self
        while at.above is not None:
            at = at.above
        return at

    def cancelled(self) -> bool:
        """Does a checkpoint raise here? A task's own request, its scope's, and those of open blocks, down the stack."""
        return any(at.asked() or any(scope.cancelled for scope in at.scopes) for at in self.stack())

    def asked(self) -> bool:
        return False


@dataclass(eq=False)
class Task(Actor):
    live: bool = True
    started: bool = True
    reaped: bool = False
    loose: bool = False
    detached: bool = False
    cancel_asked: bool = False
    outcome: tuple[str, Any] | None = None  # ("value", x), ("failed", description), ("killed", None)
    in_value: list[Task] = field(default_factory=list)
    """Tasks whose guards lie in its exit value."""
    in_result: list[Task] = field(default_factory=list)
    """Of these, those that were its own when it ended."""

    @property
    def node(self) -> Node | None:
        return self

    @property
    def scoped(self) -> bool:
        return isinstance(self.owner, Scope)

    @property
    def armed(self) -> bool:
        return not (self.scoped or self.loose or self.reaped)

    @property
    def failed(self) -> bool:
        return self.outcome is not None and self.outcome[0] == "failed"

    def asked(self) -> bool:
        return self.cancel_asked or (isinstance(self.owner, Scope) and self.owner.cancelled)


def effective(node: Node | None) -> Task | None:
    """Follow ended tasks, and scopes to their openers, to the one who has the say."""
    while node is not None and not (isinstance(node, Task) and node.live):
        node = node.owner
    return node


def is_above(task: Task, node: Node | None) -> bool:
    while node is not None:
        if node is task:
            return True
        node = node.owner
    return False


class World:
    """All nodes, and what each act does to them. Predictions are sets: tether may have a choice."""

    def __init__(self) -> None:
        self.tasks: list[Task] = []
        self.scopes: list[Scope] = []
        self.threads: list[Actor] = []
        self.reports: list[Any] = []
        """Failures that must reach sys.unraisablehook."""
        self.hooked: list[Any] = []
        """Failures that must reach threading.excepthook."""

    def actors(self) -> list[Actor]:
        return [*self.threads, *(task for task in self.tasks if task.live)]

    def owns(self, actor: Actor, task: Task) -> bool:
        return not task.scoped and effective(task.owner) is actor.node

    # ---- ownership ------------------------------------------------------------------------------------------------

    def refusal(self, actor: Actor, task: Task) -> str | None:
        """Why a join, a move or a detach by `actor` is refused, but for what is special to each."""
        if task.reaped or task.loose:
            return "ReapedError"
        return None if self.owns(actor, task) else "OwnershipError"

    def move_refusals(self, actor: Actor, tasks: list[Task], to: Node | None) -> set[str]:
        armed = [task for task in tasks if task.armed]
        if any(not self.owns(actor, task) or is_above(task, to) for task in armed):
            return {"OwnershipError"}
        return set()

    def move(self, tasks: list[Task], to: Node | None) -> None:
        for task in tasks:
            if task.armed:
                task.owner = to

    def send_to_scope(self, task: Task, scope: Scope) -> None:
        task.owner = scope
        scope.children.append(task)
        if task.failed:
            scope.failures.append(task)
            scope.cancelled = scope.cancelled or not scope.wait_all

    def receive(self, actor: Actor, task: Task) -> None:
        """The guards in a scope child's result go to whoever joined it; others' results come with the ownership."""
        if not task.scoped:
            return
        for inner in task.in_result:
            if not inner.armed or is_above(inner, actor.node):
                continue
            at = inner.owner  # still what the ended task left?
            while isinstance(at, Task) and not at.live and at is not task:
                at = at.owner
            if at is task:
                inner.owner = actor.node

    # ---- reaping --------------------------------------------------------------------------------------------------

    def take(self, actor: Actor, task: Task) -> None:
        """Somebody takes the exit value."""
        task.reaped = True
        if isinstance(task.owner, Scope) and task in task.owner.failures:
            task.owner.failures.remove(task)
        self.receive(actor, task)

    def report(self, task: Task) -> None:
        if task.failed:
            (self.hooked if task.detached else self.reports).append(task.outcome[1])  # type: ignore[index]

    def loosen(self, task: Task, *, detached: bool = False) -> None:
        """Adopted or detached: nobody waits; the end, past or to come, reaps and reports."""
        task.loose, task.detached = True, detached
        if not task.live:
            task.reaped = True
            self.report(task)

    def drop_handle(self, task: Task) -> None:
        if not task.reaped:
            task.loose = True
            if not task.live and not task.failed:
                task.reaped = True

    def end(self, task: Task, outcome: tuple[str, Any], result: list[Task]) -> None:
        task.in_result = [inner for inner in result if inner.armed and self.owns(task, inner)]
        task.outcome = outcome
        task.live = False
        if task.below is not None:
            task.below.above = None
        if isinstance(task.owner, Task):
            task.owner = effective(task.owner)
        if isinstance(task.owner, Scope) and task.failed:
            scope = task.owner
            if scope.state != "closed":
                scope.failures.append(task)
            scope.cancelled = scope.cancelled or not scope.wait_all
        elif task.loose:
            task.reaped = True
            if not task.scoped:
                self.report(task)

    # ---- waiting --------------------------------------------------------------------------------------------------

    def ahead(self, node: Task | Scope | None) -> Iterator[Task | Scope]:
        """What a thread waits for, then what holds that up, and so on; ends at a scope or at whoever does not wait."""
        seen: set[int] = set()
        while node is not None and id(node) not in seen:
            seen.add(id(node))
            yield node
            if isinstance(node, Scope) or not node.live:
                return
            wait = node.top().wait
            node = wait.target if wait is not None else None

    def deadlocked(self, actor: Actor, target: Task | Scope) -> bool:
        """Would a wait of `actor` for `target` close a ring, through tasks, or through a scope that it stands in?"""
        for node in self.ahead(target):
            if isinstance(node, Scope):
                return any(self.inside(at, node) for at in actor.stack())
            if node.live and node.top() is actor.top():
                return True
        return False

    @staticmethod
    def inside(actor: Actor, scope: Scope) -> bool:
        at: Node | None = actor.node
        while at is not None and at is not scope:
            at = at.owner
        return at is scope

    def stranded(self, actor: Actor) -> list[Actor]:
        """Who waits, directly or not, for `actor`, and learns by its new wait that it can never end."""
        return [
            other
            for other in self.actors()
            if other is not actor
            and other.wait is not None
            and other.wait.kind != "leave"
            and other.above is None
            and self.deadlocked(other, other.wait.target)
        ]

    # ---- leaving a scope ------------------------------------------------------------------------------------------

    def leave(self, scope: Scope, body: str | None) -> None:
        scope.state, scope.body = "left", body
        if body is not None and (not scope.wait_all or body == "Cancelled"):
            scope.cancelled = True

    def settle(self, scope: Scope) -> tuple[str, Any]:
        """Close the scope; answer what leaving it raises or returns."""
        actor = scope.opener
        scope.state = "closed"
        actor.scopes.remove(scope)
        outside = actor.cancelled()
        scope.failures.sort(key=scope.children.index)  # collected in the order of their coming, not of their ends
        failed = [task.outcome[1] for task in scope.failures]  # type: ignore[index]
        for task in scope.failures:
            task.reaped = True
        scope.failures.clear()
        exits = [error for error in failed if error[0] == "SystemExit"]
        if exits:
            failed.remove(exits[0])
            self.reports += failed
            return ("raised", exits[0])
        if scope.body == "Boom":
            failed.append(("Boom", f"body {scope.number}"))
        if failed:
            return ("raised", ("group", tuple(sorted(failed))))
        if scope.body == "Cancelled":
            return ("returned", not outside)
        if scope.noticed and outside:
            return ("raised", ("Cancelled", ""))
        return ("returned", False)
