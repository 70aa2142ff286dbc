"""Waits that could never end raise `DeadlockError`, and waits that can end do not."""

from __future__ import annotations

import contextlib
import threading

import pytest

import tether
from support import WAIT, await_event, dedicated, poll


def join_or_tell(handle):
    """Join; a deadlock is told, not raised. What the other side tells is handed on."""
    try:
        return handle.join()
    except tether.DeadlockError as error:
        return error


def test_scope_task_that_joins_itself():
    handles, given = [], threading.Event()

    def entry():
        await_event(given)
        return join_or_tell(handles[0])

    with tether.scope() as s:
        handles.append(s.options(dedicated=True).spawn(entry))
        given.set()
    error = handles[0].join()
    assert isinstance(error, tether.DeadlockError)
    assert handles[0].task in error.cycle


def test_queued_scope_task_that_joins_itself_in_place():
    handles = []

    def entry():
        return join_or_tell(handles[0])

    for _ in range(50):
        handles.clear()
        with tether.scope() as s:
            gate = threading.Event()
            handles.append(s.spawn(lambda gate=gate: (await_event(gate), entry())[1]))
            gate.set()
            assert isinstance(handles[0].join(), tether.DeadlockError)


@pytest.mark.parametrize("size", [2, 3, 10, 100])
@pytest.mark.parametrize("kind", ["lazy", "dedicated"])
def test_ring_of_tasks_that_join_one_another(size, kind):
    # one of them is told, all of them end
    handles, given = [], threading.Event()

    def entry(n):
        await_event(given)
        return join_or_tell(handles[(n + 1) % size])

    with tether.scope() as s:
        spawn = s.options(dedicated=True).spawn if kind == "dedicated" else s.spawn
        handles += [spawn(entry, n) for n in range(size)]
        given.set()
    told = []
    for handle in handles:
        with contextlib.suppress(tether.ReapedError):  # its neighbour may have its value
            told.append(handle.join())
    errors = [value for value in told if isinstance(value, tether.DeadlockError)]
    refs = {handle.task for handle in handles}
    for error in errors:
        assert error.cycle
        assert all(type(ref) is tether.TaskRef for ref in error.cycle)
        assert set(error.cycle) <= refs
    assert errors


def test_ring_names_every_task_in_it():
    handles, barrier, errors = [], threading.Barrier(4), []  # three tasks and the test

    def entry(n):
        barrier.wait(WAIT)
        try:
            handles[(n + 1) % 3].join()
        except tether.DeadlockError as error:
            errors.append(error)

    with tether.scope() as s:
        handles += [s.options(dedicated=True, name=f"ring-{n}").spawn(entry, n) for n in range(3)]
        barrier.wait(WAIT)
    assert len(errors) >= 1
    assert set(errors[0].cycle) == {handle.task for handle in handles}
    assert all(f"ring-{n}" in str(errors[0]) for n in range(3))


def test_child_that_joins_its_ancestor():
    # the ancestor has to wait for it at the end of its scope
    handles, given = [], threading.Event()

    def descend(depth):
        if depth == 0:
            return join_or_tell(handles[0])
        with tether.scope() as inner:
            child = inner.options(dedicated=True).spawn(descend, depth - 1)
        return child.join()

    def ancestor():
        await_event(given)
        return descend(3)

    with tether.scope() as s:
        handles.append(s.options(dedicated=True).spawn(ancestor))
        given.set()
    assert isinstance(handles[0].join(), tether.DeadlockError)


def test_child_that_joins_its_ancestor_through_plain_guards():
    # the task owns the guard of the one that waits for it
    handles, given = [], threading.Event()

    def ancestor():
        await_event(given)
        return tether.spawn(lambda: join_or_tell(handles[0])).join()

    with tether.scope() as s:
        handles.append(s.options(dedicated=True).spawn(ancestor))
        given.set()
    assert isinstance(handles[0].join(), tether.DeadlockError)


def test_join_with_a_timeout_in_a_ring_ends_either_way():
    handles, barrier = [], threading.Barrier(3)  # two tasks and the test

    def entry(n):
        barrier.wait(WAIT)
        try:
            return handles[1 - n].join(timeout=0.2)
        except (tether.DeadlockError, TimeoutError, tether.ReapedError) as error:
            return type(error).__name__

    with tether.scope() as s:
        handles += [s.options(dedicated=True).spawn(entry, n) for n in range(2)]
        barrier.wait(WAIT)
    assert all(handle.done() for handle in handles)


def test_deadlock_is_an_ordinary_failure():
    # it can be caught, and the guards are as before
    handles, given = [], threading.Event()

    def entry():
        await_event(given)
        with pytest.raises(tether.DeadlockError):
            handles[0].join()
        with pytest.raises(tether.DeadlockError):
            handles[0].exit_value()
        return tether.spawn(int, 3).join()

    with tether.scope() as s:
        handles.append(s.options(dedicated=True).spawn(entry))
        given.set()
    assert handles[0].join() == 3


def test_chain_of_joins_is_no_deadlock():
    with tether.scope() as s:
        handle = s.spawn(int, 1)
        for _ in range(100):
            handle = s.spawn(lambda previous: previous.join() + 1, handle)
    assert handle.join() == 101


def test_diamond_of_joins_is_no_deadlock():
    release = threading.Event()

    def bottom():
        await_event(release)
        return 5

    def side(handle):
        try:
            return handle.join()
        except tether.ReapedError:
            return 0

    for kind in ("lazy", "dedicated"):
        release.clear()
        with tether.scope() as s:
            spawn = s.options(dedicated=True).spawn if kind == "dedicated" else s.spawn
            base = spawn(bottom)
            left, right = spawn(side, base), spawn(side, base)
            top = spawn(lambda left=left, right=right: left.join() + right.join())
            release.set()
        assert top.join() == 5


def test_joining_a_sibling_that_waits_for_a_third_is_no_deadlock():
    release = threading.Event()
    with tether.scope() as s:
        third = s.options(dedicated=True).spawn(await_event, release)
        second = s.options(dedicated=True).spawn(third.join)
        first = s.options(dedicated=True).spawn(second.join)
        poll(lambda: first.task.state is tether.TaskState.BLOCKED, "the first to wait")
        release.set()
    assert first.join() is None


def test_root_waiting_for_a_task_that_waits_for_it_through_foreign_means_is_not_reported():
    # tether sees joins, not events: no false alarm
    release = threading.Event()
    guard = dedicated(await_event, release)
    with pytest.raises(TimeoutError):
        guard.join(timeout=0.01)
    release.set()
    guard.join()
