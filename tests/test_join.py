"""`JoinGuard.join`: results, failures, timeouts, reaping, and who may wait."""

from __future__ import annotations

import asyncio
import threading
import traceback

import pytest

import tether
from support import PLACES, WAIT, Token, await_event, dedicated, here, poll


@pytest.fixture(params=sorted(PLACES))
def run(request):
    return PLACES[request.param]


class Broken(Exception):
    pass


def fail(message="broken"):
    raise Broken(message)


@pytest.mark.parametrize(
    "value", [None, False, (), Ellipsis, NotImplemented, ValueError("a result"), ValueError, "text"], ids=repr
)
def test_join_gives_the_very_object_that_the_task_returned(value, run):
    assert run(lambda: value) is value


def test_join_of_failed_task_raises_its_exception_with_spawn_site():
    error = Broken("mine")

    def entry():
        raise error

    guard, site = tether.spawn(entry), here()
    with pytest.raises(Broken) as caught:
        guard.join()
    assert caught.value is error
    assert [note for note in error.__notes__ if "spawned at" in note and site in note]


def test_join_of_failed_task_shows_the_frames_of_the_task(run):
    with pytest.raises(Broken) as caught:
        run(fail)
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert names[-1] == "fail"
    assert "test_join_of_failed_task_shows_the_frames_of_the_task" in names


def test_join_keeps_cause_and_context_of_the_failure(run):
    def entry():
        try:
            raise KeyError("first")
        except KeyError as first:
            raise Broken("second") from first

    with pytest.raises(Broken) as caught:
        run(entry)
    assert isinstance(caught.value.__cause__, KeyError)
    assert isinstance(caught.value.__context__, KeyError)


