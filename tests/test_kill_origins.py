"""Who may cancel or kill, when, and what it is that the task waits in: no effect on anybody else (faults 28 and 33)."""

from __future__ import annotations

import functools
import operator
import queue
import signal
import socket
import sys
import threading

import pytest

import tether
from support import PLACES, ThreadFailures, Unraisables, await_event, dedicated, poll, run_elsewhere
from tether import Completed, Killed, KillReason, TaskState

VERBS = ["cancel", "kill"]


def request(verb, guard):
    return getattr(guard, verb)()


def spin(started):
    """Compute until cancelled or killed."""
    started.set()
    while True:
        tether.checkpoint()


def running(entry=spin, *args):
    started = threading.Event()
    guard = dedicated(entry, started, *args)
    await_event(started)
    return guard


def ended_on_request(guard):
    outcome = guard.exit_value()
    return isinstance(outcome, Killed) and outcome.reason is KillReason.REQUESTED


def undisturbed():
    """Run something on this thread, in place, and on a crew thread: a stray exception would end it."""
    assert sum(range(2_000)) == 1_999_000
    tether.checkpoint()
    for run in PLACES.values():
        assert run(lambda: tether.checkpoint() or sum(range(2_000))) == 1_999_000
    return True


# ---- when -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
def test_request_before_the_start_twice_is_one_and_nobody_runs(verb, run_python):
    # G7, fault 28: queued behind a task that has the only thread
    code = f"""
    import threading, tether
    from support import await_event

    tether.configure(max_threads=1)
    started, release, ran = threading.Event(), threading.Event(), []
    blocker = tether.spawn(lambda: (started.set(), await_event(release), "free")[-1])
    await_event(started)
    guards = [tether.spawn(ran.append, n) for n in range(10)]
    assert [guard.{verb}() for guard in guards[::2]] == [True] * 5
    assert [guard.{verb}() for guard in guards[::2]] == [False] * 5
    assert all(guard.done() for guard in guards[::2])
    release.set()
    assert blocker.join() == "free"
    for n, guard in enumerate(guards):
        assert isinstance(guard.exit_value(), tether.Completed if n % 2 else tether.Killed)
    assert sorted(ran) == [1, 3, 5, 7, 9]
    assert tether.statistics().tasks_live == 0
    """
    run_python(code, check=True)


@pytest.mark.parametrize("verb", VERBS)
def test_request_after_the_end_does_nothing(verb):
    # fault 28: before and after reaping, and through the TaskRef
    guard = dedicated(int, 6)
    poll(guard.done, "the end of the task")
    assert request(verb, guard) is False
    assert guard.join() == 6
    assert request(verb, guard) is False
    assert guard.task.cancel() is False
    assert undisturbed()


@pytest.mark.parametrize("verb", VERBS)
def test_eight_threads_that_ask_at_once_end_one_task(verb):
    # fault 28: the storm hits the task only, and only until it has ended
    for _ in range(5):
        guard, start, answers = running(), threading.Barrier(9), []

        def storm(guard=guard, start=start, answers=answers):
            start.wait()
            for _ in range(200):
                answers.append(request(verb, guard))

        threads = [threading.Thread(target=storm) for _ in range(8)]
        for thread in threads:
            thread.start()
        start.wait()
        assert ended_on_request(guard)
        others = [dedicated(sum, range(2_000)) for _ in range(4)]  # where the target ran, perhaps, and while it storms
        assert [other.join() for other in others] == [1_999_000] * 4
        for thread in threads:
            thread.join()
        assert any(answers)
        assert request(verb, guard) is False
    assert undisturbed()


