"""Machines of random acts: tasks, guards, owners and scopes do what the model (world.py) says, step by step."""

from __future__ import annotations

from effort import effort
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from stage import Stage
from world import Actor, Scope, Task, Wait

MOST_TASKS = 10
MOST_SCOPES = 6


class Ground(RuleBasedStateMachine):
    """Spawning, ending and looking; the machines add acts of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = Stage()
        self.sound = True

    def pick(self, data, things: list, what: str):
        return things[data.draw(st.integers(0, len(things) - 1), what)]

    def actor(self, data) -> Actor:
        return self.pick(data, self.stage.idle(), "actor")

    def held(self) -> list[Task]:
        return list(self.stage.guards)

    def movable(self) -> list[Task]:
        return [task for task in self.held() if not self.stage.waited_for(task)]

    def droppable(self) -> list[Task]:
        inside = {inner for task in self.stage.world.tasks if not task.reaped for inner in task.in_value}
        return [task for task in self.movable() if task not in inside]

    def idle_tasks(self) -> list[Task]:
        return [actor for actor in self.stage.idle() if isinstance(actor, Task) and not actor.scopes]

    def some(self, data, things: list) -> list:
        if not things:
            return []
        chosen = data.draw(st.lists(st.integers(0, len(things) - 1), max_size=3, unique=True), "guards")
        return [things[at] for at in chosen]

    def room(self) -> bool:
        return sum(task.live for task in self.stage.world.tasks) < MOST_TASKS

    @precondition(room)
    @rule(data=st.data(), dedicated=st.booleans())
    def spawn(self, data, dedicated) -> None:
        self.stage.spawn(self.actor(data), dedicated=dedicated, into=None, give=self.some(data, self.movable()))

    @precondition(room)
    @rule(data=st.data())
    def spawn_and_join(self, data) -> None:
        self.stage.spawn(self.actor(data), dedicated=False, into=None, give=[], join=True)

    @precondition(lambda self: self.held())
    @rule(data=st.data(), exit_value=st.booleans(), timeout=st.sampled_from([None, None, 0]))
    def join(self, data, exit_value, timeout) -> None:
        task = self.pick(data, self.held(), "guard")
        self.stage.join(self.actor(data), task, exit_value=exit_value, timeout=timeout)

    @precondition(lambda self: self.idle_tasks())
    @rule(data=st.data(), how=st.sampled_from(["value", "boom", "guards", "cancelled"]))
    def finish(self, data, how) -> None:
        task = self.pick(data, self.idle_tasks(), "task")
        self.stage.finish(task, how, self.some(data, self.movable()) if how == "guards" else [])

    @invariant()
    def agrees(self) -> None:
        self.sound = False
        self.stage.compare()
        self.sound = True

    def teardown(self) -> None:
        try:
            if self.sound:
                self.stage.strike()
        finally:
            self.stage.close()


class Ownership(Ground):
    """Guards that are passed around, dropped, collected, detached; results and leftovers (G1, G3, G4, G5, G6, G9)."""

    @precondition(lambda self: self.movable())
    @rule(data=st.data())
    def send(self, data) -> None:
        tasks: list = [None, *self.stage.world.tasks]
        self.stage.send(self.actor(data), self.pick(data, self.movable(), "guard"), self.pick(data, tasks, "to"))

    @precondition(lambda self: self.movable())
    @rule(data=st.data())
    def detach(self, data) -> None:
        self.stage.detach(self.actor(data), self.pick(data, self.movable(), "guard"))

    @precondition(lambda self: self.droppable())
    @rule(data=st.data())
    def drop(self, data) -> None:
        self.stage.drop(self.actor(data), self.pick(data, self.droppable(), "guard"))

    @precondition(lambda self: self.droppable())
    @rule(data=st.data())
    def make_garbage(self, data) -> None:
        self.stage.make_garbage(self.actor(data), self.pick(data, self.droppable(), "guard"))


class Scopes(Ground):
    """Blocks that nest, fail, are cancelled and left, with handles that others join (G2, G3, G12; DeadlockError)."""

    def open_scopes(self) -> list[Scope]:
        return [scope for scope in self.stage.world.scopes if scope.state != "closed"]

    def leavers(self) -> list[Actor]:
        """Who may leave: not where two waits would learn of one deadlock together, nor under an own child's feet."""
        world = self.stage.world
        able = []
        for actor in self.stage.idle():
            if not actor.scopes:
                continue
            scope = actor.scopes[-1]
            if any(world.inside(at, scope) for at in actor.stack()):
                continue
            if scope.alive() and self.strands(actor, scope) > 1:
                continue
            able.append(actor)
        return able

    def strands(self, actor: Actor, scope: Scope) -> int:
        actor.wait = Wait("leave", scope)
        try:
            return len(self.stage.world.stranded(actor))
        finally:
            actor.wait = None

    @precondition(lambda self: len(self.open_scopes()) < MOST_SCOPES)
    @rule(data=st.data(), wait_all=st.booleans())
    def open(self, data, wait_all) -> None:
        self.stage.open(self.actor(data), wait_all=wait_all)

    @precondition(lambda self: self.stage.world.scopes and self.room())
    @rule(data=st.data(), dedicated=st.booleans())
    def spawn_into(self, data, dedicated) -> None:
        scope = self.pick(data, self.stage.world.scopes, "scope")
        self.stage.spawn(self.actor(data), dedicated=dedicated, into=scope, give=self.some(data, self.movable()))

    @precondition(lambda self: self.leavers())
    @rule(data=st.data(), body=st.sampled_from([None, None, "Boom", "Cancelled"]))
    def leave(self, data, body) -> None:
        self.stage.leave(self.pick(data, self.leavers(), "leaver"), body)

    @precondition(lambda self: self.movable() and self.stage.world.scopes)
    @rule(data=st.data())
    def send_to_scope(self, data) -> None:
        scope = self.pick(data, self.stage.world.scopes, "scope")
        self.stage.send(self.actor(data), self.pick(data, self.movable(), "guard"), scope)

    @precondition(lambda self: self.stage.world.scopes)
    @rule(data=st.data())
    def cancel_scope(self, data) -> None:
        self.stage.cancel(self.actor(data), self.pick(data, self.stage.world.scopes, "scope"))

    @precondition(lambda self: self.stage.world.tasks)
    @rule(data=st.data())
    def cancel_task(self, data) -> None:
        self.stage.cancel(self.actor(data), self.pick(data, self.stage.world.tasks, "task"))

    @rule(data=st.data())
    def checkpoint(self, data) -> None:
        self.stage.checkpoint(self.actor(data))

    @precondition(lambda self: self.idle_tasks())
    @rule(data=st.data())
    def exit(self, data) -> None:
        self.stage.finish(self.pick(data, self.idle_tasks(), "task"), "exit", [])

    @precondition(lambda self: self.killable())
    @rule(data=st.data())
    def kill(self, data) -> None:
        task = self.pick(data, self.killable(), "task")
        others = [actor for actor in self.stage.idle() if actor is not task]
        if others:
            self.stage.kill(self.pick(data, others, "actor"), task)

    def killable(self) -> list[Task]:
        return [task for task in self.idle_tasks() if task in self.stage.guards]


class Everything(Ownership, Scopes):
    """All acts together."""


TestOwnership = Ownership.TestCase
TestOwnership.settings = effort(60, 30)
TestScopes = Scopes.TestCase
TestScopes.settings = effort(60, 30)
TestEverything = Everything.TestCase
TestEverything.settings = effort(60, 40)
