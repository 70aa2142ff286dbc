"""Ctrl-C and other signals while the main thread waits (G12, faults 5 and 6)."""

from __future__ import annotations

PRELUDE = """
    import os, signal, sys, threading
    import tether
    from support import await_event, dedicated, poll

    MAIN = threading.main_thread().ident
    reading, writing = os.pipe()    # no lock: a signal may strike anywhere in the main thread

    def shooter(count, number=signal.SIGINT):
        def shoot():
            for _ in range(count):
                os.read(reading, 1)
                signal.pthread_kill(MAIN, number)
        thread = threading.Thread(target=shoot)
        thread.start()
        return thread

    def announce():
        os.write(writing, b"x")
"""


def test_interrupt_of_a_join_elsewhere_leaves_the_guard_armed(run_python):
    # fault 5
    code = (
        PRELUDE
        + """
    release = threading.Event()
    guard = dedicated(await_event, release)
    thread, hits = shooter(100), 0
    for n in range(100):
        try:
            announce()
            guard.join(timeout=None if n % 2 else 60)
        except KeyboardInterrupt:
            hits += 1
        assert not guard.done()
    thread.join()
    assert hits == 100, hits
    assert tether.statistics().guards == 1
    release.set()
    assert guard.join() is None
    """
    )
    run_python(code, check=True)


def test_interrupt_of_a_task_in_place_ends_it(run_python):
    # fault 5: in place, the task ends with it and is reaped; elsewhere, the guard is still armed
    code = (
        PRELUDE
        + """
    in_place = 0
    for _ in range(100):
        go, stop = [], []

        def busy():
            while not go:
                pass
            announce()
            while not stop:
                pass
            return "stopped"

        guard = tether.spawn(busy)
        thread = shooter(1)
        try:
            go.append(True)
            guard.join()
        except KeyboardInterrupt:
            pass
        else:
            raise AssertionError("not interrupted")
        thread.join()
        stop.append(True)
        try:
            assert guard.join() == "stopped"
        except tether.ReapedError:
            in_place += 1
        assert tether.statistics().guards == 0
        assert tether.current().id == 0
    assert in_place > 0
    """
    )
    run_python(code, check=True)


def test_interrupt_while_a_scope_is_left_cancels_and_joins(run_python):
    # fault 5
    code = (
        PRELUDE
        + """
    ended = []

    def child():
        try:
            tether.sleep(3600)
        finally:
            ended.append(True)

    thread = shooter(100)
    for n in range(100):
        started = threading.Event()
        try:
            with tether.scope() as s:
                s.options(dedicated=True).spawn(lambda: (started.set(), child()))
                await_event(started)
                announce()
        except KeyboardInterrupt:
            pass
        else:
            raise AssertionError("not interrupted")
        assert len(ended) == n + 1
    thread.join()
    stats = tether.statistics()
    assert stats.tasks_live == stats.scopes == 0, stats
    """
    )
    run_python(code, check=True)


def test_interrupt_of_a_sleep_ends_it(run_python):
    # fault 5
    code = (
        PRELUDE
        + """
    thread = shooter(1)
    try:
        announce()
        tether.sleep(3600)
    except KeyboardInterrupt:
        pass
    else:
        raise AssertionError("not interrupted")
    thread.join()
    """
    )
    run_python(code, check=True)


def test_interrupt_of_a_drop_loses_no_task(run_python):
    # fault 5, G1: nothing is raised out of a destructor, so the interrupt comes after it
    code = (
        PRELUDE
        + """
    ended = []

    def entry():
        os.read(reading, 1)
        signal.pthread_kill(MAIN, signal.SIGINT)
        ended.append(True)

    hits = 0
    for n in range(100):
        try:
            guard = dedicated(entry)
            announce()
            del guard
            poll(lambda: False, limit=60)
        except KeyboardInterrupt:
            hits += 1
        guard = None
        poll(lambda: tether.statistics().tasks_live == 0, "the task to end")
        assert len(ended) == n + 1
    assert hits == 100, hits
    """
    )
    run_python(code, check=True)


def test_signal_handler_may_spawn_and_join(run_python):
    # fault 6
    code = (
        PRELUDE
        + """
    results = []

    def handler(*_):
        results.append(tether.spawn(int, 7).join())
        results.append(dedicated(int, 8).join())
        with tether.scope() as s:
            results.append(s.spawn(int, 9).join())
        release.set()

    signal.signal(signal.SIGUSR1, handler)
    for _ in range(20):
        release = threading.Event()
        guard = dedicated(await_event, release)
        thread = shooter(1, signal.SIGUSR1)
        announce()
        assert guard.join() is None
        thread.join()
    assert results == [7, 8, 9] * 20, results
    """
    )
    run_python(code, check=True)


def test_signal_handler_may_join_a_guard_of_the_program(run_python):
    # fault 6
    code = (
        PRELUDE
        + """
    results = []

    def handler(*_):
        results.append(other.join())
        release.set()

    signal.signal(signal.SIGUSR1, handler)
    for n in range(20):
        release = threading.Event()
        guard, other = dedicated(await_event, release), tether.spawn(int, n)
        thread = shooter(1, signal.SIGUSR1)
        announce()
        guard.join()
        thread.join()
    assert results == list(range(20)), results
    """
    )
    run_python(code, check=True)


def test_handler_without_exception_does_not_end_the_wait(run_python):
    # fault 6
    code = (
        PRELUDE
        + """
    seen = []
    release = threading.Event()

    def handler(*_):
        seen.append(True)
        if len(seen) < 20:
            announce()
        else:
            release.set()

    signal.signal(signal.SIGUSR1, handler)
    guard = dedicated(await_event, release)
    thread = shooter(20, signal.SIGUSR1)
    announce()
    assert guard.join(timeout=60) is None
    thread.join()
    assert len(seen) == 20
    """
    )
    run_python(code, check=True)


# G12: a handler that raises while a kill is being cleared away was not heard
def test_interrupt_at_the_end_of_a_killed_task_is_not_lost(run_python):
    ran = run_python(
        """
        import _thread, collections, operator, tether

        calls = []  # in C all of them, so that nothing looks at signals before the task has ended
        guard = tether.spawn(collections.deque, map(operator.methodcaller("__call__"), calls), 0)
        calls += [guard.kill, _thread.interrupt_main]
        try:
            print(guard.exit_value())
            for _ in range(10):
                pass
        except KeyboardInterrupt:
            print("interrupted")
        """,
        timeout=60,
        check=True,
    )
    assert ran.out.splitlines()[-1] == "interrupted"
    assert ran.err == ""


# G12, fault 6: the same, where the main thread goes on to wait for a task that ends when it is told to
def test_interrupt_at_the_end_of_a_killed_task_ends_the_wait_for_its_scope(run_python):
    ran = run_python(
        """
        import _thread, collections, operator, tether

        def sibling():
            while True:
                tether.sleep(0.01)

        calls = []
        try:
            with tether.scope() as s:
                s.options(dedicated=True).spawn(sibling)
                guard = s.spawn(collections.deque, map(operator.methodcaller("__call__"), calls), 0)
                calls += [guard.kill, _thread.interrupt_main]
        except KeyboardInterrupt:
            print("interrupted")
        """,
        timeout=60,
        check=True,
    )
    assert ran.out == "interrupted\n"
