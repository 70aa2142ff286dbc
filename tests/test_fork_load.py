"""Forking with 50 tasks of every kind alive and tether's locks busy: no child hangs, no task of the parent notices."""

from __future__ import annotations

import pytest

LOAD = """
    import os, sys, threading, time, warnings
    import tether
    from support import await_event, dedicated, forked, poll, status_of

    warnings.simplefilter("ignore", DeprecationWarning)     # threads are alive, which is the point
    sys.setswitchinterval(0.0005)
    parent = os.getpid()
    stop = threading.Event()
    turns = [0] * 50

    def here():
        if os.getpid() != parent:
            os.write(2, b"a task of the parent runs in a child\\n")

    def naps(me):
        while not stop.is_set():
            time.sleep(0.002)
            here()

    def sleeps(me):
        while not stop.is_set():
            tether.sleep(0.002)
            here()

    def waits(me):
        await_event(stop)
        here()

    def joins(me):
        dedicated(waits, me).join()
        here()

    def leaves(me):
        with tether.scope() as s:
            s.options(dedicated=True).spawn(waits, me)
        here()

    def computes(me):
        while not stop.is_set():
            turns[me] += 1
        here()

    def churns(me):
        while not stop.is_set():
            with tether.scope() as s:
                handles = [s.options(dedicated=True).spawn(int, n) for n in range(3)]
            assert sum(handle.join() for handle in handles) == 3
            inner = tether.spawn(int, 4)
            assert dedicated(lambda guard: guard.join(), inner).join() == 4
            turns[me] += 1
            here()

    KINDS = [naps] * 4 + [sleeps] * 8 + [waits] * 8 + [joins] * 5 + [leaves] * 5 + [computes] * 2 + [churns] * 4
    guards = [dedicated(kind, me) for me, kind in enumerate(KINDS)]
    poll(lambda: all(turns[KINDS.index(computes) : len(KINDS)]), "load")
    assert tether.statistics().tasks_live >= 46

    def work(n):
        assert tether.statistics() == tether.Statistics(*[0] * 9)
        assert tether.tasks() == [] and tether.current().id == 0
        assert threading.enumerate() == [threading.main_thread()]
        lazy = tether.spawn(pow, n, 2)
        with tether.scope() as s:
            one = s.options(dedicated=True).spawn(int, n)
            two = s.spawn(int, 2)
        assert (lazy.join(), one.join(), two.join()) == (n * n, n, 2)

    def settle():
        poll(lambda: sum(turns) > before, "the load going on")
        stop.set()
        for guard in guards:
            guard.join()
        assert tether.statistics().guards == tether.statistics().tasks_live == 0
"""


def test_thousand_forks_under_load(run_python):
    # fault 12: each child works, a tenth of them ends as a program does, with the parent's guards in its globals
    code = (
        LOAD
        + """
    import signal
    for batch in range(100):
        queued = [tether.spawn(here) for _ in range(4)]
        waiting = [(forked(work, n), 0) for n in range(9)]
        pid = os.fork()
        if pid == 0:
            signal.alarm(60)
            work(batch)
            sys.exit(5)
        for pid, status in [*waiting, (pid, 5)]:
            assert status_of(pid) == status
        for guard in queued:
            guard.join()
    before = sum(turns)
    settle()
    """
    )
    run_python(code, check=True)


@pytest.mark.parametrize("where", ["in place", "dedicated", "elsewhere"])
def test_forks_in_tasks_under_load(where, run_python):
    # fault 12
    code = (
        LOAD
        + f"""
    def forks():
        for n in range(10):
            assert status_of(forked(work, n)) == 0
        return 3

    if {where == "in place"}:
        assert tether.spawn(forks).join() == 3
    elif {where == "dedicated"}:
        assert dedicated(forks).join() == 3
    else:
        assert tether.spawn(forks).join(timeout=60) == 3
    before = sum(turns)
    settle()
    """
    )
    run_python(code, check=True)


def test_tasks_that_fork_at_once_under_load(run_python):
    # fault 12
    code = (
        LOAD
        + """
    def forks():
        for n in range(5):
            assert status_of(forked(work, n)) == 0

    with tether.scope() as s:
        for _ in range(6):
            s.options(dedicated=True).spawn(forks)
    before = sum(turns)
    settle()
    """
    )
    run_python(code, check=True)


def test_forks_while_threads_begin_and_end(run_python):
    # fault 12: a new thread takes locks of CPython's, which the child needs before it runs anything (3.11: gh-112275),
    # and each task here has a new one.
    code = """
    import sys, warnings
    import tether
    from support import dedicated, forked, status_of

    warnings.simplefilter("ignore", DeprecationWarning)
    sys.setswitchinterval(0.0005)       # threads begin while another one forks: the more often, the less each computes
    stop = False

    def begin_and_end():
        while not stop:
            with tether.scope() as s:
                for n in range(20):
                    s.options(dedicated=True, stack_size=1 << 18).spawn(int, n)

    def work(n):
        assert dedicated(pow, n, 2).join() == n * n

    guards = [dedicated(begin_and_end) for _ in range(3)]
    for n in range(100 if "t" in sys.abiflags else 400):    # without a GIL a fork stops the world first
        assert status_of(forked(work, n)) == 0
    stop = True
    for guard in guards:
        guard.join()
    """
    run_python(code, check=True)
