"""`JoinGuard.exit_value`: how a task ended, as a value."""

from __future__ import annotations

import threading
import weakref

import pytest

import tether
from support import PLACES, WAIT, Token, await_event, dedicated, here, poll
from tether import Completed, Killed, KillReason


def describe(outcome):
    match outcome:
        case Completed(value):
            return "completed", value
        case Killed(KillReason.EXCEPTION, exception):
            return "failed", exception
        case Killed(KillReason.REQUESTED, _):
            return "cancelled", None
    return "unknown", outcome


@pytest.fixture(params=sorted(PLACES))
def ended(request):
    """Make the exit value of a function run in one of the three places."""

    def end(fn, *args):
        match request.param:
            case "lazy":
                return tether.spawn(fn, *args).exit_value()
            case "elsewhere":
                return tether.spawn(fn, *args).exit_value(timeout=WAIT)
        return dedicated(fn, *args).exit_value()

    return end


def test_completed_task_gives_its_value(ended):
    token = Token()
    outcome = ended(lambda: token)
    assert describe(outcome) == ("completed", token)
    assert outcome.value is token


@pytest.mark.parametrize(
    "error",
    [ValueError("x"), SystemExit(1), KeyboardInterrupt(), GeneratorExit(), StopIteration(), BaseException()],
    ids=lambda error: type(error).__name__,
)
def test_failed_task_gives_its_exception_and_raises_nothing(error, ended):
    def entry():
        raise error

    outcome = ended(entry)
    assert describe(outcome) == ("failed", error)
    assert outcome.reason is KillReason.EXCEPTION
    assert outcome.exception is error
    assert error.__traceback__ is not None


def test_exception_in_an_exit_value_names_the_spawn_site():
    def entry():
        raise ValueError

    guard, site = tether.spawn(entry), here()
    outcome = guard.exit_value()
    assert any(site in note for note in outcome.exception.__notes__)


def test_cancelled_task_gives_killed_on_request():
    guard = dedicated(tether.sleep, 3600)
    assert guard.cancel()
    assert describe(guard.exit_value()) == ("cancelled", None)


def test_task_that_ignores_its_cancellation_has_completed():
    # G12: cancel is a request
    release = threading.Event()

    def entry():
        await_event(release)
        return "to the end"

    guard = dedicated(entry)
    poll(lambda: guard.task.state is tether.TaskState.RUNNING, "the start")
    guard.cancel()
    release.set()
    assert describe(guard.exit_value()) == ("completed", "to the end")


def test_failure_while_a_cancelled_task_cleans_up_is_not_lost():
    # G6
    started = threading.Event()

    def entry():
        try:
            started.set()
            tether.sleep(3600)
        finally:
            raise ValueError("while cleaning up")

    guard = dedicated(entry)
    await_event(started)
    guard.cancel()
    kind, error = describe(guard.exit_value())
    assert kind == "failed"
    assert str(error) == "while cleaning up"


def test_exit_value_reaps():
    # G9
    guard = tether.spawn(int, 1)
    assert guard.exit_value() == Completed(1)
    with pytest.raises(tether.ReapedError):
        guard.exit_value()
    with pytest.raises(tether.ReapedError):
        guard.join()


def test_exit_value_times_out_and_leaves_the_guard_armed():
    release = threading.Event()
    guard = dedicated(await_event, release)
    with pytest.raises(TimeoutError):
        guard.exit_value(0)
    with pytest.raises(TimeoutError):
        guard.exit_value(timeout=0.001)
    release.set()
    assert guard.exit_value(timeout=WAIT) == Completed(None)


def test_exit_value_is_kept_until_it_is_reaped_and_then_released():
    # G9
    guard = dedicated(Token)
    poll(guard.done, "the end of the task")
    outcome = guard.exit_value()
    watcher = weakref.ref(outcome.value)
    assert watcher() is not None
    del outcome
    poll(lambda: watcher() is None, "the value released although the guard lives")
    assert guard.done()


def test_exit_values_compare_and_show_what_they_hold():
    assert Completed(1) == Completed(1)
    assert Completed(1) != Completed(2)
    assert "1" in repr(Completed(1))
    assert "Completed" in repr(Completed(1))
    error = ValueError("shown")
    killed = Killed(KillReason.EXCEPTION, error)
    assert killed == Killed(KillReason.EXCEPTION, error)
    assert "shown" in repr(killed)
    assert Completed(1) != killed


def test_exit_values_are_immutable():
    with pytest.raises(AttributeError):
        Completed(1).value = 2
    with pytest.raises(AttributeError):
        Killed(KillReason.EXCEPTION, ValueError()).reason = None
