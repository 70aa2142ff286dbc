"""Before a fork, threads that merely linger are ended: a process whose tasks have all ended forks with one thread."""

from __future__ import annotations

import sys

import pytest

PRELUDE = """
    import gc, os, signal, sys, threading, time, warnings
    import tether
    from support import await_event, dedicated, forked, os_threads, poll, status_of

    warnings.simplefilter("error")
    seen = []
    os.register_at_fork(after_in_parent=lambda: seen.append(os_threads()))

    def fork():
        pid = os.fork()     # 3.12 and later warn here if there is more than one thread
        if pid == 0:
            os._exit(7)
        assert status_of(pid) == 7

    def blocked():
        barrier = threading.Barrier(31)
        with tether.scope() as s:
            for _ in range(30):
                s.spawn(barrier.wait, 60)
            barrier.wait(60)
"""

USES = {
    "elsewhere": "assert tether.spawn(int, 3).join(timeout=60) == 3",
    "dedicated": "[guard.join() for guard in [dedicated(int) for _ in range(10)]]",
    "own stack": "tether.options(stack_size=1 << 20).spawn(int).join()",
    "in place": "tether.spawn(int).join()",
    "blocked": "blocked()",
    "detached": "dedicated(int).detach(); poll(lambda: tether.statistics().tasks_live == 0)",
    "unjoined": "guard = dedicated(int); poll(guard.done)",
    "adopted": "box = [dedicated(int)]; box.append(box); poll(box[0].done); del box; gc.collect()",
}


@pytest.mark.parametrize("use", USES)
def test_fork_right_after_use_finds_one_thread(use, run_python):
    # G19; fault 12. Idle, ending, and on their way to the idle list: whatever the threads do, they are gone.
    code = (
        PRELUDE
        + f"""
    for _ in range(20):
        {USES[use]}
        fork()
    assert seen == [1] * 20, seen
    """
    )
    run_python(code, check=True)


def test_fork_in_a_task_in_place_finds_one_thread(run_python):
    # the only living task is on the forking thread's own stack
    code = (
        PRELUDE
        + """
    def inner():
        if threading.current_thread() is threading.main_thread():   # an idle thread may have been faster
            fork()

    def outer():
        dedicated(int).join()
        tether.spawn(inner).join()

    poll(lambda: tether.spawn(outer).join() or len(seen) >= 10, "forks in place")
    assert set(seen) == {1}, seen
    """
    )
    run_python(code, env={"TETHER_PLACE": "inline"}, check=True)


def test_fork_in_a_task_of_the_crew_finds_two_threads(run_python):
    # the crew's own thread cannot wait for itself
    code = (
        PRELUDE
        + """
    warnings.simplefilter("ignore", DeprecationWarning)
    def outer():
        [guard.join() for guard in [dedicated(int) for _ in range(10)]]
        fork()

    for _ in range(10):
        dedicated(outer).join()
    assert seen == [2] * 10, seen
    """
    )
    run_python(code, check=True)


def test_others_hooks_may_use_tether_before_a_fork(run_python):
    # hooks that were registered later run earlier: what they leave behind is ended, too
    code = (
        PRELUDE
        + """
    dedicated(int).join()
    os.register_at_fork(before=lambda: dedicated(int).join())
    for _ in range(10):
        fork()
    assert seen == [1] * 10, seen
    """
    )
    run_python(code, check=True)


def test_living_tasks_keep_their_threads(run_python):
    # fault 12: idle threads of a busy program are not ended and made anew for every fork
    code = (
        PRELUDE
        + """
    warnings.simplefilter("ignore", DeprecationWarning)
    release = threading.Event()
    guard = dedicated(await_event, release)
    fork()
    assert not guard.done()
    assert seen[0] >= 2
    release.set()
    guard.join()
    """
    )
    run_python(code, check=True)


def test_queued_task_starts_after_a_fork_in_its_spawner(run_python):
    # G8: neither the ticker nor an idle thread is lost that the task needs
    code = (
        PRELUDE
        + """
    warnings.simplefilter("ignore", DeprecationWarning)
    for _ in range(50):
        dedicated(int).join()
        guard = tether.spawn(int)
        fork()
        poll(guard.done, "the end of a task that nobody joins")
        guard.join()
    """
    )
    run_python(code, check=True)


