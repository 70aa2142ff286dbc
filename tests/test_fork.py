"""A forked child starts afresh; the parent goes on."""

from __future__ import annotations

import os
import sys
import threading
import warnings

import pytest

import tether
from support import WAIT, await_event, dedicated

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")


def in_child(fn):
    """Forks, runs `fn` in the child, and returns its exit status: 0 if it returned a true value."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads are alive, which is the point
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = 0 if fn() else 2
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_child_spawns_joins_and_scopes_of_its_own():
    tether.spawn(int).join()

    def child():
        with tether.scope() as s:
            handles = [s.options(dedicated=True).spawn(pow, n, 2) for n in range(5)]
        return tether.spawn(sum, [handle.join() for handle in handles]).join() == 30

    assert in_child(child) == 0


def test_guards_of_the_parent_are_foreign_in_the_child():
    release = threading.Event()
    guard = dedicated(await_event, release)

    def child():
        nonlocal guard
        for use in ("join", "exit_value", "detach"):
            with pytest.raises(tether.ForkedError):
                getattr(guard, use)()
        with pytest.raises(tether.ForkedError):
            guard.send(tether.current())
        assert guard.cancel() is False
        assert tether.statistics().tasks_live == 0
        del guard  # the destructor does nothing: it must not wait for a thread that is not here
        return True

    assert in_child(child) == 0
    release.set()
    assert guard.join() is None


def test_scope_of_the_parent_is_foreign_in_the_child():
    release = threading.Event()

    def child(s):
        with pytest.raises(tether.ForkedError):
            s.spawn(int)
        return True

    with tether.scope() as s:
        s.options(dedicated=True).spawn(await_event, release)
        assert in_child(lambda: child(s)) == 0
        release.set()


def test_fork_inside_a_task():
    def entry():
        return in_child(lambda: tether.current().id == 0 and tether.spawn(int, 7).join() == 7)

    assert tether.spawn(entry).join() == 0
    assert dedicated(entry).join() == 0


def test_child_of_multiprocessing_ends_after_its_parent_used_tether(run_python):
    code = """
    import multiprocessing, threading, tether, warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    release = threading.Event()
    guard = tether.options(dedicated=True).spawn(release.wait)
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    process = context.Process(target=lambda: queue.put(tether.spawn(pow, 2, 5).join()))
    process.start()
    print(queue.get())
    process.join(60)
    print(process.exitcode)
    release.set()
    guard.join()
    """
    assert run_python(code, check=True).out == "32\n0\n"


def test_child_of_a_running_parent_exits_normally(run_python):
    code = f"""
    import os, sys, threading, tether, warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    release = threading.Event()
    tether.options(dedicated=True).spawn(int).join()  # see PRELUDE
    guard = tether.options(dedicated=True).spawn(release.wait, {WAIT})
    pid = os.fork()
    if pid == 0:
        sys.exit(3)  # through atexit and threading's shutdown: nothing to wait for
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    release.set()
    guard.join()
    """
    assert run_python(code, check=True).out == "3\n"


PRELUDE = """
    import atexit, gc, os, signal, sys, threading, time, warnings
    import tether
    from support import await_event, dedicated, forked, poll, status_of

    warnings.simplefilter("ignore", DeprecationWarning)
    release = threading.Event()
    # On 3.13t a child that was forked while the process made its second thread may find the interpreter's lock for
    # stopping the world taken, and hangs when it ends.
    dedicated(int).join()

    def fresh():
        assert tether.statistics() == tether.Statistics(*[0] * 9)
        assert tether.tasks() == [] and tether.current().id == 0
        assert threading.enumerate() == [threading.main_thread()] == [threading.current_thread()]
        works()

    def works():
        assert dedicated(int, 3).join() == 3 and tether.spawn(int, 4).join() == 4
