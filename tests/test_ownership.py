"""The owner graph: every way a guard can travel, and every way it may not."""

from __future__ import annotations

import functools
import itertools
import sys
import threading

import pytest

import tether
from support import ThreadFailures, Token, await_event, dedicated, poll

SMUGGLED: list[tether.JoinGuard] = []
"""A module global: the capture walk does not enter it, so what lies here has not been moved."""


@pytest.fixture(autouse=True)
def nothing_smuggled():
    yield
    SMUGGLED.clear()


class Carrier:
    """Holds a guard as an ordinary attribute."""

    def __init__(self, guard):
        self.guard = guard

    def method(self):
        return self.guard.join()

    def __call__(self):
        return self.guard.join()


class SlotCarrier:
    """Holds a guard in a slot."""

    __slots__ = ("guard",)

    def __init__(self, guard):
        self.guard = guard

    def method(self):
        return self.guard.join()


def join_it(guard):
    return guard.join()


def by_position(g):
    return join_it, (g,), {}


def by_keyword(g):
    return join_it, (), {"guard": g}


def by_star_keyword(g):
    return (lambda **kwargs: kwargs["any"].join()), (), {"any": g}


def by_closure(g):
    return (lambda: g.join()), (), {}


def by_inner_closure(g):
    def outer():
        def inner():
            return g.join()

        return inner()

    return outer, (), {}


def by_closure_container(g):
    held = {"key": [g]}
    return (lambda: held["key"][0].join()), (), {}


def by_closure_function(g):
    def inner():
        return g.join()

    return (lambda: inner()), (), {}


def by_default(g):
    def entry(guard=g):
        return guard.join()

    return entry, (), {}


def by_keyword_default(g):
    def entry(*, guard=g):
        return guard.join()

    return entry, (), {}


def by_container_default(g):
    def entry(guards=[g]):  # noqa: B006
        return guards[0].join()

    return entry, (), {}


def by_bound_self(g):
    return Carrier(g).method, (), {}


def by_bound_slot_self(g):
    return SlotCarrier(g).method, (), {}


def by_callable_instance(g):
    return Carrier(g), (), {}


def by_partial(g):
    return functools.partial(join_it, g), (), {}


def by_partial_keyword(g):
    return functools.partial(join_it, guard=g), (), {}


def by_nested_partial(g):
    return functools.partial(functools.partial(lambda a, b, c: b[0].join(), 1), [g]), (2,), {}


def by_partial_of_method(g):
    return functools.partial(Carrier(g).method), (), {}


def by_list(g):
    return (lambda box: box[0].join()), ([g],), {}


def by_tuple(g):
    return (lambda box: box[1].join()), ((0, g),), {}


def by_dict_value(g):
    return (lambda box: box["k"].join()), ({"k": g},), {}


def by_dict_key(g):
    return (lambda box: next(iter(box)).join()), ({g: "v"},), {}


def by_set(g):
    return (lambda box: box.pop().join()), ({g},), {}


def by_frozenset(g):
    return (lambda box: next(iter(box)).join()), (frozenset([g]),), {}


def by_nested_containers(g):
    return (lambda box: box[0]["k"][1][0].join()), ([{"k": (1, [g])}],), {}


def by_function_argument(g):
    return (lambda call: call()), ((lambda: g.join()),), {}


def by_bound_method_of_the_guard(g):
    return g.join, (), {}


WAYS = [
    by_position,
    by_keyword,
    by_star_keyword,
    by_closure,
    by_inner_closure,
    by_closure_container,
    by_closure_function,
    by_default,
    by_keyword_default,
    by_container_default,
    by_bound_self,
    by_bound_slot_self,
    by_callable_instance,
    by_partial,
    by_partial_keyword,
    by_nested_partial,
    by_partial_of_method,
    by_list,
    by_tuple,
    by_dict_value,
    by_dict_key,
    by_set,
    by_frozenset,
    by_nested_containers,
    by_function_argument,
    by_bound_method_of_the_guard,
]


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__)
def way(request):
    return request.param


# ---- ways to travel -------------------------------------------------------------------------------------------------


def test_guard_moves_to_the_task_that_captures_it(way):
    # G3
    release = threading.Event()

    def inner_entry():
        await_event(release)
        return "inner"

    inner = dedicated(inner_entry)
    entry, args, kwargs = way(inner)
    outer = tether.spawn(entry, *args, **kwargs)
    assert inner.task.parent == outer.task
    for attempt in (inner.join, inner.exit_value, inner.detach, lambda: inner.send(outer.task)):
        with pytest.raises(tether.OwnershipError):
            attempt()
    release.set()
    assert outer.join() == "inner"


