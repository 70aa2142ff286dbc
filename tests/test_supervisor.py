"""Supervisors: scopes whose tasks are restarted, by the strategies of Erlang/OTP."""

from __future__ import annotations

import contextlib
import gc
import queue
import random
import sys
import threading
import weakref
from typing import Any

import pytest

import tether
from support import WAIT, Token, Unraisables, await_event, poll, resident_bytes
from tether import Completed, Killed, KillReason, _supervisor

STRATEGIES = ("one_for_one", "one_for_all", "rest_for_one")
everyhow = pytest.mark.parametrize("strategy", STRATEGIES)
MANY = 10**9


class Log:
    """What happened, in order; threads add to it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.events: list[tuple[str, int]] = []

    def add(self, what: str, who: int) -> None:
        with self._lock:
            self.events.append((what, who))

    def take(self) -> list[tuple[str, int]]:
        with self._lock:
            events, self.events = self.events, []
            return events

    def of(self, what: str) -> list[int]:
        with self._lock:
            return [who for kind, who in self.events if kind == what]


class Crew:
    """Children that do what they are told through queues, and log when they begin and end."""

    def __init__(self, scope: tether.Scope, n: int) -> None:
        self.scope = scope
        self.log = Log()
        self.orders: list[queue.SimpleQueue[Any]] = [queue.SimpleQueue() for _ in range(n)]
        self.slow: set[int] = set()  # these take a while to stop
        self.may_stop = threading.Event()
        self.tasks = [scope.options(name=f"child-{who}").spawn(self._work, who) for who in range(n)]

    def _work(self, who: int) -> str:
        self.log.add("begin", who)
        try:
            while True:
                try:
                    order = self.orders[who].get_nowait()
                except queue.Empty:
                    tether.sleep(0.0005)
                    continue
                if order == "return":
                    return f"value of {who}"
                raise order
        except tether.Cancelled:
            self.log.add("stopping", who)
            if who in self.slow:
                await_event(self.may_stop)
            raise
        finally:
            self.log.add("end", who)

    def begun(self, *who: int) -> None:
        poll(lambda: sorted(self.log.of("begin")) == sorted(who), f"{who} begin: {self.log.events}")

    def tell(self, who: int, order: Any) -> None:
        self.orders[who].put(order)


# ---- strategies -----------------------------------------------------------------------------------------------------


def test_it_is_a_scope():
    s = tether.supervisor()
    assert isinstance(s, tether.Scope)
    with s:
        handle = s.spawn(int, 7)
    assert handle.join() == 7
    with tether.supervisor(name="services", timeout=WAIT) as s:
        assert s.name == "services"


@pytest.mark.parametrize("strategy", ["all", "", None, 1])
def test_bad_strategies(strategy: Any):
    with pytest.raises(ValueError, match="strategy must be one of 'one_for_one', 'one_for_all', 'rest_for_one'"):
        tether.supervisor(strategy)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"max_restarts": -1}, ValueError),
        ({"max_restarts": "3"}, TypeError),
        ({"within": 0}, ValueError),
        ({"timeout": -1}, ValueError),
        ({"name": 3}, TypeError),
        ({"check": "never"}, ValueError),
        ({"on_error": "wait"}, TypeError),
    ],
)
def test_bad_arguments(given: dict[str, Any], error: type[Exception]):
    with pytest.raises(error):
        tether.supervisor(**given)


def test_options_of_a_supervisor():
    with tether.supervisor() as s:
        assert s.options(name="loader", dedicated=True).spawn(lambda: tether.current().name).join() == "loader"
        with pytest.raises(ValueError, match="restart= has no place here"):
            s.options(restart=tether.Restart())
        with pytest.raises(tether.SendError):
            s.spawn(print, (n for n in range(3)))


def group(strategy: str, who: int, alive: list[int]) -> list[int]:
    """Who is restarted when `who` fails: the model."""
    if strategy == "one_for_one":
        return [who]
    return [other for other in alive if strategy == "one_for_all" or other >= who]


@everyhow
@pytest.mark.parametrize("who", [0, 1, 2])
def test_who_is_restarted_and_in_which_order_they_stop(strategy: str, who: int):
    # the others are stopped one after the other, the last spawned first, before anybody begins
    with tether.supervisor(strategy) as s:
        crew = Crew(s, 3)
        crew.begun(0, 1, 2)
        crew.log.take()
        crew.tell(who, ValueError())
        expected = group(strategy, who, [0, 1, 2])
        crew.begun(*expected)
        events = crew.log.take()
        others = [other for other in reversed(expected) if other != who]
        assert events[0] == ("end", who)
        stops = [event for event in events if event[1] != who and event[0] != "begin"]
        assert stops == [(what, other) for other in others for what in ("stopping", "end")]
        assert [what for what, _ in events[-len(expected) :]] == ["begin"] * len(expected)
        for other in range(3):
            crew.tell(other, "return")
    assert [task.join() for task in crew.tasks] == ["value of 0", "value of 1", "value of 2"]


@everyhow
@pytest.mark.parametrize("seed", range(6))
def test_random_scripts_against_the_model(strategy: str, seed: int):
    # children are told to fail and to complete, one at a time; whoever completed is done
    dice = random.Random(seed)
    n = dice.randint(1, 6)
    with tether.supervisor(strategy, max_restarts=MANY) as s:
        crew = Crew(s, n)
        alive = list(range(n))
        crew.begun(*alive)
        crew.log.take()
        while alive:
            who = dice.choice(alive)
            if dice.random() < 0.3:
                alive.remove(who)
                crew.tell(who, "return")
                assert crew.tasks[who].join() == f"value of {who}"
                assert crew.log.take() == [("end", who)]
                continue
            crew.tell(who, OSError())
            crew.begun(*group(strategy, who, alive))
            crew.log.take()


def test_nobody_begins_before_all_have_stopped():
    with tether.supervisor("one_for_all") as s:
        crew = Crew(s, 4)
        crew.slow = {2}
        crew.begun(0, 1, 2, 3)
        crew.log.take()
        crew.tell(1, ValueError())
        poll(lambda: ("stopping", 2) in crew.log.events, "2 to be stopped")
        assert crew.log.events == [("end", 1), ("stopping", 3), ("end", 3), ("stopping", 2)]
        crew.may_stop.set()
        crew.begun(0, 1, 2, 3)
        events = crew.log.take()
        assert events[4:7] == [("end", 2), ("stopping", 0), ("end", 0)]
        s.cancel()


def test_a_child_that_is_spawned_while_its_group_stops_begins_with_it():
    with tether.supervisor("one_for_all") as s:
        crew = Crew(s, 2)
        crew.slow = {1}
        crew.begun(0, 1)
        crew.log.take()
        crew.tell(0, ValueError())
        poll(lambda: ("stopping", 1) in crew.log.events, "the stop")
        late = s.options(dedicated=True).spawn(crew.log.add, "begin", 99)
        poll(lambda: late.task.state is tether.TaskState.BLOCKED, "the late one to wait")
        assert crew.log.of("begin") == []
        crew.may_stop.set()
        crew.begun(0, 1, 99)
        late.join()
        s.cancel()
    assert late.task.state is tether.TaskState.REAPED


def test_a_child_spawned_before_the_first_of_rest_for_one_is_left_alone():
    with tether.supervisor("rest_for_one") as s:
        crew = Crew(s, 3)
        crew.begun(0, 1, 2)
        crew.log.take()
        crew.tell(1, ValueError())
        crew.begun(1, 2)
        assert 0 not in [who for _, who in crew.log.events]
        s.cancel()


@pytest.mark.parametrize("ending", ["return", ValueError("late"), tether.Cancelled(), SystemExit()])
def test_a_child_that_ends_by_itself_while_it_is_stopped(ending: Any):
    stopping, go, begun = threading.Event(), threading.Event(), []

    def stubborn() -> str:
        begun.append(1)
        if len(begun) > 1:
            return "again"
        try:
            tether.sleep(3600)
        except tether.Cancelled:
            stopping.set()
            await_event(go)
            if ending == "return":
                return "in spite of it"
            raise ending from None
        return "never"

    calls: list[int] = []

    def failing() -> int:
        calls.append(1)
        if len(calls) == 1:
            poll(lambda: begun, "the other")
            raise ValueError("first")
        return len(calls)

    def run() -> None:
        with tether.supervisor("one_for_all", max_restarts=1) as s:
            handles.append(s.spawn(stubborn))
            handles.append(s.spawn(failing))
            await_event(stopping)
            go.set()

    handles: list[Any] = []
    if isinstance(ending, SystemExit):
        with pytest.raises(SystemExit):  # G2: bare
            run()
        return
    run()
    first, second = handles
    assert second.join() == 2
    assert first.join() == ("in spite of it" if ending == "return" else "again")


@pytest.mark.parametrize("how", ["cancel", "kill"])
def test_a_child_that_somebody_cancels_while_it_is_stopped_leaves_the_group(how: str):
    # a real request is not taken back with the group's
    with tether.supervisor("one_for_all") as s:
        crew = Crew(s, 3)
        crew.slow = {1}
        crew.begun(0, 1, 2)
        crew.log.take()
        crew.tell(0, ValueError())
        poll(lambda: ("stopping", 1) in crew.log.events, "the stop")
        assert getattr(crew.tasks[1], how)()
        crew.may_stop.set()
        crew.begun(0, 2)
        match crew.tasks[1].exit_value():
            case Killed(KillReason.REQUESTED, _):
                pass
            case other:
                pytest.fail(f"unexpected {other}")
        s.cancel()


@pytest.mark.parametrize("how", ["cancel", "kill"])
def test_a_child_that_somebody_cancels_while_it_waits_for_its_group(how: str):
    with tether.supervisor("one_for_all") as s:
        crew = Crew(s, 3)
        crew.slow = {1}
        crew.begun(0, 1, 2)
        crew.log.take()
        crew.tell(0, ValueError())
        poll(lambda: ("stopping", 1) in crew.log.events, "the stop")
        for who in (0, 2):
            poll(lambda who=who: crew.tasks[who].task.state is tether.TaskState.BLOCKED, "the wait")
            assert getattr(crew.tasks[who], how)()
            assert isinstance(crew.tasks[who].exit_value(), Killed)
        crew.may_stop.set()
        crew.begun(1)
        s.cancel()


@everyhow
@pytest.mark.parametrize("how", ["cancel", "kill"])
def test_a_cancelled_child_is_not_restarted(strategy: str, how: str):
    with tether.supervisor(strategy) as s:
        crew = Crew(s, 3)
        crew.begun(0, 1, 2)
        crew.log.take()
        getattr(crew.tasks[1], how)()
        assert isinstance(crew.tasks[1].exit_value(), Killed)
        crew.tell(0, ValueError())
        crew.begun(*group(strategy, 0, [0, 2]))
        s.cancel()


def test_failures_of_the_group_during_its_stop_are_one_restart():
    # as in OTP: what breaks for all of them at once is one failure
    n, begun = 5, []
    together = threading.Barrier(n)

    def child() -> None:
        begun.append(1)
        if len(begun) <= n:
            together.wait(WAIT)
            raise OSError("all at once")

    with tether.supervisor("one_for_all", max_restarts=1) as s:
        for _ in range(n):
            s.options(dedicated=True).spawn(child)
    assert n < len(begun) <= 2 * n


def test_a_failure_of_an_earlier_child_during_the_stop_makes_the_group_larger():
    with tether.supervisor("rest_for_one", max_restarts=2) as s:
        crew = Crew(s, 4)
        crew.slow = {3}
        crew.begun(0, 1, 2, 3)
        crew.log.take()
        crew.tell(2, ValueError())
        poll(lambda: ("stopping", 3) in crew.log.events, "the stop")
        crew.tell(1, ValueError())
        poll(lambda: ("end", 1) in crew.log.events, "the second failure")
        crew.may_stop.set()
        crew.begun(1, 2, 3)
        s.cancel()


# ---- its own end ----------------------------------------------------------------------------------------------------


@everyhow
@pytest.mark.parametrize("most", [0, 1, 3])
def test_it_gives_up_with_one_failure_too_many(strategy: str, most: int):
    # G2: siblings are cancelled, the failure stands with its history
    calls, seen = [], []

    def fail() -> None:
        calls.append(1)
        raise ValueError(f"no {len(calls)}")

    def sibling() -> None:
        try:
            tether.sleep(3600)
        except tether.Cancelled:
            seen.append(1)
            raise

    with pytest.raises(ExceptionGroup) as caught, tether.supervisor(strategy, max_restarts=most) as s:
        other = s.spawn(sibling)
        poll(lambda: other.task.state is tether.TaskState.BLOCKED, "the sibling")
        s.spawn(fail)
    (failure,) = caught.value.exceptions
    assert len(calls) == most + 1
    assert str(failure) == f"no {most + 1}"
    earlier = [note.split(" (")[0] for note in failure.__notes__ if note.startswith("attempt")]
    assert earlier == [f"attempt {n} failed: ValueError: no {n}" for n in range(1, most + 1)]
    assert failure.__notes__[-1].startswith(f"the supervisor gives up: {most} restart")
    assert seen
    assert isinstance(other.exit_value(), Killed)


def test_the_limit_is_of_all_children_together():
    turn = threading.Lock()
    failures = [0]

    def fail() -> None:
        with turn:
            failures[0] += 1
            raise ValueError

    with pytest.raises(ExceptionGroup) as caught, tether.supervisor(max_restarts=5) as s:
        for _ in range(3):
            s.spawn(fail)
    assert 6 <= failures[0] <= 8  # five restarts, the one too many, and who had begun meanwhile
    assert 1 <= len(caught.value.exceptions) <= 3


@everyhow
def test_cancel_of_the_supervisor_ends_it_silently(strategy: str):
    with tether.supervisor(strategy) as s:
        crew = Crew(s, 5)
        crew.begun(0, 1, 2, 3, 4)
        s.cancel()
    assert all(isinstance(task.exit_value(), Killed) for task in crew.tasks)


@everyhow
def test_cancel_of_the_supervisor_during_a_stop(strategy: str):
    with tether.supervisor(strategy) as s:
        crew = Crew(s, 4)
        crew.slow = {1, 2}
        crew.begun(0, 1, 2, 3)
        crew.tell(0, ValueError())
        poll(lambda: ("end", 0) in crew.log.events, "the failure")
        s.cancel()
        crew.may_stop.set()


def test_a_failure_while_it_is_cancelled_is_raised():
    # G2: there is no other attempt in which it could be forgotten
    ready = threading.Event()

    def child() -> None:
        try:
            ready.set()
            tether.sleep(3600)
        except tether.Cancelled:
            raise OSError("while cleaning up") from None

    with pytest.raises(ExceptionGroup) as caught, tether.supervisor(max_restarts=MANY) as s:
        s.spawn(child)
        await_event(ready)
        s.cancel()
    (failure,) = caught.value.exceptions
    assert isinstance(failure, OSError)


@everyhow
def test_timeout(strategy: str):
    with pytest.raises(TimeoutError), tether.supervisor(strategy, timeout=0.05) as s:
        for _ in range(3):
            s.spawn(tether.sleep, 3600)


@everyhow
def test_timeout_while_children_fail(strategy: str):
    def fail() -> None:
        tether.sleep(0.001)
        raise ValueError

    with pytest.raises(TimeoutError), tether.supervisor(strategy, max_restarts=MANY, timeout=0.05) as s:
        for _ in range(3):
            s.spawn(fail)
        s.spawn(tether.sleep, 3600)


@everyhow
def test_a_body_that_fails_cancels_and_is_raised(strategy: str):
    with pytest.raises(ExceptionGroup) as caught, tether.supervisor(strategy) as s:
        crew = Crew(s, 3)
        crew.begun(0, 1, 2)
        raise KeyError("body")
    (failure,) = caught.value.exceptions
    assert isinstance(failure, KeyError)


def test_giving_up_interrupts_the_body():
    def fail() -> None:
        raise ValueError

    with pytest.raises(ExceptionGroup), tether.supervisor(max_restarts=2) as s:
        s.spawn(fail)
        tether.sleep(3600)


@everyhow
def test_system_exit_of_a_child_is_raised_bare(strategy: str):
    # G2, fault 29
    with pytest.raises(SystemExit), tether.supervisor(strategy) as s:
        s.spawn(tether.sleep, 3600)
        s.spawn(sys.exit, 3)


def test_user_code_that_spawns_while_the_books_are_kept():
    # __str__ and add_note of a failure run without the supervisor's lock
    class Talkative(Exception):
        def __str__(self) -> str:
            handles.append(s.spawn(int, 1))
            handles[-1].join(timeout=WAIT)
            return "talk"

        def add_note(self, note: str) -> None:
            handles.append(s.spawn(int, 2))

    handles: list[Any] = []

    def fail() -> None:
        raise Talkative

    with pytest.raises(ExceptionGroup), tether.supervisor("one_for_all", max_restarts=2) as s:
        s.spawn(fail)
    assert len(handles) > 3


@pytest.mark.parametrize(("nth", "error"), [(1, ValueError), (2, MemoryError)])
def test_books_that_fail_cancel_the_supervisor(monkeypatch: pytest.MonkeyPatch, nth: int, error: type[Exception]):
    # fault 14, at the end of the task that fails and of one that is stopped: nobody waits for what can never come
    calls: list[object] = []
    go_on = _supervisor._Supervision._go_on

    def no_memory(self: Any, seat: Any) -> None:
        calls.append(seat)
        if len(calls) == nth:
            raise MemoryError
        go_on(self, seat)

    with Unraisables() as reports, pytest.raises(ExceptionGroup) as caught, tether.supervisor("one_for_all") as s:
        crew = Crew(s, 4)
        crew.begun(0, 1, 2, 3)
        monkeypatch.setattr(_supervisor._Supervision, "_go_on", no_memory)
        crew.tell(1, ValueError())
        tether.sleep(3600)
    assert [type(failure) for failure in caught.value.exceptions] == [error]
    assert reports.types == ([MemoryError] if nth == 1 else [])


# ---- trees ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outer", STRATEGIES)
@pytest.mark.parametrize("inner", STRATEGIES)
def test_an_inner_supervisor_that_gives_up_is_restarted_by_the_outer(outer: Any, inner: Any):
    calls: list[int] = []

    def leaf() -> None:
        calls.append(1)
        if len(calls) <= 5:
            raise ValueError

    def middle() -> None:
        with tether.supervisor(inner, max_restarts=1) as s:
            s.spawn(leaf)
            service = s.spawn(tether.sleep, 3600)
            poll(lambda: len(calls) > 5 or s.cancelled, "an end")
            service.cancel()

    with tether.supervisor(outer, max_restarts=2) as s:
        handle = s.spawn(middle)
    handle.join()
    assert len(calls) == 6  # 2 of the first middle, 2 of the second, and so on


@pytest.mark.parametrize("inner", STRATEGIES)
def test_a_whole_subtree_is_stopped_and_begins_again(inner: Any):
    # each stop waits for what the child has below it
    log = Log()
    fail = threading.Event()

    def leaf(who: int) -> None:
        log.add("begin", who)
        try:
            tether.sleep(3600)
        finally:
            log.add("end", who)

    def middle() -> None:
        with tether.supervisor(inner) as s:
            s.spawn(leaf, 1)
            s.spawn(leaf, 2)

    def failing() -> None:
        log.add("begin", 0)
        while not fail.is_set():
            tether.sleep(0.0005)
        fail.clear()
        raise ValueError

    with tether.supervisor("one_for_all") as s:
        s.spawn(failing)
        s.spawn(middle)
        for _ in range(3):
            poll(lambda: sorted(log.of("begin")) == [0, 1, 2], "all begin")
            log.take()
            fail.set()
            poll(lambda: sorted(log.of("begin")) == [0, 1, 2], "all begin again")
            events = log.take()
            assert sorted(events[:2]) == [("end", 1), ("end", 2)], events
            log.events = events[2:]
        s.cancel()


def test_guards_of_a_stopped_child_are_joined_before_anybody_begins():
    # G1
    log = Log()
    go, ready, fail = threading.Event(), threading.Event(), threading.Event()

    def below() -> None:
        ready.set()
        await_event(go)
        log.add("end", 9)

    def owner() -> None:
        log.add("begin", 1)
        if len(log.of("begin")) <= 2:
            guard = tether.options(dedicated=True).spawn(below)
            try:
                tether.sleep(3600)
            except tether.Cancelled:
                log.add("stopping", 1)
                raise
            guard.join()

    def failing() -> None:
        log.add("begin", 0)
        if len(log.of("begin")) <= 2:
            await_event(fail)
            raise ValueError

    with tether.supervisor("one_for_all") as s:
        s.spawn(failing)
        s.spawn(owner)
        await_event(ready)
        poll(lambda: sorted(log.of("begin")) == [0, 1], "both begin")
        fail.set()
        poll(lambda: log.of("stopping"), "the stop")
        go.set()
    assert log.events[2:4] == [("stopping", 1), ("end", 9)]
    assert sorted(log.events[4:]) == [("begin", 0), ("begin", 1)]


@everyhow
def test_siblings_that_join_each_others_handles_do_not_deadlock(strategy: str):
    calls: list[int] = []

    def fail() -> int:
        calls.append(1)
        if len(calls) <= 30:
            raise ValueError
        return 7

    def joiner() -> int:
        return int(handles[0].task.is_alive())

    def waiter() -> None:
        poll(lambda: handles, "the handle")
        while not handles[0].done():
            try:
                handles[0].join(timeout=0)
            except (TimeoutError, tether.ReapedError):
                tether.sleep(0)

    def blocked() -> None:
        poll(lambda: handles, "the handle")
        with contextlib.suppress(tether.ReapedError):
            handles[0].join()

    handles: list[Any] = []
    with tether.supervisor(strategy, max_restarts=MANY) as s:
        s.spawn(blocked)
        s.spawn(waiter)
        handles.append(s.spawn(fail))
        s.spawn(blocked)
        s.spawn(joiner)
    assert len(calls) == 31


@everyhow
def test_supervised_tasks_run_in_place_above_no_other_task(strategy: str):
    # a joiner that helps would be stopped with, and stop, what it runs
    def inner_leaf() -> bool:
        return threading.get_ident() in joining

    def owner_of_leaves() -> list[bool]:
        with tether.supervisor() as s:
            leaves = [s.spawn(inner_leaf) for _ in range(20)]
            poll(lambda: all(leaf.done() for leaf in leaves), "the leaves")
        return [leaf.join() for leaf in leaves]

    joining: set[int] = set()

    def joiner() -> list[bool]:
        joining.add(threading.get_ident())
        return handles[0].join()

    with tether.supervisor(strategy) as s:
        handles = [s.spawn(owner_of_leaves)]
        result = s.spawn(joiner).join(timeout=WAIT)
    assert result == [False] * 20


# ---- placement and load ---------------------------------------------------------------------------------------------

SCRIPT = """
    import random, sys, threading, tether
    strategy = sys.argv[1] if len(sys.argv) > 1 else "one_for_all"
    {setup}

    def child(seed):
        dice = random.Random(seed * 1000 + next(turns))
        for _ in range(dice.randrange(20)):
            tether.checkpoint()
            if dice.random() < 0.02:
                tether.sleep(0.0005)
        if dice.random() < 0.5:
            raise ValueError
        return seed

    import itertools
    for strategy in ("one_for_one", "one_for_all", "rest_for_one"):
        turns = itertools.count()
        with tether.supervisor(strategy, max_restarts=10**9) as s:
            handles = [s.spawn(child, n) for n in range({n})]
            if {join}:
                assert [handle.join() for handle in handles] == list(range({n}))
        if not {join}:
            assert [handle.join() for handle in handles] == list(range({n}))
    """


@pytest.mark.parametrize("place", ["thread", "inline", "random", "auto"])
@pytest.mark.parametrize("join", [True, False])
def test_wherever_tasks_run(run_python, place: str, join: bool):
    run_python(SCRIPT.format(setup="", n=12, join=join), env={"TETHER_PLACE": place}, check=True)


@pytest.mark.parametrize("join", [True, False])
def test_with_one_thread(run_python, join: bool):
    # max_threads bounds G8; whoever has not begun is not waited for
    run_python(SCRIPT.format(setup="tether.configure(max_threads=1)", n=8, join=join), check=True)


def test_nested_with_one_thread(run_python):
    # leaving an inner block runs its tasks in place
    run_python(
        """
        import tether
        tether.configure(max_threads=1)
        calls = []
        def leaf():
            calls.append(1)
            if len(calls) % 3:
                raise ValueError
        def middle(depth):
            with tether.supervisor("one_for_all", max_restarts=100) as s:
                s.spawn(middle, depth - 1) if depth else s.spawn(leaf)
        with tether.supervisor() as s:
            s.spawn(middle, 5)
        assert len(calls) == 3
        """,
        check=True,
    )


@everyhow
def test_hundreds_of_children(strategy: str):
    n, begun = 200, []
    failed = threading.Event()

    def child(who: int) -> int:
        begun.append(who)
        if who == n // 2 and not failed.is_set():
            failed.set()
            raise ValueError
        tether.checkpoint()
        return who

    with tether.supervisor(strategy) as s:
        handles = [s.spawn(child, who) for who in range(n)]
    assert [handle.join() for handle in handles] == list(range(n))
    assert begun.count(n // 2) == 2


@everyhow
def test_hundreds_of_children_that_block(strategy: str):
    n = 120
    with tether.supervisor(strategy) as s:
        crew = Crew(s, n)
        crew.begun(*range(n))
        crew.log.take()
        crew.tell(n // 2, ValueError())
        crew.begun(*group(strategy, n // 2, list(range(n))))
        s.cancel()


@everyhow
def test_thousands_of_restarts_with_random_failures(strategy: str):
    dice = random.Random(7)
    fates = [[dice.random() < 0.97 for _ in range(400)] for _ in range(6)]
    at = [0] * 6
    restarts = [0]

    def child(who: int) -> int:
        at[who] += 1
        if at[who] % 5 == 0:
            tether.sleep(0)
        if at[who] < 400 and fates[who][at[who]]:
            restarts[0] += 1
            raise ValueError
        tether.checkpoint()
        return who

    with Unraisables() as reports, tether.supervisor(strategy, max_restarts=MANY) as s:
        handles = [s.spawn(child, who) for who in range(6)]
        outcomes = [handle.exit_value() for handle in handles]
    assert outcomes == [Completed(who) for who in range(6)]
    assert restarts[0] > 100
    assert reports.texts == []


@everyhow
def test_cancels_and_kills_race_group_restarts(strategy: str):
    # a real request is never swallowed by a group's, and nobody else is hit
    for n in range(40):
        begun: list[int] = []

        def child(who: int, begun: list[int] = begun) -> None:
            begun.append(who)
            if who == 1:
                raise ValueError
            tether.sleep(3600)

        with tether.supervisor(strategy, max_restarts=MANY) as s:
            handles = [s.options(dedicated=True).spawn(child, who) for who in range(4)]
            poll(lambda begun=begun, n=n: len(begun) >= 4 + n % 9, "some restarts")
            for who in (2, 0, 3):
                assert (handles[who].kill if n % 2 else handles[who].cancel)()
                assert isinstance(handles[who].exit_value(timeout=WAIT), Killed)
            before = begun.count(1)
            poll(lambda begun=begun, before=before: begun.count(1) > before + 3, "the failing one goes on")
            handles[1].cancel()
            s.cancel() if n % 3 else handles[1].kill()
            outcome = handles[1].exit_value(timeout=WAIT)
            assert isinstance(outcome, Killed)


def test_finished_children_leave_nothing_in_a_long_lived_supervisor():
    # G9
    refs = []
    with tether.supervisor() as s:
        s.spawn(tether.sleep, 3600)
        for n in range(11_000):
            if n == 1_000:
                gc.collect()
                objects, resident = len(gc.get_objects()), resident_bytes()
            if n % 1000 == 0:
                token = Token()
                refs.append(weakref.ref(token))
                s.spawn(lambda token=token: None).join()
                del token
            else:
                s.spawn(int).join()
        gc.collect()
        assert len(gc.get_objects()) - objects < 200
        assert resident_bytes() - resident < 8 << 20
        assert [ref() for ref in refs] == [None] * len(refs)
        s.cancel()


def test_children_that_never_began_leave_nothing():
    # G7, G9: cancelled before the start
    with tether.supervisor() as s:
        for _ in range(500):
            handle = s.spawn(int)
            handle.cancel()
            handle.exit_value()
        s.spawn(int)
        books = [thing for thing in gc.get_objects() if type(thing) is _supervisor._Supervision]
        assert sum(len(thing._seats) for thing in books) < 10


def test_a_closed_supervisor_takes_no_more():
    with tether.supervisor() as s:
        pass
    with pytest.raises(tether.ScopeClosedError):
        s.spawn(int)


def test_dump_shows_restarts(capsys: pytest.CaptureFixture[str]):
    with tether.supervisor("one_for_all") as s:
        crew = Crew(s, 2)
        crew.begun(0, 1)
        crew.log.take()
        crew.tell(0, ValueError("told"))
        crew.begun(0, 1)
        tether.dump()
        s.cancel()
    text = capsys.readouterr().err
    assert "restarted once, attempt 1 failed: ValueError: told" in text
    assert text.count("restarted once") == 2


def test_interrupt_of_a_supervisor_in_place(run_python):
    # G12: Ctrl-C while its only task runs in place, and while it keeps the books
    run_python(
        """
        import signal, threading, tether
        from support import poll

        def fail():
            calls.append(1)
            raise ValueError

        for n in range(60):
            calls = []
            armed = threading.Event()
            def fire():
                armed.wait()
                poll(lambda: len(calls) > n % 11)
                signal.pthread_kill(main, signal.SIGINT)
            main = threading.get_ident()
            thread = threading.Thread(target=fire)
            try:
                with tether.supervisor("one_for_all", max_restarts=10**9) as s:
                    s.spawn(fail)
                    s.spawn(fail)
                    thread.start()
                    armed.set()
            except KeyboardInterrupt:
                pass
            else:
                raise AssertionError("no interrupt")
            thread.join()
            assert not tether.tasks()
        """,
        env={"TETHER_PLACE": "inline"},
        check=True,
    )
