"""A forked child starts afresh; the parent goes on. (Forking under load is a later issue.)"""

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
    guard = tether.options(dedicated=True).spawn(release.wait, {WAIT})
    pid = os.fork()
    if pid == 0:
        sys.exit(3)  # through atexit and threading's shutdown: nothing to wait for
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    release.set()
    guard.join()
    """
    assert run_python(code, check=True).out == "3\n"
