"""G20: on free-threaded builds the GIL stays off, and tasks are safe without it."""

from __future__ import annotations

import sysconfig

import pytest

pytestmark = pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this build of CPython cannot run without the GIL"
)


def test_import_does_not_switch_the_gil_on(run_python):
    code = """
        import sys
        assert not sys._is_gil_enabled()
        import tether
        assert not sys._is_gil_enabled()
        assert tether.spawn(sys._is_gil_enabled).join() is False
        assert tether.options(dedicated=True).spawn(sys._is_gil_enabled).join() is False
        assert not sys._is_gil_enabled()
    """
    run_python(code, env={"PYTHONWARNINGS": "error", "PYTHON_GIL": ""}, check=True)


def test_threads_that_spawn_and_join_at_once_do_not_disturb_each_other(run_python):
    # G7, G9
    code = """
        import threading, tether

        def work(base):
            barrier.wait(60)
            for n in range(2_000):
                assert tether.spawn(int, base + n).join() == base + n
                if n % 20 == 0:
                    with tether.scope() as s:
                        handles = [s.spawn(int, k) for k in range(20)]
                    assert [handle.join() for handle in handles] == list(range(20))
            ended.append(base)

        ended, barrier = [], threading.Barrier(4)
        threads = [threading.Thread(target=work, args=(n * 10_000,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(ended) == 4
        stats = tether.statistics()
        assert stats.tasks_live == stats.guards == stats.scopes == 0, stats
    """
    run_python(code, check=True)


def test_one_object_dropped_by_many_threads(run_python):
    code = """
        import gc, threading, weakref, tether
        from support import Token, poll

        token = Token()
        watcher = weakref.ref(token)
        with tether.scope() as s:
            for _ in range(2_000):
                s.spawn(lambda given: given is not None, token)
        del token
        gc.collect()
        poll(lambda: watcher() is None, "the object released")
    """
    run_python(code, check=True)