def test_guard_moves_to_a_dedicated_task_and_to_the_task_of_a_scope(way):
    # G3
    entry, args, kwargs = way(tether.spawn(int, 3))
    assert dedicated(entry, *args, **kwargs).join() == 3
    entry, args, kwargs = way(tether.spawn(int, 4))
    with tether.scope() as s:
        child = s.spawn(entry, *args, **kwargs)
    assert child.join() == 4


def test_guard_of_another_owner_cannot_be_captured(way):
    # fault 4, G3: refused, and nothing has changed or run
    stranger_has, release = threading.Event(), threading.Event()
    box = []

    def stranger():
        guard = tether.spawn(int, 5)
        box.append(guard)
        stranger_has.set()
        await_event(release)
        return guard.join()

    holder = dedicated(stranger)
    await_event(stranger_has)
    mine = tether.spawn(int, 6)
    entry, args, kwargs = way(box.pop())
    live = tether.statistics().tasks_live
    with pytest.raises(tether.OwnershipError):
        tether.spawn(entry, mine, *args, **kwargs)
    with pytest.raises(tether.OwnershipError):
        tether.spawn(entry, *args, mine, **kwargs)
    assert tether.statistics().tasks_live <= live
    assert mine.task.parent is None
    assert mine.join() == 6
    del entry, args, kwargs
    release.set()
    assert holder.join() == 5


def test_all_guards_of_a_container_move_together():
    # G3
    release = threading.Event()

    def entry(box):
        await_event(release)
        return sum(guard.join() for guard in box)

    guards = [tether.spawn(int, n) for n in range(100)]
    outer = tether.spawn(entry, list(guards))
    for guard in guards:
        with pytest.raises(tether.OwnershipError):
            guard.join()
    release.set()
    assert outer.join() == sum(range(100))


def test_one_guard_may_be_captured_twice_by_one_task():
    guard = tether.spawn(int, 7)
    assert tether.spawn(lambda first, rest: first is rest[0] and first.join(), guard, [guard]).join() == 7


def test_deep_and_self_referential_containers_are_walked():
    # fault 26
    guard = tether.spawn(int, 8)
    deep = [guard]
    for _ in range(20_000):
        deep = [deep]
    deep.append(deep)

    def dig(box):
        while isinstance(box, list):
            box = box[0]
        return box.join()

    assert tether.spawn(dig, deep).join() == 8
    while isinstance(deep, list):  # taken apart level by level, so that no destructor has to recurse
        deep = deep.pop(0)


def test_guard_travels_through_many_hands():
    def pass_on(n, guard):
        return guard.join() if n == 0 else tether.spawn(pass_on, n - 1, guard).join()

    assert pass_on(50, tether.spawn(int, 9)) == 9


def test_captured_guard_that_the_task_ignores_is_joined_with_it():
    # G1: the last reference goes when the arguments are released, on the task that owns it
    ended = threading.Event()
    tether.spawn(lambda guard: None, dedicated(ended.set)).join()
    await_event(ended)


# ---- results, leftovers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrap", "unwrap"),
    [
        (lambda g: g, lambda r: r),
        (lambda g: [g], lambda r: r[0]),
        (lambda g: (1, {"k": [g]}), lambda r: r[1]["k"][0]),
        (Carrier, lambda r: r.guard),
        (lambda g: functools.partial(join_it, g), lambda r: r.args[0]),
        (lambda g: lambda: g, lambda r: r()),
    ],
    ids=["bare", "list", "nested", "instance", "partial", "closure"],
)
def test_result_brings_its_guards_to_the_joiner(wrap, unwrap):
    # G3
    def make():
        return wrap(tether.spawn(int, 10))

    for spawn in (tether.spawn, dedicated):
        guard = unwrap(spawn(make).join())
        assert guard.task.parent is None
        assert guard.join() == 10
        guard = unwrap(spawn(make).exit_value().value)
        assert guard.join() == 10


def test_result_brings_its_guards_to_a_joining_task():
    # G3
    def make():
        return tether.spawn(int, 11)

    def joiner():
        guard = tether.spawn(make).join()
        assert guard.task.parent == tether.current()
        return guard.join()

    assert dedicated(joiner).join() == 11


def test_result_of_a_scope_child_brings_its_guards():
    # G3
    with tether.scope() as s:
        guard = s.spawn(lambda: tether.spawn(int, 12)).join()
        assert guard.join() == 12
        child = s.spawn(lambda: [tether.spawn(int, 13)])
    assert child.join()[0].join() == 13


