"""A kill in the midst of an import: the import system stays whole for everybody else (G12, fault 28)."""

from __future__ import annotations


# G12, fault 28: the lock of the import system was left taken, and nobody could import any more
def test_killed_task_leaves_no_lock_of_the_import_system_taken(run_python):
    ran = run_python(
        """
        import _imp, threading, tether
        from importlib import _bootstrap
        from support import await_event, dedicated

        def entry(started):
            lock = _bootstrap._get_module_lock("colorsys")
            lock.acquire()
            _imp.acquire_lock()
            _imp.acquire_lock()
            started.set()
            while True:
                pass

        started = threading.Event()
        guard = dedicated(entry, started)
        await_event(started)
        guard.kill()
        assert isinstance(guard.exit_value(), tether.Killed)
        import colorsys
        print(colorsys.rgb_to_yiq(0, 0, 0))
        """,
        timeout=60,
        check=True,
    )
    assert ran.out == "(0.0, 0.0, 0.0)\n"


# G12, fault 28: the wake-up for all that wait was handed to one that was killed, and stopped there
def test_kill_of_a_task_that_waits_for_an_import_spares_those_that_wait_with_it(run_python, tmp_path):
    (tmp_path / "slow.py").write_text("import __main__\n__main__.begun.set()\n__main__.await_event(__main__.go)\n")
    ran = run_python(
        f"""
        import sys, threading, tether
        from support import await_event, dedicated, poll
        sys.path.insert(0, {str(tmp_path)!r})
        begun, go = threading.Event(), threading.Event()

        def entry():
            import slow
            return slow.__name__

        def waiting():
            return [frame.f_code.co_name for frame in sys._current_frames().values()].count("acquire")

        first = dedicated(entry)
        await_event(begun)
        others = []
        for n in range(4):
            others.append(dedicated(entry))
            poll(lambda: waiting() == n + 1)
        for other in others[:3]:
            other.kill()
        go.set()
        print(first.join(), others[3].join())
        for other in others[:3]:
            assert isinstance(other.exit_value(), tether.Killed)
        """,
        timeout=60,
        check=True,
    )
    assert ran.out == "slow slow\n"


# G12, fault 28: the same for one that is killed half way through giving the lock back
def test_kill_at_the_end_of_an_import_wakes_those_that_wait_for_it(run_python):
    ran = run_python(
        """
        import sys, threading, tether
        from importlib import _bootstrap
        from support import await_event, dedicated, poll

        def entry():
            lock = _bootstrap._get_module_lock("colorsys")
            lock.acquire()
            begun.set()
            await_event(go)
            lock.count = type(lock.count)()  # what release() does first; KilledTask may come right behind it
            half.set()
            while True:
                pass

        def waiter():
            import colorsys
            return colorsys.__name__

        def waiting():
            return "acquire" in [frame.f_code.co_name for frame in sys._current_frames().values()]

        begun, go, half = threading.Event(), threading.Event(), threading.Event()
        first = dedicated(entry)
        await_event(begun)
        second = dedicated(waiter)
        poll(waiting)
        go.set()
        await_event(half)
        first.kill()
        print(second.join())
        assert isinstance(first.exit_value(), tether.Killed)
        """,
        timeout=60,
        check=True,
    )
    assert ran.out == "colorsys\n"


# G12, fault 33: only what the killed task itself has taken is given back
def test_kill_of_a_task_in_place_below_an_import_leaves_the_import_its_lock(run_python, tmp_path):
    (tmp_path / "outer.py").write_text(
        "import __main__, tether\n"
        "with tether.scope() as s:\n"
        "    handle = s.spawn(__main__.entry)\n"
        "    print(type(handle.exit_value()).__name__)\n"
        "print(__main__.owner('outer') == __main__.get_ident())\n"
    )
    ran = run_python(
        f"""
        import sys, tether
        from importlib import _bootstrap
        from threading import get_ident
        sys.path.insert(0, {str(tmp_path)!r})

        def owner(name):
            return _bootstrap._module_locks[name]().owner

        def entry():
            print(owner("outer") == get_ident())
            tether.current().kill()
            while True:
                pass

        import outer
        print("outer" in _bootstrap._module_locks)
        """,
        timeout=60,
        check=True,
    )
    assert ran.out == "True\nKilled\nTrue\nFalse\n"


# G12, fault 28
def test_kills_at_any_moment_of_an_import_spare_those_that_import_the_same(run_python, tmp_path):
    for n in range(100):
        (tmp_path / f"module{n}.py").write_text("x = 1\n" * 20)
    ran = run_python(
        f"""
        import sys, tether
        from support import dedicated, poll
        sys.path.insert(0, {str(tmp_path)!r})
        sys.dont_write_bytecode = True
        sys.unraisablehook = lambda args: None  # a kill may come in a callback of importlib's

        def victim(name, begun):
            begun.append(name)  # not an Event: a kill may leave its lock taken, as any that is taken in Python code
            while True:
                __import__(name)
                tether.checkpoint()

        for n in range(100):
            begun = []
            victims = [dedicated(victim, f"module{{n}}", begun) for _ in range(3)]
            others = [dedicated(__import__, f"module{{n}}") for _ in range(2)]
            poll(lambda: begun)
            for _ in range(n):  # a little later each time
                pass
            for guard in victims:
                guard.kill()
            for guard in others:
                assert guard.join().__name__ == f"module{{n}}"
            for guard in victims:
                assert isinstance(guard.exit_value(), tether.Killed)
        """,
        timeout=120,
        check=True,
    )
    assert ran.err == ""