"""


def test_child_that_returns_ends_as_a_program_does(run_python):
    # G1: its own tasks are joined at its exit, its atexit functions run once; nothing of the parent's runs there
    code = (
        PRELUDE
        + """
    guards = [dedicated(await_event, release) for _ in range(5)]
    guards.append(tether.options(at_exit="cancel").spawn(await_event, release))
    with tether.scope() as s:
        s.options(dedicated=True).spawn(await_event, release)
        pid = os.fork()
        if pid == 0:
            fresh()
            atexit.register(os.write, 1, b"atexit\\n")
            last = dedicated(lambda: (tether.sleep(0.05), os.write(1, b"task\\n")))
            queued = tether.spawn(os.write, 1, b"queued\\n")
            release = None
        else:
            assert status_of(pid) == 0
            release.set()
    """
    )
    ran = run_python(code, check=True)
    assert sorted(ran.out.split()) == ["atexit", "queued", "task"]


def test_fork_in_a_task_on_a_crew_thread_ends_with_the_task(run_python):
    # the thread exits after the task, and with the last thread the process
    code = (
        PRELUDE
        + """
    def forks():
        pid = os.fork()
        if pid != 0:
            return status_of(pid)
        fresh()
        assert type(threading.main_thread()) is threading._MainThread
        signal.pthread_sigmask(signal.SIG_BLOCK, [])
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == blocked
        dedicated(lambda: (tether.sleep(0.05), os.write(1, b"detached\\n"))).detach()
        os.write(1, b"child\\n")
        return "nobody sees this"

    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert dedicated(forks).join() == 0
    assert tether.spawn(forks).join(timeout=60) == 0
    """
    )
    ran = run_python(code, check=True)
    assert sorted(ran.out.split()) == ["child", "child", "detached", "detached"]


def test_failure_of_a_forked_task_on_a_crew_thread_is_reported(run_python):
    # G6: there is no joiner in the child; SystemExit says nothing, as in a Thread
    code = (
        PRELUDE
        + """
    def forks(failure):
        pid = os.fork()
        if pid != 0:
            return status_of(pid)
        raise failure

    assert dedicated(forks, SystemExit(3)).join() == 0
    assert dedicated(forks, ValueError("told")).join() == 0
    """
    )
    ran = run_python(code)
    assert ran.rc == 0
    assert ran.err.count("ValueError: told") == 1
    assert "SystemExit" not in ran.err


IN_PLACE = {
    "join": "tether.spawn(forks).join()",
    "exit value": "tether.spawn(forks).exit_value()",
    "with": "with tether.spawn(forks): pass",
    "scope": "with tether.scope() as s: s.spawn(forks); s.spawn(other)",
    "drop": "warnings.simplefilter('ignore'); tether.spawn(forks); assert os.getpid() == parent, 'went on'",
    "nested": "tether.spawn(lambda: tether.spawn(forks).join()).join()",
}


@pytest.mark.parametrize("how", [how for how in IN_PLACE if how != "drop"])
@pytest.mark.parametrize("end", ["return", "sys.exit(6)", "raise KeyError"])
def test_fork_in_place_unwinds_the_parents_stack_in_the_child(how, end, run_python):
    # what the task raised in the child goes on there; its value has no taker: ForkedError. No other task runs.
    code = (
        PRELUDE
        + f"""
    parent = os.getpid()
    def other():
        assert os.getpid() == parent
    pid = None
    def forks():
        global pid
        if threading.current_thread() is not threading.main_thread():
            return      # a crew thread was faster: once more
        pid = os.fork()
        if pid == 0:
            assert tether.current().id == 0
            {end}
    while pid is None:
        try:
            {IN_PLACE[how]}
            assert os.getpid() == parent
        except (SystemExit, KeyError, tether.ForkedError) as raised:
            fresh()
            os._exit({{SystemExit: 6, KeyError: 7, tether.ForkedError: 8}}[type(raised)])
    assert status_of(pid) == {6 if "exit" in end else 7 if "raise" in end else 8}
    """
    )
    run_python(code, env={"TETHER_PLACE": "inline"}, check=True)


def test_fork_in_a_task_that_a_drop_runs(run_python):
    # nothing is raised out of a destructor; the child goes on behind it
    code = (
        PRELUDE
        + """
    warnings.simplefilter("ignore", ResourceWarning)
    def forks():
        global pid
        pid = os.fork()
    tether.spawn(forks)
    fresh() if pid == 0 else None
    if pid != 0:
        assert status_of(pid) == 0
    """
    )
    run_python(code, env={"TETHER_PLACE": "inline"}, check=True)


WAITS = {
    "join": "guard.join()",
    "with": "with guard: pass",
    "scope": "with tether.scope() as s: s.options(dedicated=True).spawn(await_event, release)",
}


@pytest.mark.parametrize("wait", WAITS)
def test_handler_that_forks_during_a_wait_ends_the_wait_in_the_child(wait, run_python):
    # fault 6: what the child waits for is not there, so it must not wait
    code = (
        PRELUDE
        + f"""
    def handler(*_):
        global pid
        pid = os.fork()
        if pid == 0:
            signal.alarm(60)

    def sends():
        poll(lambda: tether.current().parent is None)
        time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGUSR1)
        poll(lambda: pid is not None)
        assert status_of(pid) == 4
        release.set()

    pid = None
    signal.signal(signal.SIGUSR1, handler)
    guard = dedicated(await_event, release)
    sender = threading.Thread(target=sends)
    sender.start()
    try:
        {WAITS[wait]}
    except tether.ForkedError:
        fresh()
        del guard
        os._exit(4)
    assert pid != 0
    sender.join()
    guard = None
    """
    )
    run_python(code, check=True)


def test_handler_that_forks_during_a_sleep_sleeps_on_in_the_child(run_python):
    code = (
        PRELUDE
        + """
    def handler(*_):
        global pid
        pid = os.fork()

    pid = None
    signal.signal(signal.SIGALRM, handler)
    tether.spawn(int).join()
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    tether.sleep(0.3)
    fresh() if pid == 0 else None
    if pid != 0:
        assert status_of(pid) == 0
    """
    )
    run_python(code, check=True)


def test_handler_that_forks_during_the_drain_exits_in_the_child(run_python):
    # the child has nothing to drain; the parent goes on draining
    code = (
        PRELUDE
        + """
    from threading import Thread
    def handler(*_):
        global pid
        try:
            pid = os.fork()
        except RuntimeError:    # 3.12 and later: "can't fork at interpreter shutdown"
            pid = -1
        if pid == 0:
            signal.alarm(60)

    def sends():
        poll(lambda: threading._SHUTTING_DOWN)
        os.kill(os.getpid(), signal.SIGUSR1)
        poll(lambda: pid is not None)
        if pid > 0:
            assert status_of(pid) == 0
        os.write(1, b"drained\\n")

    pid = None
    signal.signal(signal.SIGUSR1, handler)
    guard = dedicated(sends)
    """
    )
    assert run_python(code, check=True).out == "drained\n"


USES = {
    "drop": "del guard",
    "collect": "guard = [guard]; guard.append(guard); del guard; gc.collect()",
    "leave": "guard.__exit__(None, None, None)",
    "cancel": "assert guard.cancel() is False",
    "kill": "assert guard.kill() is False",
    "ref": "assert guard.task.cancel() is False and guard.task.parent is None and guard.task.name and repr(guard)",
    "capture": "tether.spawn(id, guard).join()",
    "closure": "tether.spawn(lambda: guard.done()).join()",
    "join": "refused(guard.join)",
    "join in time": "refused(guard.join, 1)",
    "exit value": "refused(guard.exit_value)",
    "detach": "refused(guard.detach)",
    "join in a task": "dedicated(refused, guard.join).join()",
    "send": "refused(guard.send, tether.current())",
    "send to a foreign task": "mine = tether.spawn(int); refused(mine.send, guard.task); assert mine.join() == 0",
    "send to a foreign scope": "mine = tether.spawn(int); refused(mine.send, s); assert mine.join() == 0",
    "spawn in a foreign scope": "refused(s.spawn, int); refused(s.options(name='x').spawn, int)",
    "cancel a foreign scope": "refused(s.cancel)",
    "look at a foreign scope": "assert s.tasks() == [] and repr(s) and s.cancelled is False",
    "leave a foreign scope": "assert s.__exit__(None, None, None) is False",
    "join a foreign handle": "refused(handle.join)",
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("state", ["queued", "running", "ended"])
def test_what_the_parent_left_is_foreign(use, state, run_python):
    # fault 12: silent or ForkedError, and never a wait
    code = (
        PRELUDE
        + f"""
    def refused(call, *args):
        try:
            call(*args)
        except tether.ForkedError:
            return
        raise AssertionError("not refused")

    def child():
        global guard, handle
        {USES[use]}
        works()
        assert tether.statistics().tasks_live == tether.statistics().guards == 0

    def make():
        if {state == "queued"}:
            return tether.spawn(int)
        guard = dedicated(await_event, release) if {state == "running"} else dedicated(int)
        poll(guard.done) if {state == "ended"} else None
        return guard

    with tether.scope() as s:
        guard = make()
        handle = s.options(dedicated=True).spawn(await_event, release)
        status = status_of(forked(child))
        release.set()
    guard.join()
    assert status == 0
    """
    )
    run_python(code, check=True)


def test_guards_in_other_threads_locals_are_silent(run_python):
    # CPython clears the other threads' states in the child before any hook runs
    code = (
        PRELUDE
        + """
    local = threading.local()
    ready = threading.Event()
    def keeps():
        local.guard = dedicated(await_event, release)
        local.scope = tether.scope()
        local.scope.__enter__()
        ready.set()
        await_event(release)
        local.scope.__exit__(None, None, None)
        local.guard.join()

    thread = threading.Thread(target=keeps)
    thread.start()
    await_event(ready)
    assert status_of(forked(fresh)) == 0
    release.set()
    thread.join()
    """
    )
    run_python(code, check=True)


def test_generations_of_children_work(run_python):
    # each child uses tether and forks the next, with a task of its own alive
    code = (
        PRELUDE
        + """
    def generation(depth):
        works() if depth == 20 else fresh()
        if depth == 0:
            return
        release = threading.Event()
        guard = dedicated(await_event, release)
        assert status_of(forked(generation, depth - 1)) == 0
        release.set()
        guard.join()

    generation(20)
    """
    )
    run_python(code, check=True)


def test_generations_of_children_do_not_grow(run_python):
    # what a child leaks is what its parent had: a runtime and its living tasks
    code = (
        PRELUDE
        + """
    from support import resident_bytes
    def generation(depth):
        for _ in range(3):
            works()
        if depth == 0:
            assert resident_bytes() < first + (8 << 20), (first, resident_bytes())
        else:
            assert status_of(forked(generation, depth - 1)) == 0

    for _ in range(20):
        works()
    first = resident_bytes()
    generation(40)
    """
    )
    run_python(code, check=True)