def test_leftover_guards_pass_to_the_owner_of_the_ended_task():
    # G3
    left = []

    def leave():
        left.append(tether.spawn(int, 14))

    tether.spawn(leave).join()
    assert left[0].task.parent is None
    assert left.pop().join() == 14

    def between():
        tether.spawn(leave).join()
        assert left[0].task.parent == tether.current()
        return left.pop().join()

    assert dedicated(between).join() == 14


def test_leftover_guards_of_a_failed_task_pass_on_too():
    # G3
    left = []

    def leave():
        left.append(tether.spawn(int, 15))
        raise ValueError("after leaving it")

    with pytest.raises(ValueError, match="after leaving it"):
        tether.spawn(leave).join()
    assert left.pop().join() == 15


# ---- smuggling ------------------------------------------------------------------------------------------------------


def test_smuggled_guard_is_refused_in_the_wrong_task():
    # fault 4
    release = threading.Event()
    SMUGGLED.append(dedicated(await_event, release))

    def thief():
        guard = SMUGGLED[0]
        refused = 0
        for attempt in (
            guard.join,
            lambda: guard.join(timeout=0),
            guard.exit_value,
            guard.detach,
            lambda: guard.send(tether.current()),
            lambda: tether.spawn(join_it, guard),
        ):
            with pytest.raises(tether.OwnershipError):
                attempt()
            refused += 1
        return refused

    assert dedicated(thief).join() == 6
    assert tether.spawn(thief).join() == 6
    assert SMUGGLED[0].task.parent is None
    release.set()
    assert SMUGGLED.pop().join() is None


def test_smuggled_guard_answers_what_is_open_to_anyone():
    # fault 4, G3
    SMUGGLED.append(dedicated(tether.sleep, 3600))

    def stranger():
        guard = SMUGGLED[0]
        return guard.done(), guard.task.is_alive(), guard.is_static, guard.cancel("by a stranger")

    assert dedicated(stranger).join() == (False, True, True, True)
    with pytest.raises(tether.TaskKilled):
        SMUGGLED.pop().join()


def test_task_cannot_join_its_own_guard():
    # fault 4, G3
    box, given = [], threading.Event()

    def entry():
        await_event(given)
        with pytest.raises(tether.OwnershipError):
            box[0].join()
        return "went on"

    box.append(dedicated(entry))
    given.set()
    assert box[0].join() == "went on"
    box.clear()


# ---- send -----------------------------------------------------------------------------------------------------------


class Mailbox:
    """A dedicated task that joins the one guard it is handed."""

    def __init__(self):
        self.box, self.given = [], threading.Event()
        self.guard = dedicated(self._entry, self.box, self.given)

    @staticmethod
    def _entry(box, given):
        await_event(given)
        return box.pop().join() if box else None

    def finish(self):
        self.given.set()
        return self.guard.join()


def test_sent_guard_belongs_to_the_receiver():
    # G3
    receiver, guard = Mailbox(), tether.spawn(int, 16)
    guard.send(receiver.guard.task)
    assert guard.task.parent == receiver.guard.task
    with pytest.raises(tether.OwnershipError):
        guard.join()
    receiver.box.append(guard)
    del guard
    assert receiver.finish() == 16


def test_guard_cannot_be_sent_to_its_own_task():
    # fault 3
    receiver = Mailbox()
    with pytest.raises(tether.OwnershipError):
        receiver.guard.send(receiver.guard.task)
    assert receiver.guard.task.parent is None
    assert receiver.finish() is None


def test_guard_cannot_be_sent_below_its_own_task():
    # fault 3
    ready, release, refs = threading.Event(), threading.Event(), []

    def child():
        refs.append(tether.current())
        ready.set()
        await_event(release)

    def parent():
        return dedicated(child).join()

    guard = dedicated(parent)
    await_event(ready)
    with pytest.raises(tether.OwnershipError):
        guard.send(refs[0])
    assert guard.task.parent is None
    release.set()
    assert guard.join() is None


def test_two_guards_cannot_own_each_other():
    # fault 3: both sides intact
    a, b = Mailbox(), Mailbox()
    a.guard.send(b.guard.task)
    with pytest.raises(tether.OwnershipError):
        b.guard.send(a.guard.task)
    assert b.guard.task.parent is None
    assert a.guard.task.parent == b.guard.task
    b.box.append(a.guard)
    a.given.set()
    assert b.finish() is None