@pytest.mark.parametrize(
    "error",
    [
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        StopIteration(5),
        MemoryError(),
        BaseException("bare"),
        BaseExceptionGroup("group", [SystemExit(1)]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_any_exception_is_contained_and_raised_by_join(error, run):
    # fault 29: the thread survives
    def entry():
        raise error

    with pytest.raises(type(error)) as caught:
        run(entry)
    assert caught.value is error
    assert run(int, 6) == 6


def test_failure_that_refuses_notes_is_still_raised(run):
    class Stubborn(Exception):
        def add_note(self, note):
            raise RuntimeError("no notes")

    class Strange(Exception):
        __notes__ = "not a list"

    for kind in (Stubborn, Strange):
        with pytest.raises(kind):
            run(lambda kind=kind: (_ for _ in ()).throw(kind("kept")))


def test_second_join_raises_reaped_error():
    # G9: the exit value is given once
    guard = tether.spawn(int, 1)
    assert guard.join() == 1
    for attempt in (guard.join, guard.exit_value, lambda: guard.join(timeout=1), guard.join):
        with pytest.raises(tether.ReapedError):
            attempt()


def test_second_join_of_a_failed_task_raises_reaped_error():
    # G9
    guard = tether.spawn(fail)
    with pytest.raises(Broken):
        guard.join()
    with pytest.raises(tether.ReapedError):
        guard.join()


def test_reaped_guard_still_answers_harmless_questions():
    guard = tether.spawn(int, 1)
    guard.join()
    assert guard.done()
    assert guard.task.state is tether.TaskState.REAPED
    assert guard.cancel() is False
    assert guard.kill() is False
    assert isinstance(repr(guard), str)


def test_join_times_out_and_leaves_the_guard_armed():
    release = threading.Event()
    guard = dedicated(await_event, release)
    for timeout in (0, 0.0, 0.001):
        with pytest.raises(TimeoutError):
            guard.join(timeout)
        with pytest.raises(TimeoutError):
            guard.join(timeout=timeout)
    assert not guard.done()
    assert tether.statistics().guards == 1
    release.set()
    assert guard.join(WAIT) is None


def test_timed_join_of_a_lazy_task_does_not_run_it_here():
    # A timeout cannot bound what runs on the stack of the one who set it.
    ident = tether.spawn(threading.get_ident).join(timeout=WAIT)
    assert ident != threading.get_ident()


def test_timed_join_of_an_ended_task_needs_no_time():
    guard = dedicated(int, 8)
    poll(guard.done, "the end of the task")
    assert guard.join(timeout=0) == 8


def test_task_may_raise_a_timeout_error_of_its_own():
    error = TimeoutError("the task's own")

    def entry():
        raise error

    guard = tether.spawn(entry)
    with pytest.raises(TimeoutError) as caught:
        guard.join(timeout=WAIT)
    assert caught.value is error
    with pytest.raises(tether.ReapedError):
        guard.join()


@pytest.mark.parametrize("timeout", ["soon", [], object()])
def test_bad_timeout_is_refused_and_changes_nothing(timeout):
    guard = tether.spawn(int, 2)
    with pytest.raises(TypeError):
        guard.join(timeout)
    with pytest.raises(TypeError):
        guard.exit_value(timeout)
    assert guard.join() == 2


def test_timeout_that_is_not_a_number_of_seconds_is_refused():
    guard = tether.spawn(int, 2)
    with pytest.raises(ValueError):
        guard.join(timeout=float("nan"))
    assert guard.join() == 2


def test_very_long_timeout_is_a_wait_without_end():
    assert dedicated(int, 3).join(timeout=1e9) == 3


def test_done_tells_the_end_to_anyone():
    release = threading.Event()
    guard = dedicated(await_event, release)
    assert guard.done() is False
    answers = []
    thread = threading.Thread(target=lambda: answers.append(guard.done()))
    thread.start()
    thread.join()
    assert answers == [False]
    assert dedicated(lambda task: task.is_alive(), guard.task).join() is True
    release.set()
    poll(guard.done, "the end of the task")
    guard.join()


def test_foreign_threads_share_the_root_and_may_join():
    # G3: asyncio.to_thread(guard.join) works
    guard = tether.spawn(int, 11)
    assert asyncio.run(asyncio.to_thread(guard.join)) == 11

    guard = dedicated(int, 12)
    results = []
    thread = threading.Thread(target=lambda: results.append(guard.join()))
    thread.start()
    thread.join()
    assert results == [12]


@pytest.mark.parametrize("spawn", [tether.spawn, dedicated], ids=["lazy", "dedicated"])
def test_of_several_joiners_one_gets_the_value(spawn):
    # G9
    for _ in range(50):
        guard = spawn(Token)
        barrier = threading.Barrier(4)
        values, reaped = [], []

        def joiner(guard=guard, barrier=barrier, values=values, reaped=reaped):
            barrier.wait(WAIT)
            try:
                values.append(guard.join())
            except tether.ReapedError:
                reaped.append(True)

        threads = [threading.Thread(target=joiner) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(values) == 1
        assert len(reaped) == 3


def test_joiners_that_already_wait_all_wake():
    release = threading.Event()
    guard = dedicated(await_event, release)
    ready = threading.Semaphore(0)
    outcomes = []

    def joiner():
        ready.release()
        try:
            outcomes.append(guard.join())
        except tether.ReapedError:
            outcomes.append("reaped")

    threads = [threading.Thread(target=joiner) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert ready.acquire(timeout=WAIT)
    release.set()
    for thread in threads:
        thread.join()
    assert sorted(outcomes, key=str) == [None, "reaped", "reaped"]


def test_join_lets_other_python_threads_run():
    # fault 1: the waiting joiner does not hold the GIL
    progress = threading.Event()
    guard = dedicated(await_event, progress)
    thread = threading.Thread(target=progress.set)
    thread.start()
    guard.join()
    thread.join()


def test_with_guard_joins_at_the_end():
    # G1
    ended = []
    with tether.spawn(ended.append, 1) as guard:
        assert type(guard) is tether.JoinGuard
    assert ended == [1]
    with pytest.raises(tether.ReapedError):
        guard.join()


def test_with_guard_raises_the_failure_of_the_task():
    with pytest.raises(Broken) as caught:
        with tether.spawn(fail):
            pass
    assert any("spawned at" in note for note in caught.value.__notes__)


def test_with_guard_accepts_that_the_body_joined():
    with tether.spawn(int, 9) as guard:
        assert guard.join() == 9


def test_exception_in_the_body_cancels_the_task_and_is_raised():
    # G1, G12: the task would sleep for an hour
    guard = dedicated(tether.sleep, 3600)
    with pytest.raises(KeyError) as caught:
        with guard:
            raise KeyError("body")
    assert type(caught.value) is KeyError
    assert guard.done()


def test_exception_in_the_body_of_a_queued_task_is_raised():
    for _ in range(50):
        ran = []
        with pytest.raises(KeyError):
            with tether.spawn(ran.append, 1) as guard:
                raise KeyError("body")
        assert guard.done()
        assert len(ran) <= 1


def test_result_that_holds_its_own_guard_is_not_kept():
    box = []

    def entry():
        return box

    guard = tether.spawn(entry)
    box.append(guard)
    assert guard.join() is box
    box.clear()


def test_join_inside_the_task_of_a_task():
    def outer():
        inner = tether.spawn(fail, "inner")
        try:
            inner.join()
        except Broken as error:
            return str(error)

    for run in PLACES.values():
        assert run(outer) == "inner"


def test_long_chain_of_results_passes_through():
    def chain(n, value):
        return value if n == 0 else tether.spawn(chain, n - 1, value).join()

    token = Token()
    assert chain(100, token) is token
