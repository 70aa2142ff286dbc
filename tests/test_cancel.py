"""Cancellation: a request, seen at the next checkpoint, that nobody else feels."""

from __future__ import annotations

import threading
import weakref

import pytest

import tether
from support import PLACES, WAIT, Token, await_event, dedicated, poll
from tether import Completed, Killed, KillReason


def spin(started=None):
    """Run until cancelled."""
    while True:
        if started is not None:
            started.set()
        tether.checkpoint()


# ---- before the start -----------------------------------------------------------------------------------------------


def test_task_cancelled_before_it_started_never_runs():
    # G7: either it had started, or it never runs and says so
    never = 0
    for _ in range(200):
        ran = []
        guard = tether.spawn(ran.append, 1)
        requested = guard.cancel()
        match guard.exit_value():
            case Killed(KillReason.REQUESTED, _):
                assert requested
                assert ran == []
                never += 1
            case Completed(None):
                assert ran == [1]
            case other:
                pytest.fail(f"unexpected {other}")
    assert never > 0


def test_task_cancelled_before_it_started_raises_task_killed():
    # G7, G12
    for _ in range(200):
        ran = []
        guard = tether.spawn(ran.append, 1)
        guard.cancel("changed my mind")
        try:
            guard.join()
        except tether.TaskKilled as killed:
            told = (killed.reason, killed.detail, len(ran))
        else:
            told = None
        assert told == (KillReason.REQUESTED, "changed my mind", 0) if told else ran == [1]


def test_queued_task_is_ended_by_its_cancellation(run_python):
    # G7: one worker, and that one is busy, so the task is still queued
    code = """
        import threading, tether
        from support import await_event

        tether.configure(max_threads=1)
        started, release, ran = threading.Event(), threading.Event(), []

        def block():
            started.set()
            await_event(release)

        blocker = tether.spawn(block)
        await_event(started)
        guard = tether.spawn(ran.append, 1)
        ref = guard.task
        assert ref.state is tether.TaskState.QUEUED, ref.state
        assert tether.statistics().tasks_queued == 1
        assert guard.cancel() is True
        assert guard.cancel() is False
        assert guard.done()
        assert ref.state is tether.TaskState.EXITED, ref.state
        assert tether.statistics().tasks_queued == 0
        try:
            guard.join()
        except tether.TaskKilled as killed:
            assert killed.reason is tether.KillReason.REQUESTED
            assert killed.detail is None
        else:
            raise AssertionError("it was cancelled")
        release.set()
        blocker.join()
        assert ran == []
    """
    run_python(code, check=True)


def test_arguments_of_a_task_that_never_ran_are_released():
    # G9
    for _ in range(50):
        token = Token()
        watcher = weakref.ref(token)
        guard = tether.spawn(lambda token: None, token)
        guard.cancel()
        del token
        guard.exit_value()
        poll(lambda watcher=watcher: watcher() is None, "the argument released")


# ---- while it runs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [lambda: tether.sleep(3600), spin], ids=["sleep", "checkpoint"])
def test_running_task_sees_cancellation_at_its_next_checkpoint(block):
    # G12
    started, seen = threading.Event(), []

    def entry():
        started.set()
        try:
            block()
        except tether.Cancelled as error:
            seen.append(str(error))
            raise

    guard = dedicated(entry)
    await_event(started)
    assert guard.cancel("enough") is True
    with pytest.raises(tether.TaskKilled) as caught:
        guard.join()
    assert caught.value.reason is KillReason.REQUESTED
    assert caught.value.detail == "enough"
    assert seen == ["enough"]


def test_cancellation_wakes_a_joining_task():
    # G12: the task it waits for is not cancelled
    waiting, release = threading.Event(), threading.Event()
    inner_ended = []

    def inner():
        await_event(release)
        inner_ended.append(True)

    def outer():
        child = dedicated(inner)
        waiting.set()
        try:
            child.join()
        except tether.Cancelled:
            release.set()
            raise

    guard = dedicated(outer)
    await_event(waiting)
    guard.cancel()
    with pytest.raises(tether.TaskKilled):
        guard.join()
    assert inner_ended == [True]


def test_cancellation_wakes_a_joiner_with_a_timeout():
    # G12
    waiting, release = threading.Event(), threading.Event()

    def outer():
        child = dedicated(await_event, release)
        waiting.set()
        try:
            child.join(timeout=3600)
        finally:
            release.set()

    guard = dedicated(outer)
    await_event(waiting)
    guard.cancel()
    with pytest.raises(tether.TaskKilled):
        guard.join()


def test_cancellation_is_not_caught_by_except_exception():
    # G12
    started = threading.Event()

    def entry():
        started.set()
        try:
            tether.sleep(3600)
        except Exception as error:
            return error

    guard = dedicated(entry)
    await_event(started)
    guard.cancel()
    with pytest.raises(tether.TaskKilled):
        guard.join()


def test_cancellation_is_raised_at_every_checkpoint():
    # level-triggered: swallowing it once does not end it
    started = threading.Event()

    def entry():
        started.set()
        seen = 0
        for block in (lambda: tether.sleep(3600), tether.checkpoint, lambda: tether.sleep(0), tether.checkpoint):
            try:
                block()
            except tether.Cancelled:
                seen += 1
        return seen

    guard = dedicated(entry)
    await_event(started)
    guard.cancel()
    assert guard.join() == 4