def test_ring_of_guards_is_refused_at_its_last_link():
    # fault 3
    boxes = [Mailbox() for _ in range(6)]
    for giver, taker in itertools.pairwise(boxes):
        giver.guard.send(taker.guard.task)
        taker.box.append(giver.guard)
    with pytest.raises(tether.OwnershipError):
        boxes[-1].guard.send(boxes[0].guard.task)
    for box in boxes:
        box.given.set()
    assert boxes[-1].guard.join() is None


def test_guard_cannot_be_captured_below_its_own_task(way):
    # fault 3: the task offers its own guard to its child, in every way
    box, given = [], threading.Event()

    def entry():
        await_event(given)
        call, args, kwargs = way(box[0])
        with pytest.raises(tether.OwnershipError):
            tether.spawn(call, *args, **kwargs)
        return "refused"

    guard = dedicated(entry)
    box.append(guard)
    given.set()
    assert guard.join() == "refused"
    box.clear()


def test_sending_by_a_stranger_is_refused():
    # fault 4, G3
    receiver = Mailbox()
    target = receiver.guard.task
    SMUGGLED.append(tether.spawn(int, 17))

    def stranger():
        with pytest.raises(tether.OwnershipError):
            SMUGGLED[0].send(target)

    dedicated(stranger).join()
    assert SMUGGLED.pop().join() == 17
    assert receiver.finish() is None


def test_send_to_a_scope_makes_it_wait():
    # G2, G3
    ended = threading.Event()
    release = threading.Event()

    def entry():
        await_event(release)
        ended.set()

    guard = dedicated(entry)
    with tether.scope() as s:
        guard.send(s)
        release.set()
    assert ended.is_set()
    assert guard.done()


def test_failure_of_a_guard_sent_to_a_scope_is_raised_by_it():
    # G2
    release = threading.Event()

    def entry():
        await_event(release)
        raise ValueError("sent")

    guard = dedicated(entry)
    with pytest.raises(ExceptionGroup) as caught:
        with tether.scope() as s:
            guard.send(s)
            release.set()
    assert [type(error) for error in caught.value.exceptions] == [ValueError]


def test_send_to_a_closed_scope_is_refused():
    with tether.scope() as s:
        pass
    guard = tether.spawn(int, 18)
    with pytest.raises(tether.ScopeClosedError):
        guard.send(s)
    assert guard.join() == 18


def test_send_to_a_scope_of_its_own_task_is_refused():
    # fault 3
    box, given, offered = [], threading.Event(), threading.Event()

    def entry():
        with tether.scope() as s:
            box.append(s)
            given.set()
            await_event(offered)

    guard = dedicated(entry)
    await_event(given)
    with pytest.raises(tether.OwnershipError):
        guard.send(box.pop())
    offered.set()
    assert guard.join() is None


def test_send_to_an_ended_task_is_refused():
    ended = tether.spawn(int)
    ended.join()
    guard = tether.spawn(int, 19)
    with pytest.raises(tether.TetherError):
        guard.send(ended.task)
    assert guard.join() == 19


def test_send_to_something_else_is_a_type_error():
    guard = tether.spawn(int, 20)
    for bad in (None, 1, "task", threading.current_thread(), guard):
        with pytest.raises(TypeError):
            guard.send(bad)
    assert guard.join() == 20


def test_send_of_a_reaped_guard_is_refused():
    receiver, guard = Mailbox(), tether.spawn(int)
    guard.join()
    with pytest.raises(tether.ReapedError):
        guard.send(receiver.guard.task)
    receiver.finish()


def test_moves_are_all_or_nothing():
    # G3: the last of 50 guards belongs to somebody else
    taken, release, box = threading.Event(), threading.Event(), []

    def stranger():
        guard = tether.spawn(int, 21)
        box.append(guard)
        taken.set()
        await_event(release)
        return guard.join()

    holder = dedicated(stranger)
    await_event(taken)
    mine = [tether.spawn(int, n) for n in range(49)]
    ran = []
    with pytest.raises(tether.OwnershipError):
        tether.spawn(ran.append, [*mine, box[0]])
    with pytest.raises(tether.OwnershipError):
        tether.spawn(ran.append, {"first": box[0], "rest": mine})
    with tether.scope() as s, pytest.raises(tether.OwnershipError):
        s.spawn(ran.append, [*mine, box[0]])
    assert [guard.join() for guard in mine] == list(range(49))
    box.clear()
    release.set()
    assert holder.join() == 21
    assert ran == []


