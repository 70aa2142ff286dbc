"""What a scope raises, what it swallows, and what it does to siblings and body."""

from __future__ import annotations

import contextlib
import signal
import threading
import time

import pytest

import tether
from support import Unraisables, await_event, dedicated, here, poll


class Broken(Exception):
    pass


class Worse(Exception):
    pass


def fail(error=Broken):
    raise error("failed")


def kinds(group):
    return sorted(type(error).__name__ for error in group.exceptions)


def test_failure_of_a_child_is_raised_as_a_group():
    # G2
    with pytest.raises(ExceptionGroup) as caught:
        with tether.scope() as s:
            s.spawn(fail)
    assert kinds(caught.value) == ["Broken"]


def test_grouped_failure_names_its_spawn_site_and_its_frames():
    # G2
    with pytest.raises(ExceptionGroup) as caught:
        with tether.scope() as s:
            _, site = s.spawn(fail), here()
    (error,) = caught.value.exceptions
    assert any(site in note for note in error.__notes__)
    frames, tb = [], error.__traceback__
    while tb is not None:
        frames.append(tb.tb_frame.f_code.co_name)
        tb = tb.tb_next
    assert "fail" in frames


def test_group_can_be_taken_apart_with_except_star():
    seen = []
    try:
        with tether.scope(on_error="wait") as s:
            s.spawn(fail, Broken)
            s.spawn(fail, Worse)
    except* Broken as group:
        seen += kinds(group)
    except* Worse as group:
        seen += kinds(group)
    assert seen == ["Broken", "Worse"]


def test_all_failures_are_raised_when_siblings_are_waited_for():
    # G2
    with pytest.raises(ExceptionGroup) as caught:
        with tether.scope(on_error="wait") as s:
            for _ in range(100):
                s.spawn(fail)
            s.spawn(fail, Worse)
    assert kinds(caught.value) == ["Broken"] * 100 + ["Worse"]


def test_first_failure_cancels_the_siblings():
    # G2, G12: the siblings would sleep for an hour, or never run
    with pytest.raises(ExceptionGroup) as caught:
        with tether.scope() as s:
            handles = [s.options(dedicated=True).spawn(tether.sleep, 3600) for _ in range(10)]
            s.spawn(fail)
    assert kinds(caught.value) == ["Broken"]
    for handle in handles:
        with pytest.raises(tether.TaskKilled):
            handle.join()


def test_failure_does_not_cancel_when_told_to_wait():
    release, ended = threading.Event(), []

    def sibling():
        await_event(release)
        tether.checkpoint()
        ended.append(True)

    with pytest.raises(ExceptionGroup):
        with tether.scope(on_error="wait") as s:
            s.options(dedicated=True).spawn(sibling)
            failed = s.options(dedicated=True).spawn(fail)
            poll(failed.done, "the failure")
            tether.checkpoint()
            release.set()
    assert ended == [True]


def test_failure_of_a_child_makes_checkpoints_of_the_body_raise():
    # G2: the Cancelled of the body is not a failure of its own
    reached = []
    with pytest.raises(ExceptionGroup) as caught:
        with tether.scope() as s:
            failed = s.options(dedicated=True).spawn(fail)
            poll(failed.done, "the failure")
            try:
                tether.checkpoint()
            except tether.Cancelled:
                reached.append("cancelled")
                raise
    assert reached == ["cancelled"]
    assert kinds(caught.value) == ["Broken"]


def test_failure_of_a_child_wakes_a_sleeping_body():
    # G12
    with pytest.raises(ExceptionGroup) as caught:
        with tether.scope() as s:
            s.options(dedicated=True).spawn(fail)
            tether.sleep(3600)
    assert kinds(caught.value) == ["Broken"]


def test_failure_of_a_child_wakes_a_joining_body():
    # G12
    with pytest.raises(ExceptionGroup) as caught:
        with tether.scope() as s:
            sleeper = s.options(dedicated=True).spawn(tether.sleep, 3600)
            s.options(dedicated=True).spawn(fail)
            sleeper.join()
    assert "Broken" in kinds(caught.value)
    assert set(kinds(caught.value)) <= {"Broken", "TaskKilled"}


def test_body_is_free_again_after_the_scope():
    with pytest.raises(ExceptionGroup):
        with tether.scope() as s:
            s.spawn(fail)
    assert tether.checkpoint() is None
    assert tether.sleep(0) is None


