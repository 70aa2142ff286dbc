"""The stage: carries out with tether what the world predicts, and compares."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import io
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from puppet import PATIENCE, Answer, Boom, Fall, Puppet, describe, entry
from world import Actor, Scope, Task, Wait, World, effective

import tether
from support import poll

ROOT_THREADS = 2
CANCELLED = ("Cancelled", "")


def summary(value: Any) -> Any:
    """An exit value without the guards in it: the ids of their tasks."""
    match value:
        case tether.Completed(inner):
            return ("completed", summary(inner))
        case tether.Killed(reason, error):
            return ("killed", reason.name, None if error is None else describe(error))
        case list():
            return tuple(sorted(guard.task.id for guard in value))
        case _:
            return value


class Stage:
    """The real things, by the world's nodes. The only lasting references to guards are in `guards`."""

    def __init__(self) -> None:
        self.world = World()
        self.already = dataclasses.asdict(tether.statistics())  # left by an example that failed: not this one's fault
        self.puppets: dict[Actor, Puppet] = {}
        self.idents: dict[Actor, int] = {}
        self.guards: dict[Task, tether.JoinGuard[Any]] = {}
        self.refs: dict[Task, tether.TaskRef] = {}
        self.blocks: dict[Scope, tether.Scope] = {}
        self.reports: list[Any] = []
        self.hooked: list[Any] = []
        self.count = 0
        self._saved = (sys.unraisablehook, threading.excepthook)
        sys.unraisablehook = lambda report: self.reports.append(describe(report.exc_value))
        threading.excepthook = lambda report: self.hooked.append(describe(report.exc_value))
        for _ in range(ROOT_THREADS):
            actor, puppet = Actor(self.number()), Puppet()
            self.world.threads.append(actor)
            self.puppets[actor] = puppet
            threading.Thread(target=puppet.run, name=f"root-{actor.number}", daemon=True).start()
            self.idents[actor] = puppet.answer().value

    def number(self) -> int:
        self.count += 1
        return self.count

    def idle(self) -> list[Actor]:
        return [actor for actor in self.world.actors() if actor.wait is None]

    def waited_for(self, task: Task) -> bool:
        return any(actor.wait is not None and actor.wait.target is task for actor in self.world.actors())

    # ---- orders -----------------------------------------------------------------------------------------------------

    def check(self, actor: Actor, answer: Answer, expected: set[tuple[str, Any]]) -> tuple[str, Any]:
        got = (answer.kind, answer.value)
        named = (answer.kind, answer.value[0]) if answer.kind == "raised" else got
        assert any(got == one or named == one for one in expected), (
            f"actor {actor.number}: {got}, not one of {expected}"
        )
        return got

    def do(self, actor: Actor, order: Callable[[], Any], expected: set[tuple[str, Any]]) -> tuple[str, Any]:
        """An order that does not wait."""
        puppet = self.puppets[actor]
        puppet.tell(order)
        return self.check(actor, puppet.answer(), expected)

    # ---- spawning ---------------------------------------------------------------------------------------------------

    def spawn(self, actor: Actor, *, dedicated: bool, into: Scope | None, give: list[Task], join: bool = False) -> None:
        world = self.world
        refused = world.move_refusals(actor, give, into if into is not None else actor.node)
        if into is not None and into.state == "closed":
            refused = refused | {"ScopeClosedError"}
        task = Task(self.number(), owner=into if into is not None else actor.node, in_value=[])
        puppet = Puppet()

        def order() -> Any:
            make = self.blocks[into].options if into is not None else tether.options
            guard = make(dedicated=dedicated, name=f"p{task.number}").spawn(
                entry, puppet, [self.guards[given] for given in give]
            )
            self.guards[task] = guard
            self.refs[task] = guard.task
            return summary(guard.join()) if join else None

        if refused:
            error = self.do(actor, order, {("raised", name) for name in refused})
            if error[1][0] == "ScopeClosedError":
                world.move(give, actor.node)  # they were on their way, and came back
            return
        world.tasks.append(task)
        if into is not None:
            into.children.append(task)
        world.move(give, task)
        self.puppets[task] = puppet
        if into is not None and into.cancelled:
            assert not join
            self.do(actor, order, {("returned", None)})
            poll(lambda: self.refs[task].is_alive() is False, "the end of what is never to start", PATIENCE)
            assert puppet.silent(), "a task spawned into a cancelled scope has run"
            world.end(task, ("killed", None), [])
            self.wake()
            return
        if not join:
            self.do(actor, order, {("returned", None)})
            self.begun(task, puppet)
            return
        cancelled = actor.cancelled()
        self.puppets[actor].tell(order)
        actor.wait = Wait("join", task)
        self.begun(task, puppet)
        if cancelled:  # then it is not joined, but runs by itself
            actor.wait = None
            self.check(actor, self.puppets[actor].answer(), {("raised", "Cancelled")})
        else:
            self.blocked(actor)

    def begun(self, task: Task, puppet: Puppet) -> None:
        self.idents[task] = puppet.answer().value
        poll(lambda: task in self.refs, "the spawn to return", PATIENCE)  # without a GIL the task may be faster
        here = [
            a for a in self.world.actors() if a is not task and a.above is None and self.idents[a] == self.idents[task]
        ]
        if here:
            (task.below,) = here
            assert task.below.wait is not None, "a task runs in place above one that does not wait"
            task.below.above = task

    # ---- waits ------------------------------------------------------------------------------------------------------

    def blocked(self, actor: Actor) -> None:
        """Until a waiting task really sleeps: who comes second into a ring is then no accident."""
        if not isinstance(actor, Task):
            return  # nobody waits for a thread of the program
        ref, puppet = self.refs[actor], self.puppets[actor]

        def asleep() -> bool:
            if actor.above is not None or not puppet.silent():
                return True
            if ref.state is not tether.TaskState.BLOCKED:
                return False
            stat = Path(f"/proc/self/task/{ref.native_id}/stat").read_text()
            return stat.rpartition(")")[2].split()[0] == "S"

        poll(asleep, "the wait to begin", PATIENCE)

    def start_wait(self, actor: Actor, wait: Wait, order: Callable[[], Any]) -> None:
        """An order that waits, because its target has not ended."""
        world, puppet = self.world, self.puppets[actor]
        if wait.kind == "join" and actor.cancelled():
            self.do(actor, order, {("raised", "Cancelled")})
            return
        if wait.kind != "leave" and world.deadlocked(actor, wait.target):
            if wait.kind == "join":
                self.do(actor, order, {("raised", "DeadlockError")})
            else:
                self.do(actor, order, {("returned", None)})
                world.loosen(wait.target)
            return
        actor.wait = wait
        stranded = world.stranded(actor)
        puppet.tell(order)
        if not stranded:
            self.blocked(actor)
        for other in stranded:
            self.strand(other)
        self.wake()

    def strand(self, other: Actor) -> None:
        wait = other.wait
        assert wait is not None
        other.wait = None
        if wait.kind == "join":
            self.check(other, self.puppets[other].answer(), {("raised", "DeadlockError")})
        else:
            self.check(other, self.puppets[other].answer(), {("returned", None)})
            self.world.loosen(wait.target)

    def wake(self) -> None:
        """End every wait that has to end now; each end may end others."""
        again = True
        while again:
            again = False
            for actor in self.world.actors():
                if actor.wait is not None and actor.above is None:
                    again = self.wake_one(actor, actor.wait) or again

    def wake_one(self, actor: Actor, wait: Wait) -> bool:
        target = wait.target
        if isinstance(target, Scope):
            if target.alive():
                if target.noticed or not actor.cancelled():
                    return False
                # Nobody waits for a thread to begin to leave (see `blocked`): its children must not end first.
                block = self.blocks[target]
                poll(lambda: block.cancelled, f"who leaves scope {target.number} to notice that", PATIENCE)
                target.noticed = target.cancelled = True
                return True
            for other in self.rivals(target):  # whoever is faster has the failure
                assert other.wait is not None
                self.wake_one(other, other.wait)
            actor.wait = None
            expected = {self.world.settle(target)}
            if not isinstance(actor, Task) and expected == {("raised", CANCELLED)}:
                expected.add(("returned", False))  # all had ended before it looked: see `blocked`
            self.check(actor, self.puppets[actor].answer(), expected)
            return True
        if wait.kind == "drop":
            if target.live:
                return False
            actor.wait = None
            self.check(actor, self.puppets[actor].answer(), {("returned", None)})
            if not target.reaped:
                self.world.report(target)
                self.world.take(actor, target)
            return True
        outcomes = set()
        if not target.live:
            mates = any(a is not actor and a.wait and a.wait.target is target for a in self.world.actors())
            if target.reaped or target.loose or mates or self.is_left(target):
                outcomes.add(("raised", "ReapedError"))
            if not target.reaped and not target.loose:
                outcomes.add(self.outcome(target, wait.exit_value))
        if actor.cancelled():
            outcomes.add(("raised", "Cancelled"))
        if not outcomes:
            return False
        actor.wait = None
        got = self.check(actor, self.puppets[actor].answer(), outcomes)
        if got[0] == "raised" and got[1][0] in ("ReapedError", "Cancelled") and got != self.outcome(target, False):
            return True
        if not target.live:
            self.world.take(actor, target)
        return True

    def is_left(self, task: Task) -> bool:
        """Does who leaves its scope, this very moment, want its failure, too?"""
        scope = task.owner
        leaves = any(a.wait and a.wait.kind == "leave" and a.wait.target is scope for a in self.world.actors())
        return leaves and isinstance(scope, Scope) and task in scope.failures and not scope.alive()

    def rivals(self, scope: Scope) -> list[Actor]:
        """Who waits for the handles of tasks whose failures leaving the scope would raise."""
        waiting = [actor for actor in self.world.actors() if actor.wait is not None and actor.above is None]
        return [actor for actor in waiting if actor.wait.kind == "join" and actor.wait.target in scope.failures]

    def outcome(self, task: Task, exit_value: bool) -> tuple[str, Any]:
        if task.outcome is None:
            return ("none", None)
        kind, value = task.outcome
        if kind == "value":
            value = tuple(sorted(self.refs[inner].id for inner in value)) if isinstance(value, list) else value
            return ("returned", ("completed", value) if exit_value else value)
        if kind == "failed":
            return ("returned", ("killed", "EXCEPTION", value)) if exit_value else ("raised", value)
        return ("returned", ("killed", "REQUESTED", value)) if exit_value else ("raised", "TaskKilled")

    # ---- what actors do ---------------------------------------------------------------------------------------------

    def join(self, actor: Actor, task: Task, *, exit_value: bool = False, timeout: float | None = None) -> None:
        def order() -> Any:
            guard = self.guards[task]
            return summary((guard.exit_value if exit_value else guard.join)(timeout))

        refused = "ReapedError" if task.reaped or task.loose else None
        if refused is None and not task.scoped:
            refused = self.world.refusal(actor, task)
        if refused is not None:
            self.do(actor, order, {("raised", refused)})
        elif not task.live:
            expected = self.outcome(task, exit_value)
            self.world.take(actor, task)
            self.do(actor, order, {expected})
        elif timeout is not None:
            self.do(actor, order, {("raised", "Cancelled" if actor.cancelled() else "TimeoutError")})
        else:
            self.start_wait(actor, Wait("join", task, exit_value), order)

    def drop(self, actor: Actor, task: Task) -> None:
        def order() -> None:
            del self.guards[task]

        world = self.world
        if task.scoped:
            self.do(actor, order, {("returned", None)})
            world.drop_handle(task)
        elif not task.armed:
            self.do(actor, order, {("returned", None)})
        elif not world.owns(actor, task) or any(at is task for at in self.way_up(actor)):
            self.do(actor, order, {("returned", None)})
            world.loosen(task)
        elif not task.live:
            self.do(actor, order, {("returned", None)})
            world.report(task)
            world.take(actor, task)
        else:
            self.start_wait(actor, Wait("drop", task), order)
            poll(lambda: task not in self.guards, "the drop to begin", PATIENCE)

    @staticmethod
    def way_up(actor: Actor) -> list[Any]:
        way, at = [], actor.node
        while at is not None:
            way.append(at)
            at = at.owner
        return way

    def make_garbage(self, actor: Actor, task: Task) -> None:
        """The guard in a cycle, and the collector (G5): nobody waits, whoever owns it."""

        def order() -> None:
            cycle: list[Any] = [self.guards.pop(task)]
            cycle.append(cycle)
            del cycle
            gc.collect()

        self.do(actor, order, {("returned", None)})
        if task.scoped:
            self.world.drop_handle(task)
        elif task.armed:
            self.world.loosen(task)

    def send(self, actor: Actor, task: Task, to: Task | Scope | None) -> None:
        world = self.world
        if isinstance(to, Scope):
            target: Any = self.blocks[to]
        else:
            target = self.refs[to] if to is not None else None
        refused: set[str] = set()
        if task.scoped:
            refused = {"OwnershipError"}
        elif task.reaped or task.loose:
            refused = {"ReapedError"}
        else:
            refused = world.move_refusals(actor, [task], to)
            if isinstance(to, Task) and not to.live:
                refused |= {"OwnershipError"}
            if isinstance(to, Scope) and to.state == "closed":
                refused |= {"ScopeClosedError"}

        def order() -> None:
            self.guards[task].send(ROOT if target is None else target)

        if refused:
            self.do(actor, order, {("raised", name) for name in refused})
            return
        self.do(actor, order, {("returned", None)})
        if isinstance(to, Scope):
            world.send_to_scope(task, to)
        else:
            world.move([task], to)
        self.wake()

    def detach(self, actor: Actor, task: Task) -> None:
        def order() -> None:
            self.guards[task].detach()

        refused = "OwnershipError" if task.scoped else self.world.refusal(actor, task)
        if refused is not None:
            self.do(actor, order, {("raised", refused)})
            return
        self.do(actor, order, {("returned", None)})
        self.world.loosen(task, detached=True)

    def open(self, actor: Actor, *, wait_all: bool) -> None:
        scope = Scope(self.number(), owner=actor.node, opener=actor, wait_all=wait_all)

        def order() -> None:
            self.blocks[scope] = tether.scope(f"s{scope.number}", on_error="wait" if wait_all else "cancel").__enter__()

        self.do(actor, order, {("returned", None)})
        actor.scopes.append(scope)
        self.world.scopes.append(scope)

    def leave(self, actor: Actor, body: str | None) -> None:
        scope = actor.scopes[-1]
        self.world.leave(scope, body)
        error = {None: None, "Boom": Boom(f"body {scope.number}"), "Cancelled": tether.Cancelled()}[body]

        def order() -> Any:
            return bool(self.blocks[scope].__exit__(type(error) if error else None, error, None))

        if scope.alive():
            self.start_wait(actor, Wait("leave", scope), order)
        else:
            self.do(actor, order, {self.world.settle(scope)})
        self.wake()

    def finish(self, task: Task, how: str, result: list[Task]) -> None:
        """The last order of a task that has no block open."""
        tag, world = f"task {task.number}", self.world
        outcome: tuple[str, Any]
        match how:
            case "guards":
                fall, outcome = Fall(lambda: [self.guards[inner] for inner in result], None), ("value", list(result))
                task.in_value = list(result)
            case "value":
                fall, outcome = Fall(lambda: tag, None), ("value", tag)
            case "boom":
                fall, outcome = Fall(None, lambda: Boom(tag)), ("failed", ("Boom", tag))
            case "exit":
                fall, outcome = Fall(None, lambda: SystemExit(tag)), ("failed", ("SystemExit", tag))
            case _:
                fall, outcome = Fall(None, tether.Cancelled), ("killed", CANCELLED)
        self.puppets[task].tell(fall)
        world.end(task, outcome, result if how == "guards" else [])
        poll(lambda: not self.refs[task].is_alive(), f"the end of {tag}", PATIENCE)
        self.wake()

    def kill(self, actor: Actor, task: Task) -> None:
        """A task that has no block open and does not wait: it ends, and nobody else notices."""

        def order() -> bool:
            return self.guards[task].kill()

        self.do(actor, order, {("returned", True)})
        if actor is not task:
            self.puppets[task].tell(Fall(tether.checkpoint, None))
        self.world.end(task, ("killed", ("KilledTask", "")), [])
        poll(lambda: not self.refs[task].is_alive(), "the end of the killed task", PATIENCE)
        self.wake()

    def cancel(self, actor: Actor, target: Task | Scope) -> None:
        def order() -> Any:
            return self.blocks[target].cancel() if isinstance(target, Scope) else self.refs[target].cancel()

        if isinstance(target, Scope):
            target.cancelled = True
            self.do(actor, order, {("returned", None)})
        else:
            alive = target.live
            target.cancel_asked = target.cancel_asked or alive
            self.do(actor, order, {("returned", alive)})
        self.wake()

    def checkpoint(self, actor: Actor) -> None:
        self.do(actor, tether.checkpoint, {("raised", "Cancelled") if actor.cancelled() else ("returned", None)})

    # ---- what must always hold --------------------------------------------------------------------------------------

    def compare(self) -> None:
        world = self.world
        for actor in world.actors():
            assert self.puppets[actor].silent(), f"actor {actor.number} answered, and should be waiting or idle"
        expected = {
            "tasks_live": sum(task.live for task in world.tasks),
            "guards": sum(task.armed for task in world.tasks),
            "scopes": sum(scope.state != "closed" for scope in world.scopes),
        }
        expected = {name: value + self.already[name] for name, value in expected.items()}
        seen: dict[str, int] = {}

        def agrees() -> bool:
            stats = tether.statistics()
            seen.update({name: getattr(stats, name) for name in expected})
            return seen == expected

        try:
            poll(agrees, limit=PATIENCE)
        except AssertionError:
            raise AssertionError(f"statistics: {seen}, expected {expected}\n{self.tree()}") from None
        for task in world.tasks:
            self.compare_state(task)
        for task in world.tasks:  # now that each is known to have ended that the model says has
            self.compare_owner(task)
        for scope in world.scopes:
            alive = {task for task in scope.children if task.live}
            assert set(self.blocks[scope].tasks()) == {self.refs[task] for task in alive}, f"children of {scope.number}"
            block = self.blocks[scope]
            poll(
                lambda block=block, scope=scope: block.cancelled is scope.cancelled,
                f"scope {scope.number}: cancelled is {scope.cancelled}",
                PATIENCE,
            )
        self.same("unraisable", self.reports, world.reports)
        self.same("excepthook", self.hooked, world.hooked)

    @staticmethod
    def same(where: str, seen: list[Any], expected: list[Any]) -> None:
        """A report may come an instant after the end it tells of."""
        deadline = time.monotonic() + PATIENCE
        while sorted(seen) != sorted(expected) and time.monotonic() < deadline:
            time.sleep(0.001)
        assert sorted(seen) == sorted(expected), where

    def compare_state(self, task: Task) -> None:
        ref = self.refs[task]
        states = {tether.TaskState.RUNNING, tether.TaskState.BLOCKED}
        if not task.live:
            states = {tether.TaskState.REAPED if task.reaped else tether.TaskState.EXITED}
        poll(lambda: ref.state in states, f"task {task.number}: {ref.state}, not {states}", PATIENCE)

    def compare_owner(self, task: Task) -> None:
        owner = effective(task.owner)
        seen, expected = self.refs[task].parent, self.refs[owner] if owner is not None else None
        assert seen == expected, f"the owner of task {task.number} is {seen}, not {expected}\n{self.tree()}"

    @staticmethod
    def tree() -> str:
        text = io.StringIO()
        tether.dump(text)
        return text.getvalue()

    # ---- the end ----------------------------------------------------------------------------------------------------

    def strike(self) -> None:
        """Let everything end, joining what can be joined; then nothing is left."""
        while any(task.live for task in self.world.tasks) or any(actor.scopes for actor in self.world.threads):
            for actor in self.idle():
                if actor.scopes:
                    self.leave(actor, None)
                    break
                if isinstance(actor, Task):
                    self.finish(actor, "value", [])
                    break
            else:
                raise AssertionError(f"nobody can go on\n{self.tree()}")
        for task in list(self.guards):
            self.join(self.world.threads[0], task)
        self.compare()

    def close(self) -> None:
        """Also after a failure: whatever still sits on the stage is sent home."""
        for ref in self.refs.values():
            ref.cancel()
        for puppet in self.puppets.values():
            puppet.tell(Fall(None, None))
        self.guards.clear()
        self.blocks.clear()
        with contextlib.suppress(AssertionError):  # or the next example would count what is just ending
            poll(lambda: tether.statistics().tasks_live <= self.already["tasks_live"], limit=PATIENCE)
        sys.unraisablehook, threading.excepthook = self._saved


ROOT = tether.current()
"""The root's TaskRef; this module is imported outside of any task."""