def test_spawns_of_other_threads_while_one_forks(run_python):
    # G8: threads leave for the fork while others give them work
    code = (
        PRELUDE
        + """
    warnings.simplefilter("ignore", DeprecationWarning)
    tether.spawn(int).join()    # others import what they need for the first one; not while a fork's hooks run
    stop = threading.Event()
    done = [0, 0]

    def spawns(me):
        while not stop.is_set():
            assert tether.spawn(int, 4).join(timeout=60) == 4
            assert dedicated(int, 5).join() == 5
            guard = tether.spawn(int)
            poll(guard.done, "the start of a task that nobody joins")
            guard.join()
            done[me] += 1

    threads = [threading.Thread(target=spawns, args=(me,)) for me in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(100):
        fork()
        time.sleep(0.0005)
    before = sum(done)
    poll(lambda: sum(done) > before + 10, "spawns going on")
    stop.set()
    for thread in threads:
        thread.join()
    """
    )
    run_python(code, check=True)


def test_many_threads_fork_at_once(run_python):
    # fault 12
    code = (
        PRELUDE
        + """
    warnings.simplefilter("ignore", DeprecationWarning)
    failed = []

    tether.spawn(int).join()
    def forks():
        try:
            for n in range(25):
                dedicated(int).join()
                tether.spawn(int).join(timeout=60)
                fork()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=forks) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed, failed
    assert len(seen) == 150
    assert tether.statistics().tasks_live == 0
    """
    )
    run_python(code, check=True)


@pytest.mark.parametrize("how", ["dropped", "collected"])
def test_fork_in_a_destructor(how, run_python):
    # G5: the wait for the threads is bounded, and none of them needs the collector
    code = (
        PRELUDE
        + f"""
    class Forks:
        parent = os.getpid()

        def __del__(self):
            if os.getpid() == self.parent:  # a child drops what other threads had, too
                fork()

    for n in range(20):
        dedicated(int).join()
        victim = Forks()
        victim.itself = victim if {how == "collected"} else None
        del victim
        gc.collect()
        assert len(seen) == n + 1
    assert seen == [1] * 20, seen
    """
    )
    run_python(code, check=True)


def test_fork_in_a_destructor_of_a_task_argument(run_python):
    # on the crew's thread, while the task ends; and in place
    code = (
        PRELUDE
        + """
    warnings.simplefilter("ignore", DeprecationWarning)
    class Forks:
        parent = os.getpid()

        def __del__(self):
            if os.getpid() == self.parent:  # a child drops what other threads had, too
                fork()

    for _ in range(10):
        dedicated(id, Forks()).join()
        tether.spawn(id, Forks()).join()
        tether.spawn(Forks).join()
        tether.spawn(Forks).detach()
    poll(lambda: len(seen) == 40)
    """
    )
    run_python(code, check=True)


def test_fork_in_a_signal_handler_finds_one_thread(run_python):
    code = (
        PRELUDE
        + """
    signal.signal(signal.SIGUSR1, lambda *_: fork())
    for n in range(20):
        dedicated(int).join()
        os.kill(os.getpid(), signal.SIGUSR1)
        poll(lambda: len(seen) == n + 1)
    assert seen == [1] * 20, seen
    """
    )
    run_python(code, check=True)


def test_fork_in_a_signal_handler_during_waits(run_python):
    # fault 6, 12: the parent goes on waiting
    code = (
        PRELUDE
        + """
    warnings.simplefilter("ignore", DeprecationWarning)
    handled = []
    def handler(*_):
        fork()
        handled.append(1)  # not earlier: a signal inside of a fork would wait for the locks that the fork holds
    signal.signal(signal.SIGUSR1, handler)
    def interrupts():
        for _ in range(5):
            before = len(handled)
            os.kill(os.getpid(), signal.SIGUSR1)
            poll(lambda: len(handled) > before, "the fork")
        return 3

    assert dedicated(interrupts).join() == 3
    with tether.scope() as s:
        handle = s.options(dedicated=True).spawn(interrupts)
    assert handle.join() == 3
    thread = threading.Thread(target=interrupts)
    thread.start()
    while thread.is_alive():
        tether.sleep(0.05)
    """
    )
    run_python(code, check=True)


def test_fork_does_not_hang_on_a_thread_that_cannot_end(run_python):
    # a thread of the crew needs, to end, what the forking thread holds: the fork is made nevertheless
    code = (
        PRELUDE
        + """
    import tether._crew
    warnings.simplefilter("ignore", DeprecationWarning)
    held = threading.Lock()
    leave = tether._crew.leave

    def leave_with_lock():
        with held:
            leave()

    tether._crew.leave = leave_with_lock
    dedicated(int).join()
    with held:
        fork()
    assert seen == [2]
    poll(lambda: os_threads() == 1 or fork())
    """
    )
    run_python(code, check=True)