# ---- the body -------------------------------------------------------------------------------------------------------


def test_exception_of_the_body_is_always_grouped():
    # G2, as asyncio.TaskGroup
    with pytest.raises(ExceptionGroup) as caught:
        with tether.scope():
            raise Worse("body")
    assert kinds(caught.value) == ["Worse"]


def test_exception_of_the_body_cancels_the_children_and_joins_them():
    # G2
    with pytest.raises(ExceptionGroup) as caught:
        with tether.scope() as s:
            handles = [s.options(dedicated=True).spawn(tether.sleep, 3600) for _ in range(10)]
            raise Worse("body")
    assert kinds(caught.value) == ["Worse"]
    assert all(handle.done() for handle in handles)


def test_exception_of_the_body_is_grouped_with_those_of_the_children():
    # G2
    with pytest.raises(ExceptionGroup) as caught:
        with tether.scope(on_error="wait") as s:
            failed = s.options(dedicated=True).spawn(fail)
            poll(failed.done, "the failure")
            raise Worse("body")
    assert kinds(caught.value) == ["Broken", "Worse"]


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_exit_and_interrupt_of_the_body_are_raised_bare(error):
    ended = []

    def sibling():
        try:
            tether.sleep(3600)
        finally:
            ended.append(True)

    started = threading.Event()
    with pytest.raises(error):
        with tether.scope() as s:
            s.options(dedicated=True).spawn(lambda: (started.set(), sibling()))
            await_event(started)
            raise error
    assert ended == [True]


def test_group_of_the_body_stays_a_group_inside():
    with pytest.raises(ExceptionGroup) as caught:
        with tether.scope():
            raise ExceptionGroup("inner", [Broken()])
    (inner,) = caught.value.exceptions
    assert kinds(inner) == ["Broken"]


# ---- collected failures ---------------------------------------------------------------------------------------------


def test_failure_that_was_joined_is_not_raised_again():
    # G2: only failures that nobody collected
    for on_error in ("wait", "cancel"):
        with tether.scope(on_error=on_error) as s:
            handle = s.spawn(fail)
            with pytest.raises(Broken):
                handle.join()
        with pytest.raises(tether.ReapedError):
            handle.join()


def test_failure_taken_as_an_exit_value_is_not_raised_again():
    with tether.scope(on_error="wait") as s:
        outcome = s.spawn(fail).exit_value()
    assert outcome.reason is tether.KillReason.EXCEPTION


def test_failure_collected_by_a_sibling_is_not_raised_again():
    def sibling(handle):
        with contextlib.suppress(Broken):
            handle.join()

    with tether.scope(on_error="wait") as s:
        s.spawn(sibling, s.spawn(fail))


def test_failure_that_escapes_the_body_through_join_is_grouped_once():
    # G2
    with pytest.raises(ExceptionGroup) as caught:
        with tether.scope() as s:
            s.spawn(fail).join()
    assert kinds(caught.value) == ["Broken"]


def test_failure_that_was_raised_in_the_group_is_collected():
    with pytest.raises(ExceptionGroup):
        with tether.scope() as s:
            handle = s.spawn(fail)
    with pytest.raises(tether.ReapedError):
        handle.join()


# ---- exit and interrupt of a child ----------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()], ids=lambda error: type(error).__name__)
def test_exit_and_interrupt_of_a_child_are_raised_bare_after_all_have_joined(error):
    ended = []

    def sibling():
        try:
            tether.sleep(3600)
        finally:
            ended.append(True)

    started = threading.Event()

    def child():
        await_event(started)
        raise error

    with pytest.raises(type(error)) as caught:
        with tether.scope() as s:
            s.options(dedicated=True).spawn(lambda: (started.set(), sibling()))
            s.options(dedicated=True).spawn(child)
    assert caught.value is error
    assert ended == [True]


def test_exit_of_a_child_wins_over_failures_and_they_are_reported():
    # G6: the exit is raised bare, so the failure has to be told in another way
    with Unraisables() as unraisable, pytest.raises(SystemExit):
        with tether.scope(on_error="wait") as s:
            s.spawn(fail)
            s.spawn(fail, SystemExit)
    assert unraisable.types == [Broken]


