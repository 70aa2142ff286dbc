"""Kill: cancel, and an exception in running Python code; it reaches its target or nobody."""

from __future__ import annotations

import threading

import pytest

import tether
from support import await_event, dedicated, poll
from tether import Completed, Killed, KillReason


def test_kill_ends_a_loop_without_checkpoints():
    started = threading.Event()

    def entry():
        started.set()
        while True:
            pass

    guard = dedicated(entry)
    await_event(started)
    assert guard.kill() is True
    with pytest.raises(tether.TaskKilled) as caught:
        guard.join()
    assert caught.value.reason is KillReason.REQUESTED


def test_kill_wakes_a_sleeping_task():
    # kill implies cancel
    started = threading.Event()

    def entry():
        started.set()
        tether.sleep(3600)

    guard = dedicated(entry)
    await_event(started)
    guard.kill()
    match guard.exit_value():
        case Killed(KillReason.REQUESTED, _):
            pass
        case other:
            pytest.fail(f"unexpected {other}")


def test_kill_passes_except_exception_and_runs_finally():
    started, steps = threading.Event(), []

    def entry():
        try:
            while True:
                try:
                    started.set()
                    while True:
                        pass
                except Exception as error:
                    steps.append(error)
        finally:
            steps.append("finally")

    guard = dedicated(entry)
    await_event(started)
    guard.kill()
    with pytest.raises(tether.TaskKilled):
        guard.join()
    assert steps == ["finally"]


def test_killed_task_sees_killed_task_or_cancelled():
    started, seen = threading.Event(), []

    def entry():
        try:
            started.set()
            while True:
                pass
        except BaseException as error:
            seen.append(type(error))
            raise

    guard = dedicated(entry)
    await_event(started)
    guard.kill()
    with pytest.raises(tether.TaskKilled):
        guard.join()
    assert seen == [tether.KilledTask]


def test_task_killed_before_it_started_never_runs():
    # G7, fault 28
    never = 0
    for _ in range(200):
        ran = []
        guard = tether.spawn(ran.append, 1)
        guard.kill()
        match guard.exit_value():
            case Killed(KillReason.REQUESTED, _):
                never += ran == []
            case Completed(None):
                assert ran == [1]
    assert never > 0


def test_kill_after_the_end_is_false():
    # fault 28
    guard = dedicated(int, 6)
    poll(guard.done, "the end of the task")
    assert guard.kill() is False
    assert guard.join() == 6
    assert guard.kill() is False


def test_kill_racing_the_end_reaches_the_target_or_nobody():
    # faults 28 and 33: the thread of the target runs another task next
    for n in range(300):
        started = threading.Event()

        def short(started=started, n=n):
            started.set()
            return sum(range(n))

        def bystander():
            return sum(range(2_000))

        guard = dedicated(short)
        await_event(started)
        guard.kill()
        other = dedicated(bystander)
        match guard.exit_value():
            case Completed(value):
                assert value == sum(range(n))
            case Killed(KillReason.REQUESTED, _):
                pass
            case unexpected:
                pytest.fail(f"unexpected {unexpected}")
        assert other.join() == sum(range(2_000))


def test_kill_twice_is_one_kill():
    # fault 28
    started, seen = threading.Event(), []

    def entry():
        try:
            started.set()
            while True:
                pass
        except tether.KilledTask as error:
            seen.append(error)

    guard = dedicated(entry)
    await_event(started)
    guard.kill()
    guard.kill()
    guard.exit_value()
    assert len(seen) >= 1
    assert dedicated(lambda: sum(range(10_000))).join() == sum(range(10_000))


def test_kill_spares_the_task_that_runs_in_place_above_its_target():
    # fault 33: the child has no checkpoint, so the parent's cancellation does not end it either
    child_started, go_on = threading.Event(), threading.Event()
    child_ended = []

    def child():
        child_started.set()
        while not go_on.is_set():
            pass
        child_ended.append(tether.current().id)

    def parent():
        tether.spawn(child).join()
        while True:
            tether.checkpoint()

    for _ in range(20):
        child_started.clear()
        go_on.clear()
        child_ended.clear()
        guard = dedicated(parent)
        await_event(child_started)
        assert guard.kill() is True
        go_on.set()
        with pytest.raises(tether.TaskKilled):
            guard.join()
        assert len(child_ended) == 1


def test_kill_does_not_reach_the_joiner():
    # fault 33: the killed task may run in place on the joiner's own stack
    for _ in range(20):
        started = threading.Event()

        def entry(started=started):
            started.set()
            while True:
                pass

        guard = tether.spawn(entry)
        killer = threading.Thread(target=lambda guard=guard, started=started: (await_event(started), guard.kill()))
        killer.start()
        with pytest.raises(tether.TaskKilled):
            guard.join()
        assert sum(range(10_000)) == 49_995_000
        killer.join()


def test_task_that_swallows_its_kill_is_not_lost():
    # G7, G9: it ends on its own terms, and says how
    started = threading.Event()

    def entry():
        try:
            started.set()
            while True:
                pass
        except tether.KilledTask:
            return "swallowed"

    guard = dedicated(entry)
    await_event(started)
    guard.kill()
    match guard.exit_value():
        case Completed("swallowed") | Killed(KillReason.REQUESTED, _):
            pass
        case other:
            pytest.fail(f"unexpected {other}")