@pytest.mark.parametrize("order", ["before the drain", "after the drain"])
def test_fork_at_interpreter_exit(order, run_python):
    # threading's exit functions run last-in first-out; from 3.12 on CPython refuses to fork there
    code = (
        PRELUDE
        + f"""
    def at_exit():
        try:
            pid = os.fork()
        except RuntimeError as refused:
            assert sys.version_info >= (3, 12) and "shutdown" in str(refused), refused
        else:
            if pid == 0:
                try:
                    assert tether.spawn(int, 6).join() == 6
                except tether.ShutdownError:
                    assert {order == "after the drain"}
                return      # the child ends as the parent does
            assert status_of(pid) == 0
        print("forked")

    if {order == "after the drain"}:
        threading._register_atexit(at_exit)
    dedicated(int).join()
    if {order == "before the drain"}:
        threading._register_atexit(at_exit)
    """
    )
    ran = run_python(code, check=True)
    assert ran.out == "forked\n"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="3.11 has no interpreters with a GIL of their own")
def test_fork_in_a_subinterpreter_is_refused(run_python):
    # G20
    code = (
        PRELUDE
        + """
    try:
        import _interpreters as interpreters
        ident = interpreters.create("isolated")
    except ImportError:
        import _xxsubinterpreters as interpreters
        ident = interpreters.create(isolated=True)
    script = [
        f"import sys; sys.path[:] = {sys.path!r}",
        "import os, tether",
        "tether.spawn(int).join(timeout=60)",
        "try: os.fork()",
        "except RuntimeError: pass",
        "else: os._exit(9)",
        "assert tether.options(dedicated=True).spawn(int, 4).join() == 4",
    ]
    failure = interpreters.run_string(ident, chr(10).join(script))
    assert failure is None, failure
    interpreters.destroy(ident)
    """
    )
    run_python(code, check=True)


def test_child_of_a_fork_in_the_instant_of_a_kill_may_trace(run_python):  # G12, fault 12
    """The kill of the parent's task leaves nothing behind that keeps a traced function of the child busy for ever."""
    done = run_python(
        """
        import operator, os, threading, warnings, tether
        from support import dedicated

        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads

        def held():
            try:
                list(map(operator.call, [started.release, release.acquire]))  # in C: the kill is not raised yet
            except tether.KilledTask:
                pass

        started, release = threading.Lock(), threading.Lock()
        started.acquire(), release.acquire()
        guard = dedicated(held)
        started.acquire()
        guard.kill()
        pid = os.fork()
        if pid == 0:
            threading.settrace(lambda frame, event, arg: None)
            os._exit(0 if tether.spawn(lambda: 7).join() == 7 else 1)
        release.release()
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status))
        try:
            guard.join()
        except tether.TaskKilled:
            pass
        """,
        timeout=60,
    )
    assert (done.rc, done.out, done.err) == (0, "0\n", "")


def test_hook_from_before_the_import_may_wait_for_a_task(run_python):
    # it runs after ours, when no thread may begin any more
    code = """
    import os, warnings
    warnings.simplefilter("ignore")
    seen = []
    os.register_at_fork(before=lambda: seen.append(work()))

    import tether
    from support import dedicated, forked, status_of

    def work():
        return tether.options(stack_size=1 << 18).spawn(int, 5).join() + dedicated(int, 6).join()

    dedicated(int).join()       # imports modules that have hooks of their own
    for _ in range(3):
        assert status_of(forked(int)) == 0
    assert seen == [11] * 3
    """
    run_python(code, check=True)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring came with Python 3.12")
@pytest.mark.parametrize("when", ["enter", "leave"])
def test_fork_while_a_thread_begins_or_ends(when, run_python):
    # fault 12: in code of the program's that runs then, here a monitoring tool's. The child ends without the task.
    code = f"""
    import os, sys, warnings
    import tether, tether._crew
    from support import status_of

    warnings.simplefilter("ignore")
    parent = os.getpid()
    statuses = []

    def forks(*seen):
        if os.getpid() == parent and len(statuses) < 5:
            pid = os.fork()
            if pid != 0:
                statuses.append(status_of(pid))

    def work():
        if os.getpid() != parent:
            os.write(2, b"a task of the parent runs in a child\\n")

    events = sys.monitoring.events
    sys.monitoring.use_tool_id(3, "forks")
    sys.monitoring.set_local_events(3, tether._crew.{when}.__code__, events.PY_RETURN)
    sys.monitoring.register_callback(3, events.PY_RETURN, forks)
    while len(statuses) < 5:
        with tether.scope() as s:
            s.options(stack_size=1 << 18).spawn(work)
    assert set(statuses) == {{0}}, statuses
    """
    run_python(code, check=True)
