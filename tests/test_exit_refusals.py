"""Fault 11: who spawns when the interpreter has joined its tasks is refused, and nothing else happens."""

from __future__ import annotations

import pytest

PRELUDE = """
    import atexit, os, sys, threading, weakref
    import tether
    from support import WAIT, await_event, dedicated

    class Attempt:
        # Holds what it needs: the module's globals may be gone when it is called.
        ways = (tether.spawn, tether.options(dedicated=True).spawn, tether.options(at_exit="cancel").spawn)

        def __init__(self, refused=tether.ShutdownError, write=os.write):
            self.refused, self.write = refused, write

        def __call__(self, *args):
            for spawn in self.ways:
                try:
                    spawn(int)
                except self.refused:
                    self.write(1, b"refused\\n")

    attempt = Attempt()
"""

FIRST = {"never used": "", "used before": "tether.spawn(int).join()", "used by a thread": "dedicated(int).join()"}

PLACES = {
    "atexit": "atexit.register(attempt)",
    "finalizer of a global": "class Late:\n        __del__ = attempt.__call__\n    late = Late()",
    "finalizer of a module's global": (
        "import types\n    class Late:\n        def __del__(self, attempt=attempt): attempt()\n"
        "    module = sys.modules['late'] = types.ModuleType('late')\n    module.late = Late()\n    del module"
    ),
    "finalizer in a cycle": (
        "import gc; gc.disable()\n    class Late:\n        def __del__(self, attempt=attempt): attempt()\n"
        "    late = Late(); late.late = late; del late"
    ),
    "weakref callback": (
        "import types\n    class Dies: pass\n    module = sys.modules['late'] = types.ModuleType('late')\n"
        "    module.dies = Dies()\n    sys.late = weakref.ref(module.dies, lambda _, attempt=attempt: attempt())\n"
        "    del module"
    ),
    "weakref.finalize": "class Dies: pass\n    dies = Dies()\n    finalize = weakref.finalize(dies, attempt)",
    "generator closed at exit": (
        "def generate(attempt=attempt):\n        try:\n            yield\n        finally:\n            attempt()\n"
        "    sys.late = generate(); next(sys.late)"
    ),
}


@pytest.mark.parametrize("first", FIRST.values(), ids=FIRST)
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_spawn_during_finalization_is_refused(place, first, run_python):
    # fault 11
    result = run_python(PRELUDE + f"    {first}\n    {place}\n", check=True)
    assert result.out == "refused\n" * 3


@pytest.mark.parametrize("early", [True, False], ids=["registered before the import", "registered after it"])
def test_spawn_from_atexit_is_refused_whenever_the_handler_was_registered(early, run_python):
    # fault 11
    register, imports = "atexit.register(late)", "import tether; tether.spawn(int).join()"
    code = f"""
    import atexit, os

    def late():
        import tether
        scoped = lambda: tether.scoped(lambda s: s.spawn(int))
        for attempt in (lambda: tether.spawn(int), scoped):
            try:
                attempt()
            except tether.ShutdownError:
                os.write(1, b"refused\\n")
            except BaseExceptionGroup as group:
                os.write(1, b"refused\\n" * isinstance(group.exceptions[0], tether.ShutdownError))

    {register if early else imports}
    {imports if early else register}
    """
    assert run_python(code, check=True).out == "refused\n" * 2


@pytest.mark.parametrize("how", ["atexit.register(late)", "sys.late = Late()", "threading._register_atexit(late)"])
def test_first_import_of_tether_at_exit_loads_it_and_spawn_is_refused(how, run_python):
    # fault 11: nothing of it was there when threading began to shut down
    code = f"""
    import atexit, os, sys, threading

    def late():
        import tether
        assert tether.current().id == 0 and tether.tasks() == []
        try:
            tether.spawn(int)
        except tether.ShutdownError:
            os.write(1, b"refused\\n")

    class Late:
        __del__ = lambda self, late=late: late()

    {how}
    """
    result = run_python(code)
    assert result.rc == 0
    if "Late" not in how:  # by then imports fail, which is the interpreter's affair
        assert (result.out, result.err) == ("refused\n", "")


def test_first_import_of_tether_by_a_thread_at_exit_loads_it_and_spawn_is_refused(run_python):
    # fault 11: the main thread has ended, and threading takes no exit function any more
    code = """
    import os, threading

    def late():
        exiting.wait()
        import tether
        try:
            tether.spawn(int)
        except tether.ShutdownError:
            os.write(1, b"refused\\n")

    exiting = threading.Event()
    threading.Thread(target=late).start()
    threading._register_atexit(exiting.set)
    """
    assert run_python(code, check=True).out == "refused\n"


def test_daemon_threads_that_spawn_at_exit_are_refused_in_the_end(run_python):
    # faults 10 and 11: before that, what they spawned is joined, whatever they do with the guards
    code = (
        PRELUDE
        + """
    def churn(let_go, told):
        try:
            while True:
                let_go(tether.spawn(int))
                let_go(dedicated(int))
        except tether.ShutdownError:
            os.write(1, b"refused\\n")
            told.set()

    guards = []
    ways = [lambda guard: guard.join(), lambda guard: guard.exit_value(1), lambda guard: guard.detach(),
            lambda guard: guards.append(guard), lambda guard: None, lambda guard: guard.cancel()]
    told = [threading.Event() for _ in ways]
    atexit.register(lambda: [await_event(event) for event in told])
    for way, event in zip(ways, told):
        threading.Thread(target=churn, args=(way, event), daemon=True).start()
    keeper = dedicated(tether.sleep, 0.05)
    """
    )
    assert run_python(code, check=True).out == "refused\n" * 6


def test_daemon_threads_may_be_anywhere_when_the_interpreter_goes(run_python):
    # fault 10: they are never told, and end (or hang) when they come back for the interpreter
    code = (
        PRELUDE
        + """
    def churn():
        while True:
            try:
                tether.spawn(int).join()
                dedicated(int).join()
                with tether.scope() as s:
                    s.spawn(int)
            except (tether.ShutdownError, ExceptionGroup):
                tether.sleep(0.0001)

    for _ in range(4):
        threading.Thread(target=churn, daemon=True).start()
    keeper = dedicated(tether.sleep, 0.02)
    """
    )
    for _ in range(5):
        assert run_python(code, check=True).out == ""


def test_what_was_refused_leaves_nothing_behind(run_python):
    # fault 11: neither counters nor arguments nor guards given as arguments
    code = (
        PRELUDE
        + """
    class Argument: pass

    def late():
        argument = Argument()
        watch = weakref.ref(argument)
        for spawn in attempt.ways:
            try:
                spawn(lambda *args: None, argument, guard)
            except tether.ShutdownError:
                os.write(1, b"refused\\n")
        del argument
        import gc; gc.collect()
        assert watch() is None
        stats = tether.statistics()
        assert (stats.tasks_live, stats.tasks_queued, stats.scopes, stats.guards) == (0, 0, 0, 1), stats
        assert guard.join() == 5

    guard = dedicated(int, 5)
    atexit.register(late)
    """
    )
    assert run_python(code, check=True).out == "refused\n" * 3