def test_collected_exit_of_a_child_is_not_raised_again():
    with tether.scope(on_error="wait") as s:
        handle = s.spawn(fail, SystemExit)
        with pytest.raises(SystemExit):
            handle.join()


def test_other_base_exception_of_a_child_makes_a_base_group():
    class Odd(BaseException):
        pass

    with pytest.raises(BaseExceptionGroup) as caught:
        with tether.scope() as s:
            s.spawn(fail, Odd)
    assert kinds(caught.value) == ["Odd"]


# ---- cancel ---------------------------------------------------------------------------------------------------------


def test_cancelled_scope_ends_silently():
    # G12
    with tether.scope() as s:
        handles = [s.options(dedicated=True).spawn(tether.sleep, 3600) for _ in range(5)]
        s.cancel()
    assert all(handle.done() for handle in handles)
    for handle in handles:
        with pytest.raises(tether.TaskKilled):
            handle.join()


def test_cancelled_scope_ends_its_body_silently():
    passed = []
    with tether.scope() as s:
        s.cancel()
        passed.append("before")
        tether.checkpoint()
        passed.append("after")
    assert passed == ["before"]
    tether.checkpoint()


def test_scope_may_be_cancelled_by_a_child():
    with tether.scope() as s:
        s.spawn(s.cancel)
        tether.sleep(3600)


def test_scope_may_be_cancelled_by_a_foreign_thread():
    with tether.scope() as s:
        thread = threading.Thread(target=s.cancel)
        thread.start()
        tether.sleep(3600)
    thread.join()


def test_cancelling_an_outer_scope_ends_the_inner_one():
    passed = []
    with tether.scope() as outer:
        with tether.scope() as inner:
            inner.options(dedicated=True).spawn(tether.sleep, 3600)
            outer.cancel()
            tether.sleep(3600)
            passed.append("inner body")
        passed.append("outer body")
        tether.checkpoint()
        passed.append("after checkpoint")
    assert "inner body" not in passed
    assert "after checkpoint" not in passed


def test_cancelling_an_inner_scope_spares_the_outer_one():
    passed = []
    with tether.scope() as outer:
        with tether.scope() as inner:
            inner.cancel()
            tether.sleep(3600)
            passed.append("never")
        tether.checkpoint()
        passed.append(outer.spawn(int, 5).join())
    assert passed == [5]


def test_child_cancelled_alone_is_no_failure():
    # G2
    with tether.scope() as s:
        handle = s.options(dedicated=True).spawn(tether.sleep, 3600)
        sibling = s.spawn(int, 5)
        assert handle.cancel()
        assert sibling.join() == 5
    with pytest.raises(tether.TaskKilled):
        handle.join()


def test_cancelled_scope_still_raises_failures_of_its_children():
    # G2: a failure nobody collected is not silent
    started = threading.Event()

    def child():
        try:
            started.set()
            tether.sleep(3600)
        finally:
            fail()

    with pytest.raises(ExceptionGroup) as caught:
        with tether.scope() as s:
            s.options(dedicated=True).spawn(child)
            await_event(started)
            s.cancel()
    assert kinds(caught.value) == ["Broken"]


def test_cancelled_task_cancels_and_joins_its_scopes():
    # G2, G12
    started, ended = threading.Event(), []

    def child():
        try:
            started.set()
            tether.sleep(3600)
        finally:
            ended.append(True)

    def opener():
        with tether.scope() as s:
            s.options(dedicated=True).spawn(child)

    guard = dedicated(opener)
    await_event(started)
    guard.cancel()
    with pytest.raises(tether.TaskKilled):
        guard.join()
    assert ended == [True]


def test_spawn_on_a_cancelled_scope_never_runs_or_is_refused():
    ran = []
    with tether.scope() as s:
        s.cancel()
        with contextlib.suppress(tether.Cancelled, tether.TetherError):
            s.spawn(ran.append, 1)
    assert ran == []


# ---- timeout --------------------------------------------------------------------------------------------------------


def test_scope_that_overruns_cancels_joins_and_raises_timeout_error():
    # G12: on a slow machine the time is up before the child has started, and then it never does
    steps = []

    def child():
        steps.append("started")
        try:
            tether.sleep(3600)
        finally:
            steps.append("ended")

    with pytest.raises(TimeoutError):
        with tether.scope(timeout=0.1) as s:
            s.options(dedicated=True).spawn(child)
    assert steps in ([], ["started", "ended"])