# ---- from where -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
def test_request_from_a_signal_handler(verb):
    # fault 28: while the main thread waits for the very task, or for nothing
    previous = signal.getsignal(signal.SIGUSR1)
    try:
        for wait in (lambda guard: guard.exit_value(), lambda guard: guard.exit_value(timeout=90)):
            guard, answers = running(), []
            signal.signal(signal.SIGUSR1, lambda *_, guard=guard, answers=answers: answers.append(request(verb, guard)))
            sender = threading.Thread(target=signal.pthread_kill, args=(threading.get_ident(), signal.SIGUSR1))
            sender.start()
            assert wait(guard).reason is KillReason.REQUESTED
            sender.join()
            assert answers == [True]
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert undisturbed()


@pytest.mark.parametrize("run", PLACES.values(), ids=PLACES)
def test_task_that_kills_itself_ends_there(run):
    # fault 28
    reached = []

    def entry(guards):
        poll(lambda: guards, "its guard")
        assert guards[0].kill() is True
        for _ in range(100):
            pass
        reached.append(True)

    guards = []
    guards.append(tether.spawn(entry, guards) if run is not PLACES["dedicated"] else dedicated(entry, guards))
    guard = guards[0]
    with pytest.raises(tether.TaskKilled):
        guard.join(timeout=90) if run is run_elsewhere else guard.join()
    guards.clear()
    assert reached == []
    assert undisturbed()


@pytest.mark.parametrize("verb", VERBS)
def test_request_from_a_destructor(verb):
    # fault 28
    guard = running()

    class Asks:
        def __del__(self):
            answers.append(request(verb, guard))

    answers = []
    asks = Asks()
    del asks
    assert ended_on_request(guard)
    assert answers == [True]
    assert undisturbed()


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("place", ["thread", "lazy", "elsewhere", "dedicated"])
def test_request_from_a_foreign_thread_or_another_task(verb, place):
    # fault 28: open to anyone
    guard = running()
    if place == "thread":
        thread = threading.Thread(target=request, args=(verb, guard))
        thread.start()
        thread.join()
    else:
        holder = [guard]  # a guard given as an argument would move
        assert PLACES[place](lambda: request(verb, HOLDERS[0]) if HOLDERS.extend(holder) is None else None) is True
        HOLDERS.clear()
    assert ended_on_request(guard)
    assert undisturbed()


HOLDERS: list[tether.JoinGuard[object]] = []

# ---- of what --------------------------------------------------------------------------------------------------------


def in_sleep():
    tether.sleep(3600)


def in_join():
    OTHERS[0].join()


def in_timed_join():
    OTHERS[0].join(timeout=3600)


def in_exit_value():
    OTHERS[0].exit_value(timeout=3600)


def in_scope_exit():
    with tether.scope() as s:
        s.options(dedicated=True).spawn(tether.sleep, 3600)


OTHERS: list[tether.JoinGuard[object]] = []


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    "wait", [in_sleep, in_join, in_timed_join, in_exit_value, in_scope_exit], ids=lambda f: f.__name__
)
def test_task_that_waits_in_tether_is_woken(verb, wait):
    # G12, fault 28: and what it waited for is not touched
    def entry(started):
        OTHERS.append(dedicated(await_event, release))
        started.set()
        try:
            wait()
        finally:
            release.set()

    release = threading.Event()
    guard = running(entry)
    poll(lambda: guard.task.state is TaskState.BLOCKED, "the task to sleep in tether")
    assert request(verb, guard) is True
    outcome = guard.exit_value()
    assert isinstance(outcome.exception, tether.KilledTask if verb == "kill" else tether.Cancelled)
    assert OTHERS.pop().join() is None  # its owner has ended: it is ours now, and it completed
    assert undisturbed()


def in_lock():
    lock = threading.Lock()
    lock.acquire()
    return lock.acquire, lock.release


def in_queue():
    line = queue.SimpleQueue()
    return line.get, lambda: line.put(1)


