"""Memory runs out where nobody looks: on tether's own threads (fault 14)."""

from __future__ import annotations

import functools
import itertools
import operator
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import tether
from scarcity import await_release, scarce_elsewhere
from support import WAIT, Token, busy_statistics, dedicated, poll

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

give: Callable[..., Any] = {}.get
fail: Callable[..., Any] = {}.pop


@pytest.fixture
def no_crew() -> None:
    """The next task's thread begins afresh, with a thread state to make."""
    poll(lambda: tether._core._facts()["crew"] == 0, "the crew has retired")


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What reaches sys.unraisablehook; C code, as memory may be missing for anything else."""
    seen: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    monkeypatch.setattr(threading, "excepthook", seen.append)
    return seen


def until_none_is_left(run: Callable[[Token], bool]) -> None:
    """Run with the 1st, 2nd ... request of other threads failing. `run` tells whether it saw the outcome that is due;
    where a request failed it may have been for the telling."""
    for nth in itertools.count(1):
        with scarce_elsewhere(nth) as failures:
            seen = run(token := Token())
        assert seen or failures(), f"request {nth}"
        kept = weakref.ref(token)
        del token
        await_release(kept, f"request {nth}: the argument let go")
        poll(lambda: not busy_statistics(), f"request {nth}: nothing left")
        assert tether.spawn(pow, 2, 3).join() == 8
        if failures() == 0:
            return


def join_or_no_memory(guard: tether.JoinGuard[Any], value: object) -> bool:
    """The task itself may have failed for want of memory; otherwise this is its value."""
    try:
        assert guard.join() is value
    except MemoryError:
        return False
    return True


@pytest.mark.usefixtures("no_crew")
def test_no_memory_for_a_thread_state_is_waited_for() -> None:
    # fault 14, G8: the thread that was promised to a task tries again; nothing is lost, nobody aborts
    with scarce_elsewhere(1, lasting=True):
        guard = dedicated(give, None, 5)
        with pytest.raises(TimeoutError):
            guard.join(timeout=0.02)  # not a test of time: it cannot have begun
        assert guard.task.state is tether.TaskState.QUEUED
    assert guard.join() == 5


@pytest.mark.usefixtures("no_crew")
def test_cancelled_task_whose_thread_finds_no_memory_never_runs() -> None:
    # fault 14, G7, G12
    with scarce_elsewhere(1, lasting=True):
        guard = dedicated(give, None, 5)
        own = tether.options(stack_size=1 << 20).spawn(give, None, 5)
        for cancelled in (guard, own):
            assert cancelled.cancel()
            with pytest.raises(tether.TaskKilled):
                cancelled.join()
        poll(lambda: not busy_statistics(), "its thread has given up")


@pytest.mark.usefixtures("no_crew")
def test_lazy_tasks_wait_while_threads_find_no_memory(reports: list[Any]) -> None:
    # fault 14, G8: the ticker asks again
    guards = []
    with scarce_elsewhere(1, lasting=True):
        guards += [tether.spawn(give, None, n) for n in range(3)]
        with pytest.raises(TimeoutError):
            guards[0].join(timeout=0.02)
        assert guards[1].join() == 1  # in place: this thread has memory
    assert guards[0].join(timeout=WAIT) == 0
    assert guards[2].join(timeout=WAIT) == 2


def test_join_of_a_task_elsewhere(reports: list[Any]) -> None:
    # fault 14, G1, G9: its end is never lost
    until_none_is_left(lambda token: join_or_no_memory(dedicated(give, None, token), token))


@pytest.mark.parametrize("release", ["join", "drop", "detach"])
def test_failing_task_elsewhere(reports: list[Any], release: str) -> None:
    # fault 14, G6: the failure is raised or reported
    def run(token: Token) -> bool:
        guard = dedicated(functools.partial(fail, token))
        ref = guard.task
        if release == "join":
            with pytest.raises((KeyError, MemoryError)):
                guard.join()
            return True
        if release == "detach":
            guard.detach()
        del guard
        poll(lambda: not ref.is_alive() and not busy_statistics())
        seen = [report.exc_type for report in reports] == [KeyError]
        reports.clear()
        return seen

    until_none_is_left(run)


def test_scope_with_tasks_elsewhere(reports: list[Any]) -> None:
    # fault 14, G2
    def run(token: Token) -> bool:
        ended: list[tether.TaskRef] = []
        try:
            with tether.scope(on_error="wait") as s:
                for number in range(3):
                    child = s.options(dedicated=True).spawn(
                        operator.getitem, [token, token], number
                    )  # the third one fails
                    ended.append(child.task)
        except BaseExceptionGroup as group:
            kinds = {type(exc) for exc in group.exceptions}
            assert kinds <= {IndexError, MemoryError}
        else:
            raise AssertionError("the third one failed")
        assert not any(ref.is_alive() for ref in ended)
        return kinds == {IndexError}

    until_none_is_left(run)


def test_thread_that_begins_without_memory_serves_nevertheless(reports: list[Any]) -> None:
    # fault 14, G18: what is missing costs its entry in threading.enumerate(), not the thread
    for nth in range(1, 10):  # its thread state, then the entry
        token = Token()
        poll(lambda: tether._core._facts()["crew"] == 0, "the crew has retired")
        with scarce_elsewhere(nth):
            join_or_no_memory(dedicated(give, None, token), token)
        poll(lambda: not busy_statistics())
