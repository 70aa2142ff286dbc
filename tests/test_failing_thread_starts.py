"""The system gives no threads (fault 13): what can go on without goes on, what cannot says so, nothing is lost.

As root no limit on processes makes pthread_create fail, so the failure is injected where the runtime calls it.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

import tether
from scarcity import no_threads
from support import Token, await_event, busy_statistics, dedicated, os_threads, poll

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

give: Callable[..., Any] = {}.get


@pytest.fixture
def ticker() -> None:
    """The ticker is awake, and no thread of the crew is idle: the next thread would have to be started."""

    def awake_alone() -> bool:
        tether.spawn(int).join()  # wakes the ticker, which starts a thread if we are slow
        poll(lambda: tether._core._facts()["crew"] == 0, "the crew has retired")
        try:
            with no_threads():
                tether.spawn(int).join()
        except RuntimeError:  # the ticker has, too
            return False
        return True

    poll(awake_alone, "the ticker to be awake alone")


@pytest.fixture
def nobody() -> None:
    """Neither the crew nor the ticker has a thread."""
    poll(nobody_there, "all have retired")


def nobody_there() -> bool:
    return tether._core._facts()["crew"] == 0 and "tether-ticker" not in thread_names()


def thread_names() -> list[str]:
    names = []
    for number in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{number}/comm") as file:
                names.append(file.read().strip())
        except OSError:
            continue  # it has ended meanwhile
    return names


@pytest.mark.usefixtures("nobody")
def test_without_a_ticker_nothing_is_spawned() -> None:
    # fault 13: nobody could promise its start (G8)
    token = Token()
    task = functools.partial(give, None, token)
    with no_threads():
        with pytest.raises(RuntimeError, match=r"can't start new thread: .*Nothing was spawned"):
            tether.spawn(task)
        with tether.scope() as s:
            with pytest.raises(RuntimeError, match="can't start new thread"):
                s.spawn(task)
            assert s.tasks() == []
            assert not s.cancelled
    poll(lambda: busy_statistics() == {}, "nothing to be left")
    assert tether.spawn(task).join() is token


def test_guard_that_was_to_be_moved_stays_when_there_is_no_ticker() -> None:
    # fault 13, G3
    guard = dedicated(pow, 2, 3)
    poll(guard.done)
    poll(nobody_there, "all have retired")
    with no_threads(), pytest.raises(RuntimeError, match="can't start new thread"):
        tether.spawn(guard.join)
    assert guard.join() == 8


@pytest.mark.usefixtures("ticker")
def test_dedicated_task_without_a_thread_is_not_spawned() -> None:
    # fault 13
    with no_threads():
        guard = tether.spawn(int)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            dedicated(guard.join)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            tether.options(stack_size=1 << 20).spawn(int)
        assert busy_statistics() == {"tasks_live": 1, "tasks_queued": 1, "guards": 1}
        assert guard.join() == 0


@pytest.mark.usefixtures("ticker")
def test_scope_goes_on_when_one_of_its_tasks_finds_no_thread() -> None:
    # fault 13, G2: it is an error of the spawn, not of a child
    with tether.scope() as s:
        with no_threads():
            first = s.spawn(pow, 2, 3)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                s.options(dedicated=True).spawn(int)
        assert not s.cancelled
        assert [task.id for task in s.tasks()] in ([first.task.id], [])
        second = s.spawn(pow, 3, 2)
    assert (first.join(), second.join()) == (8, 9)


@pytest.mark.usefixtures("ticker")
def test_scope_whose_body_lets_the_error_out_joins_first() -> None:
    # fault 13, G2
    with no_threads():
        with pytest.raises(ExceptionGroup) as caught:
            with tether.scope(on_error="wait") as s:
                first = s.spawn(pow, 2, 3)
                s.options(dedicated=True).spawn(int)
        assert [type(exc) for exc in caught.value.exceptions] == [RuntimeError]
    assert first.join() == 8


@pytest.mark.usefixtures("ticker")
def test_waiting_tasks_run_in_place_while_there_are_no_threads() -> None:
    # fault 13, G1, G2: at the join, at the drop, at the end of a scope
    before = os_threads()
    with no_threads():
        assert tether.spawn(threading.get_ident).join() == threading.get_ident()
        ran: list[int] = []
        box = [tether.spawn(ran.append, 1)]
        box.clear()
        assert ran == [1]
        with tether.scope() as s:
            for n in range(100):
                s.spawn(ran.append, n)
        assert len(ran) == 101

        def deeper(n: int) -> int:
            return n and 1 + tether.spawn(deeper, n - 1).join()

        assert tether.spawn(deeper, 20).join() == 20
    assert os_threads() <= before


@pytest.mark.usefixtures("ticker")
def test_blocked_tasks_go_on_when_there_are_threads_again() -> None:
    # fault 13, G8: each waits for the next one, so all need a thread; the ticker asks again
    events = [threading.Event() for _ in range(6)]

    def wait(n: int) -> int:
        events[n].set()
        await_event(events[n + 1])
        return n

    guards = []
    with no_threads():
        guards += [tether.spawn(wait, n) for n in range(5)]
        with pytest.raises(TimeoutError):
            guards[0].join(timeout=0.05)  # not a test of time: nothing can have begun
        assert tether.statistics().tasks_queued == 5
    poll(lambda: all(event.is_set() for event in events[:5]))
    events[5].set()
    assert [guard.join() for guard in guards] == list(range(5))


@pytest.mark.usefixtures("ticker")
def test_every_second_start_fails() -> None:
    # fault 13, G8: tasks that block all get to run, however often the system says no
    stop = threading.Event()
    barrier = threading.Barrier(17)

    def saboteur() -> None:
        while not stop.is_set():
            tether._core._fail_nth("thread", 2)
            stop.wait(0.0002)
        tether._core._fail_nth("thread", 0)

    thread = threading.Thread(target=saboteur)
    thread.start()
    try:
        with tether.scope() as s:
            for _ in range(16):
                s.spawn(barrier.wait, 90)
            barrier.wait(90)
    finally:
        stop.set()
        thread.join()


@pytest.mark.usefixtures("ticker")
def test_wait_for_a_queued_task_can_be_interrupted_while_there_are_no_threads() -> None:
    # fault 13, G12
    with no_threads():
        with pytest.raises(TimeoutError):
            with tether.scope(timeout=0.02) as s:
                guard = s.spawn(int)
                tether.sleep(1000)
        assert isinstance(guard.exit_value(), tether.Killed)