def in_socket():
    here, there = socket.socketpair()
    return functools.partial(here.recv, 1), lambda: there.send(b"x"), here, there


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("block", [in_lock, in_queue, in_socket], ids=lambda block: block.__name__)
def test_call_that_is_not_tethers_is_not_interrupted(verb, block):
    # fault 28: as the tutorial says; the task sees it when the call returns
    started, passed = threading.Lock(), []
    call, wake, *ends = block()
    started.acquire()

    def entry():
        list(map(operator.call, [started.release, call]))  # in C from the one to the other
        passed.append("the call")
        tether.checkpoint()
        passed.append("the checkpoint")

    guard = dedicated(entry)
    started.acquire()
    assert request(verb, guard) is True
    with pytest.raises(TimeoutError):
        guard.join(timeout=0.02)
    assert passed == []
    wake()
    assert ended_on_request(guard)
    assert passed == (["the call"] if verb == "cancel" else [])
    for end in ends:
        end.close()
    assert undisturbed()


# ---- above others ---------------------------------------------------------------------------------------------------


REFS: dict[int, tether.JoinGuard[None]] = {}  # not in the closure: guards there would move into the task


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("which", ["lowest", "middle", "top"])
def test_kill_of_one_of_several_in_place_spares_those_above(depth, which):
    # fault 33: they have no checkpoints, so the cancellation does not end them, either
    target = {"lowest": 0, "middle": depth // 2, "top": depth}[which]
    log, reached, go_on = [], threading.Event(), threading.Event()

    def entry(level):
        try:
            if level == depth:
                reached.set()
                if target == depth:
                    while True:
                        pass
                while not go_on.is_set():
                    pass
            else:
                guard = REFS[level + 1] = tether.spawn(entry, level + 1)
                try:
                    guard.join()
                except tether.TaskKilled:
                    log.append(("joined", level))
            for _ in range(100):
                pass
            log.append(("passed", level))
        except tether.KilledTask:
            log.append(("killed", level))
            raise

    for _ in range(10):
        log.clear()
        reached.clear()
        go_on.clear()
        REFS[0] = dedicated(entry, 0)
        await_event(reached)
        assert REFS[target].kill() is True
        go_on.set()
        outcome = REFS[0].exit_value()
        ended = {level: what for what, level in log if what != "joined"}
        assert ended[target] == "killed"
        assert all(ended[level] == "passed" for level in range(depth + 1) if level != target), log
        assert [level for what, level in log if what == "joined"] == ([target - 1] if target else [])
        assert isinstance(outcome, Completed if target else Killed)
        REFS.clear()
    assert undisturbed()


def test_kill_reaches_neither_hooks_nor_the_scope_exit_of_the_joiner():
    # fault 33: they run on the target's thread after it, or beside it
    def loop():
        for _ in range(200):
            pass

    class Reports:
        def __enter__(self):
            self.raised = []
            return self

        def run(self, hook, *args):
            try:
                loop()
                hook(*args)
                loop()
            except tether.KilledTask as error:
                self.raised.append(error)

        def __exit__(self, *info):
            pass

    def fail(started):
        started.set()
        for _ in range(n % 40):
            pass
        raise ValueError

    with Unraisables() as unraisables, ThreadFailures() as failures, Reports() as reports:
        unraisable, failure = unraisables._hook, failures._hook
        sys.unraisablehook = lambda report: reports.run(unraisable, report)
        threading.excepthook = lambda report: reports.run(failure, report)
        for n in range(100):
            started = threading.Event()
            guard = dedicated(fail, started)
            ref, kill = guard.task, guard.kill
            killer = threading.Thread(target=lambda started=started, kill=kill: (await_event(started), kill()))
            killer.start()
            if n % 2:
                guard.detach()
            del guard, kill
            killer.join()
            killer = None
            poll(lambda ref=ref: not ref.is_alive(), "the end of the task")
            with tether.scope() as s:
                children = [s.spawn(fail_not, started) for _ in range(2)]
                killer = threading.Thread(target=children[0].kill)
                killer.start()
            killer.join()
            loop()
        poll(lambda: tether.statistics().tasks_live == 0, "the end of the tasks")
    assert reports.raised == []
    assert set(unraisables.types) | set(failures.types) <= {ValueError}


def fail_not(started):
    for _ in range(50):
        pass