def test_refused_spawn_makes_no_ring_though_others_move_guards_meanwhile():
    # G3: what it was given hangs under a task that never will be, while Python code of the refusal runs
    release, left = threading.Event(), []
    ended = dedicated(lambda: left.append(dedicated(await_event, release)))
    poll(ended.done, "the end of the first owner")
    inner, owned = left.pop(), tether.Owned(1)

    def meanwhile(frame, event, arg):
        if "_lending" in frame.f_code.co_filename:
            sys.setprofile(None)
            ended.send(inner.task)

    with owned.share():
        sys.setprofile(meanwhile)
        try:
            with pytest.raises(tether.BorrowError):
                tether.spawn(print, inner, owned)
        finally:
            sys.setprofile(None)
    assert inner.task.parent is None
    release.set()
    assert inner.join() is None
    assert ended.join() is None


def test_racing_moves_have_one_winner():
    # G3
    for _ in range(100):
        guard = tether.spawn(int, 22)
        barrier = threading.Barrier(2)
        outcomes = []

        def mover(guard=guard, barrier=barrier, outcomes=outcomes):
            barrier.wait(60)
            try:
                outcomes.append(tether.spawn(join_it, guard).join())
            except (tether.OwnershipError, tether.ReapedError) as error:
                outcomes.append(type(error).__name__)

        threads = [threading.Thread(target=mover) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert outcomes.count(22) == 1, outcomes


# ---- scope handles and static guards --------------------------------------------------------------------------------


def test_scope_handle_may_be_joined_by_any_task_that_holds_it():
    with tether.scope() as s:
        first = s.spawn(int, 23)
        second = s.spawn(lambda handle: handle.join(), first)
        third = s.spawn(lambda: second.join())
        assert third.join() == 23


def test_scope_handle_cannot_be_sent_or_detached():
    # G4
    receiver = Mailbox()
    with tether.scope() as s:
        handle = s.spawn(int, 24)
        assert handle.is_static is False
        with pytest.raises(tether.OwnershipError):
            handle.detach()
        with pytest.raises(tether.OwnershipError):
            handle.send(receiver.guard.task)
        assert handle.join() == 24
    receiver.finish()


def test_static_guard_may_be_detached():
    # G4
    ended = threading.Event()
    guard = tether.spawn(ended.set)
    assert guard.is_static is True
    ref = guard.detach()
    assert type(ref) is tether.TaskRef
    await_event(ended)
    poll(lambda: not ref.is_alive(), "the end of the detached task")
    for attempt in (guard.join, guard.exit_value, guard.detach):
        with pytest.raises(tether.TetherError):
            attempt()


def test_dropping_a_detached_guard_waits_for_nothing():
    # G4: only this thread can release the task
    release, ended = threading.Event(), threading.Event()

    def entry():
        await_event(release)
        ended.set()

    guard = dedicated(entry)
    ref = guard.detach()
    del guard
    assert ref.is_alive()
    release.set()
    await_event(ended)


def test_failure_of_a_detached_task_goes_to_the_threading_hook():
    # G6
    def entry():
        raise ValueError("detached")

    for spawn in (tether.spawn, dedicated):
        with ThreadFailures() as failures:
            spawn(entry).detach()
            poll(lambda failures=failures: failures.types, "the report")
        assert failures.types == [ValueError]
        assert "detached" in failures.texts[0]


def test_detached_task_may_be_cancelled_through_its_ref():
    with ThreadFailures() as failures:
        ref = dedicated(tether.sleep, 3600).detach()
        assert ref.cancel()
        poll(lambda: not ref.is_alive(), "the end of the detached task")
    assert failures.types == []


def test_guards_of_a_detached_task_are_not_lost():
    # G1
    release, ended, inner_ended = threading.Event(), threading.Event(), threading.Event()

    def inner():
        await_event(release)
        inner_ended.set()

    def outer():
        guard = dedicated(inner)
        ended.set()
        guard.join()

    dedicated(outer).detach()
    await_event(ended)
    release.set()
    await_event(inner_ended)


def test_refused_spawn_keeps_no_reference():
    token, holder_has, release, box = Token(), threading.Event(), threading.Event(), []

    def stranger():
        box.append(tether.spawn(int))
        holder_has.set()
        await_event(release)
        box.pop().join()

    holder = dedicated(stranger)
    await_event(holder_has)
    before = sys.getrefcount(token)
    for _ in range(10):
        with pytest.raises(tether.OwnershipError):
            tether.spawn(join_it, token, [token, box[0]])
    assert sys.getrefcount(token) == before
    release.set()
    holder.join()