def test_timeout_ends_the_body_too():
    with pytest.raises(TimeoutError):
        with tether.scope(timeout=0.05):
            tether.sleep(3600)


def test_timeout_of_a_child_without_checkpoints_names_it():
    # it cannot be bounded: the scope waits, and says for which one
    started, release, overrun = threading.Event(), threading.Event(), threading.Event()

    def stubborn():
        started.set()
        await_event(release)

    def opener():
        with tether.scope(timeout=1.0) as s:
            s.options(name="the-stubborn-one", dedicated=True).spawn(stubborn)
            await_event(started)
            try:
                tether.sleep(3600)
            finally:
                overrun.set()

    guard = dedicated(opener)
    await_event(overrun)
    poll(lambda: guard.task.state is tether.TaskState.BLOCKED, "the opener to wait at the end of its scope")
    release.set()
    with pytest.raises(TimeoutError, match="the-stubborn-one"):
        guard.join()


def test_scope_that_ends_in_time_does_not_raise():
    with tether.scope(timeout=3600) as s:
        s.spawn(int)
    tether.checkpoint()


def test_timeout_of_zero_has_already_passed():
    with pytest.raises(TimeoutError):
        with tether.scope(timeout=0) as s:
            s.options(dedicated=True).spawn(tether.sleep, 3600)


def test_inner_timeout_spares_the_outer_scope():
    with tether.scope() as outer:
        with pytest.raises(TimeoutError):
            with tether.scope(timeout=0.02):
                tether.sleep(3600)
        tether.checkpoint()
        assert outer.spawn(int, 6).join() == 6


def test_failures_are_not_lost_when_the_scope_overruns():
    # G2
    started = []

    def child():
        started.append(True)
        try:
            tether.sleep(3600)
        finally:
            fail()

    with pytest.raises((TimeoutError, ExceptionGroup)) as caught:
        with tether.scope(timeout=0.1) as s:
            s.options(dedicated=True).spawn(child)
    seen, todo, found = set(), [caught.value], False
    while todo:
        error = todo.pop()
        if error is not None and id(error) not in seen:
            seen.add(id(error))
            found = found or isinstance(error, Broken)
            todo += [error.__cause__, error.__context__, *getattr(error, "exceptions", ())]
    assert found == bool(started), "the failure of the child was lost"


# ---- groups of groups, ends -----------------------------------------------------------------------------------------


def test_failures_of_nested_scopes_nest():
    def child():
        with tether.scope() as inner:
            inner.spawn(fail)

    with pytest.raises(ExceptionGroup) as caught:
        with tether.scope() as s:
            s.spawn(child)
    (inner,) = caught.value.exceptions
    assert isinstance(inner, ExceptionGroup)
    assert kinds(inner) == ["Broken"]


def test_failed_scope_leaves_nothing_open():
    for _ in range(100):
        with pytest.raises(ExceptionGroup):
            with tether.scope() as s:
                for _ in range(10):
                    s.spawn(fail)
    assert tether.statistics().scopes == 0
    assert tether.statistics().tasks_live == 0


def test_handled_exception_around_a_scope_is_its_context():
    with pytest.raises(ExceptionGroup) as caught:
        try:
            raise KeyError("around")
        except KeyError:
            with tether.scope() as s:
                s.spawn(fail)
    assert isinstance(caught.value.__context__, KeyError)


def test_closed_scope_refuses_and_says_so():
    with pytest.raises(ExceptionGroup):
        with tether.scope() as s:
            s.spawn(fail)
    with pytest.raises(tether.ScopeClosedError):
        s.spawn(int)


def test_signal_handler_may_cancel_the_scope():
    # fault 6
    previous = signal.getsignal(signal.SIGUSR1)
    try:
        with tether.scope() as s:
            signal.signal(signal.SIGUSR1, lambda *_: s.cancel())
            handle = s.options(dedicated=True).spawn(tether.sleep, 3600)
            signal.raise_signal(signal.SIGUSR1)
        assert handle.done()
    finally:
        signal.signal(signal.SIGUSR1, previous)


def test_sleep_of_the_body_is_woken_by_no_stale_cancellation():
    for _ in range(100):
        with tether.scope() as s:
            s.cancel()
        before = time.monotonic()
        tether.sleep(0.0001)
        assert time.monotonic() >= before