def test_join_of_an_ended_task_is_no_cancellation_point():
    started = threading.Event()

    def entry():
        child = dedicated(int, 5)
        poll(child.done, "the end of the child")
        started.set()
        try:
            tether.sleep(3600)
        except tether.Cancelled:
            return child.join()

    guard = dedicated(entry)
    await_event(started)
    guard.cancel()
    assert guard.join() == 5


def test_cleanup_of_a_cancelled_task_may_open_and_leave_scopes():
    started, ran = threading.Event(), []

    def entry():
        started.set()
        try:
            tether.sleep(3600)
        finally:
            try:
                with tether.scope() as s:
                    s.options(dedicated=True).spawn(ran.append, 1)
            except tether.Cancelled:
                ran.append("cancelled")

    guard = dedicated(entry)
    await_event(started)
    guard.cancel()
    with pytest.raises(tether.TaskKilled):
        guard.join()
    assert tether.statistics().scopes == 0


def test_task_without_checkpoints_runs_to_its_end():
    # G12: a request, not an interruption
    started, release = threading.Event(), threading.Event()

    def entry():
        started.set()
        await_event(release)
        return "ended"

    guard = dedicated(entry)
    await_event(started)
    assert guard.cancel()
    assert not guard.done()
    release.set()
    assert guard.join() == "ended"


def test_joiner_of_a_cancelled_task_gets_task_killed_and_goes_on():
    # `Cancelled` would mean that the joiner itself was cancelled
    started = threading.Event()

    def joiner():
        child = dedicated(spin, started)
        await_event(started)
        child.cancel()
        try:
            child.join()
        except tether.TaskKilled:
            tether.checkpoint()
            return "went on"

    for run in PLACES.values():
        started.clear()
        assert run(joiner) == "went on"


def test_cancelling_a_task_cancels_what_runs_in_place_on_its_stack():
    # Elsewhere it would be the join that is woken; then the child is told to stop
    started, stop = threading.Event(), threading.Event()
    child_saw = []

    def child():
        started.set()
        try:
            while not stop.is_set():
                tether.checkpoint()
        except tether.Cancelled:
            child_saw.append("cancelled")
            raise

    def parent():
        guard = tether.spawn(child)
        try:
            guard.join()
        except tether.Cancelled:
            stop.set()
            raise
        except tether.TaskKilled:
            tether.checkpoint()

    for _ in range(20):
        started.clear()
        stop.clear()
        child_saw.clear()
        guard = dedicated(parent)
        await_event(started)
        guard.cancel()
        with pytest.raises(tether.TaskKilled):
            guard.join()
        assert stop.is_set() or child_saw == ["cancelled"]


# ---- late, repeated, foreign ----------------------------------------------------------------------------------------


def test_cancel_after_the_end_is_false_and_harmless():
    # G12, fault 28
    guard = dedicated(int, 6)
    poll(guard.done, "the end of the task")
    assert guard.cancel() is False
    assert guard.task.cancel() is False
    assert guard.join() == 6
    assert guard.cancel() is False
    assert dedicated(lambda: tether.checkpoint() or "free").join() == "free"


def test_cancel_twice_is_one_cancellation():
    # fault 28
    started = threading.Event()
    guard = dedicated(spin, started)
    await_event(started)
    assert guard.cancel("first") is True
    guard.cancel("second")
    with pytest.raises(tether.TaskKilled):
        guard.join()
    assert dedicated(lambda: tether.checkpoint() or "free").join() == "free"


def test_late_cancels_reach_nobody_else():
    # fault 28: the same thread, and the same task structure, serve the next task
    for _ in range(300):
        first = dedicated(int)
        ref = first.task
        canceller = threading.Thread(target=ref.cancel)
        canceller.start()
        first.exit_value()
        second = dedicated(lambda: tether.checkpoint() or "free")
        ref.cancel()
        assert second.join() == "free"
        canceller.join()


def test_ref_cancels_too():
    ref_of = dedicated(tether.sleep, 3600)
    assert ref_of.task.cancel() is True
    with pytest.raises(tether.TaskKilled):
        ref_of.join()


def test_anyone_may_cancel():
    guard = dedicated(tether.sleep, 3600)
    assert dedicated(lambda ref: ref.cancel(), guard.task).join() is True
    with pytest.raises(tether.TaskKilled):
        guard.join()


def test_task_may_cancel_itself():
    def entry():
        tether.current().cancel("by myself")
        tether.checkpoint()

    for run in PLACES.values():
        with pytest.raises(tether.TaskKilled) as caught:
            run(entry)
        assert caught.value.detail == "by myself"


def test_cancel_reason_must_be_text():
    guard = tether.spawn(int)
    with pytest.raises(TypeError):
        guard.cancel(5)
    guard.join()


def test_five_hundred_sleeping_tasks_are_cancelled_at_once():
    # G12
    guards = [tether.spawn(tether.sleep, 3600) for _ in range(500)]
    for guard in guards:
        guard.cancel()
    for guard in guards:
        with pytest.raises(tether.TaskKilled):
            guard.join(WAIT)


# ---- checkpoint and sleep outside and inside tasks ------------------------------------------------------------------


def test_checkpoint_outside_any_task_does_nothing():
    assert tether.checkpoint() is None


def test_sleep_outside_and_inside_tasks_returns_none():
    assert tether.sleep(0) is None
    assert tether.sleep(0.001) is None
    for run in PLACES.values():
        assert run(tether.sleep, 0.001) is None


@pytest.mark.parametrize(
    ("seconds", "error"), [(-1, ValueError), (float("nan"), ValueError), ("long", TypeError), (None, TypeError)]
)
def test_bad_sleep_is_refused(seconds, error):
    with pytest.raises(error):
        tether.sleep(seconds)
