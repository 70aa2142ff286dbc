"""G20: the same library in interpreters that have a GIL of their own."""

from __future__ import annotations

import sys

import pytest

from hundred import ALL

pytestmark = pytest.mark.skipif(
    sys.version_info < (3, 12), reason="CPython 3.11 has no interpreters with a GIL of their own (PEP 684 is 3.12)"
)

DRIVER = '''
import os, sys, textwrap, threading

try:
    import _interpreters as interpreters        # 3.13 and later
    create = lambda: interpreters.create("isolated")
except ImportError:
    import _xxsubinterpreters as interpreters   # 3.12
    create = lambda: interpreters.create(isolated=True)


def execute(script):
    """Run a script in a new interpreter with a GIL of its own, and end the interpreter."""
    ident = create()
    try:
        failure = interpreters.run_string(ident, f"import sys; sys.path[:] = {sys.path!r}\\n" + textwrap.dedent(script))
        if failure is not None:
            raise AssertionError(getattr(failure, "errdisplay", None) or getattr(failure, "formatted", failure))
    finally:
        interpreters.destroy(ident)


def at_once(scripts):
    failures = []

    def run(script):
        try:
            execute(script)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(script,)) for script in scripts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


WORK = """
    import contextvars, threading
    import tether
    from support import await_event, dedicated, poll

    assert tether.current().id == 0
    for n in range(500):
        assert tether.spawn(int, n).join() == n
    for n in range(20):
        assert dedicated(int, n).join() == n
        assert tether.spawn(int, n).join(timeout=60) == n

    def fib(n):
        if n < 2:
            return n
        with tether.scope() as s:
            left = s.spawn(fib, n - 1)
            right = fib(n - 2)
        return left.join() + right

    assert fib(10) == 55

    def fail():
        raise ValueError("inside")

    try:
        with tether.scope() as s:
            s.spawn(fail)
    except* ValueError:
        pass
    else:
        raise AssertionError("the failure was lost")

    events = [threading.Event() for _ in range(20)]

    def chain(n):
        if n + 1 < len(events):
            await_event(events[n + 1])
        events[n].set()

    guards = [tether.spawn(chain, n) for n in range(20)]
    for guard in guards:
        guard.join()
    assert tether.spawn(int, guards[0].done()).join() == 1
    stats = tether.statistics()
    assert stats.tasks_live == stats.guards == stats.scopes == 0, stats
"""
'''


def test_six_interpreters_in_turn_import_spawn_and_join(run_python):
    code = DRIVER + "\nfor _ in range(6):\n    execute(WORK)\n"
    run_python(code, check=True)


def test_six_interpreters_three_at_once_import_spawn_and_join(run_python):
    code = DRIVER + "\nfor _ in range(2):\n    at_once([WORK] * 3)\n"
    run_python(code, check=True)


def test_main_interpreter_works_before_beside_and_after(run_python):
    code = (
        DRIVER
        + """
import tether
from support import dedicated

release = threading.Event()
guard = dedicated(release.wait, 60)
others = threading.Thread(target=at_once, args=([WORK] * 3,))
others.start()
while others.is_alive():
    assert tether.spawn(int, 7).join() == 7
    assert tether.statistics().tasks_live == 1      # the others count their own
others.join()
release.set()
assert guard.join() is True
execute(WORK)
"""
    )
    run_python(code, check=True)


def test_interpreter_that_ends_joins_its_tasks(run_python):
    # G1, G20: unjoined guards, queued and running, in globals and in a cycle
    code = (
        DRIVER
        + '''
reading, writing = os.pipe()
for _ in range(6):
    execute(f"""
        import os
        import tether
        from support import dedicated

        def write():
            tether.sleep(0.05)
            os.write({writing}, b"x")

        guards = [dedicated(write), tether.spawn(write)]
        cycle = [dedicated(write)]
        cycle.append(cycle)
        del cycle
    """)
assert os.read(reading, 100) == b"x" * 18
'''
    )
    run_python(code, check=True)


def test_threads_of_an_ended_interpreter_are_gone(run_python):
    code = (
        DRIVER
        + """
from support import os_threads, poll

execute(WORK)
poll(lambda: os_threads() <= 3, "the threads of the interpreter to end")
before = os_threads()
for _ in range(6):
    execute(WORK)
poll(lambda: os_threads() <= before, "the threads of the interpreters to end")
"""
    )
    run_python(code, check=True)


@pytest.mark.parametrize("spawn", ["tether.spawn", "tether.options(dedicated=True).spawn"], ids=["lazy", "dedicated"])
def test_process_ends_normally_with_an_interpreter_left_open(spawn, run_python):
    # G20: CPython ends it with whatever thread state it finds, and that must not be one of ours
    code = f"""
    try:
        import _interpreters as interpreters
    except ImportError:
        import _xxsubinterpreters as interpreters
    import sys
    left = interpreters.create()
    interpreters.run_string(left, "import tether; {spawn}(int).join()")
    sys.exit(3)
    """
    assert run_python(code).rc == 3


@pytest.mark.skipif(
    sys.version_info[:2] != (3, 13),
    reason="3.12 aborts by itself before it calls anybody; 3.14 lets the threads run on, and the tasks are joined",
)
def test_process_ends_with_an_interpreter_left_open_whose_tasks_are_alive(run_python):
    # G20: CPython lets no thread of that interpreter run any more, so there is no waiting for them; they are named
    code = """
    try:
        import _interpreters as interpreters
    except ImportError:
        import _xxsubinterpreters as interpreters
    import sys, textwrap
    left = interpreters.create()
    interpreters.run_string(left, textwrap.dedent('''
        import tether, threading
        from support import await_event, dedicated

        def hold():
            inside.set()
            threading.Event().wait()

        inside = threading.Event()
        guards = [dedicated(hold), tether.spawn(hold), dedicated(hold)]
        await_event(inside)
    '''))
    sys.exit(3)
    """
    result = run_python(code)
    assert result.rc == 3, result.err
    assert "not waiting for:" in result.err
    assert result.err.count("'hold-") == 3, result.err


# ---- ended with tasks alive ------------------------------------------------------------------------------------------

HUNDRED = """
    import hundred
    hundred.begin()
"""


def test_interpreter_that_ends_joins_a_hundred_tasks(run_python):
    # G1, G20, fault 10
    code = DRIVER + f"\nfor _ in range(3):\n    execute({HUNDRED!r})\n"
    assert run_python(code, check=True).out == ALL * 3


def test_interpreters_that_end_at_once_join_a_hundred_tasks_each(run_python):
    # G1, G20, fault 10: while the main interpreter has its own, which it joins when it ends itself
    code = DRIVER + f"\nimport hundred\nhundred.begin()\nat_once([{HUNDRED!r}] * 3)\nassert not hundred.gate.is_set()\n"
    assert run_python(code, check=True).out == ALL * 4


def test_interpreter_that_ends_cancels_what_asks_for_it(run_python):
    # G12, G20, fault 10: in that interpreter, and in no other
    code = (
        DRIVER
        + '''
import tether

guard = tether.options(dedicated=True, at_exit="cancel").spawn(tether.sleep, 3600)
execute("""
    import os, threading, tether

    def watched():
        try:
            started.set()
            tether.sleep(3600)
        except tether.Cancelled:
            os.write(1, b"cancelled")
            raise

    started = threading.Event()
    guards = [tether.options(dedicated=True, at_exit="cancel").spawn(watched)]
    guards += [tether.options(at_exit="cancel").spawn(tether.sleep, 3600) for _ in range(20)]
    started.wait()
""")
assert not guard.done()
'''
    )
    assert run_python(code, check=True).out == "cancelled"


@pytest.mark.parametrize("first", ["", "tether.spawn(int).join()"], ids=["never used", "used before"])
@pytest.mark.parametrize(
    "place",
    ["atexit.register(attempt)", "sys.late = type('Late', (), {'__del__': attempt})()"],
    ids=["atexit", "finalizer"],
)
def test_spawn_while_an_interpreter_ends_is_refused_there_and_only_there(first, place, run_python):
    # G20, fault 11
    code = (
        DRIVER
        + f'''
import tether

execute("""
    import atexit, os, sys
    import tether

    def attempt(*args, spawn=tether.spawn, refused=tether.ShutdownError, write=os.write):
        try:
            spawn(int)
        except refused:
            write(1, b"refused")

    {first}
    {place}
""")
assert tether.spawn(int, 5).join() == 5
'''
    )
    assert run_python(code, check=True).out == "refused"


def test_interpreter_imports_tether_first_when_it_ends(run_python):
    # G20, fault 11
    code = (
        DRIVER
        + '''
execute("""
    import atexit, os, threading

    def late():
        import tether
        try:
            tether.spawn(int)
        except tether.ShutdownError:
            os.write(1, b"refused")

    atexit.register(late)
""")
'''
    )
    assert run_python(code, check=True).out == "refused"


def test_failure_of_a_task_joined_when_its_interpreter_ends_is_reported(run_python):
    # G6, G20, fault 10
    code = DRIVER + "\nexecute('import tether; guard = tether.options(dedicated=True).spawn(int, \"wrong\")')\n"
    result = run_python(code)
    assert (result.rc, result.out) == (0, "")
    assert "ValueError: invalid literal for int() with base 10: 'wrong'" in result.err


def test_kill_and_cancel_from_a_thread_of_another_interpreter_are_local(run_python):
    # G20, fault 28: the thread is a thread of both; what it does here reaches nobody there
    code = (
        DRIVER
        + '''
import tether
from support import await_event, dedicated

def inside():
    execute("""
        import threading, tether
        from support import await_event, dedicated

        def spin():
            started.set()
            while True:
                pass

        for end in ("cancel", "kill"):
            started = threading.Event()
            guard = dedicated(spin if end == "kill" else tether.sleep, *(() if end == "kill" else (3600,)))
            if end == "kill":
                await_event(started)
            assert getattr(guard, end)() is True
            try:
                guard.join()
            except tether.TaskKilled:
                pass
            else:
                raise AssertionError("it was not ended")
        assert tether.current().id == 0
    """)
    tether.checkpoint()
    return sum(range(10_000))

def wait():
    while not release.is_set():
        tether.sleep(0.001)
    return "free"

release = threading.Event()
bystander = tether.options(dedicated=True, at_exit="cancel").spawn(wait)
assert dedicated(inside).join() == sum(range(10_000))      # a task of this interpreter's enters another one
assert tether.spawn(inside).join() == sum(range(10_000))   # in place
release.set()
assert bystander.join() == "free"
'''
    )
    run_python(code, check=True)


PARALLEL = """
    import operator
    import tether

    for _ in range(3):
        assert list(tether.par_map(abs, range(-2000, 0))) == list(range(2000, 0, -1))
        assert sorted(tether.par_map(abs, range(50), ordered=False)) == list(range(50))
        assert tether.par_reduce(int, operator.add, range(1000), 0) == 499500
        assert tether.join(lambda: 1, lambda: 2) == (1, 2)
    seen = []
    tether.par_for(100, seen.append)
    assert sorted(seen) == list(range(100))

    with tether.Executor(1) as pool:

        def down(n):
            return n and 1 + pool.submit(down, n - 1).result()

        assert pool.submit(down, 100).result() == 100
        assert list(pool.map(abs, range(-5, 5))) == [5, 4, 3, 2, 1, 0, 1, 2, 3, 4]
    kept = tether.Executor(2)
    assert kept.submit(int, "3").result() == 3  # its workers sleep when the interpreter ends
    half = tether.par_map(abs, range(100), chunksize=1)
    assert next(half) == 0
"""


def test_parallel_work_in_interpreters_at_once(run_python):
    # G20
    run_python(DRIVER + f"PARALLEL = {PARALLEL!r}\nat_once([PARALLEL] * 4)\nat_once([PARALLEL] * 4)\n", check=True)


def test_code_that_waits_at_a_threads_end_leaves_it_usable(run_python):
    # G20: in a sub-interpreter a crew thread gives its thread state back after each task, and serves on
    code = (
        DRIVER
        + """
script = '''
import sys, threading
import tether, tether._crew
from support import dedicated, poll

waits = []

def at_the_end(*seen):
    if threading.current_thread() is not threading.main_thread():
        tether.sleep(0.002)
        waits.append(1)

sys.monitoring.use_tool_id(3, "waits")
sys.monitoring.set_local_events(3, tether._crew.leave.__code__, sys.monitoring.events.PY_RETURN)
sys.monitoring.register_callback(3, sys.monitoring.events.PY_RETURN, at_the_end)
for turn in range(5):
    assert dedicated(int, turn).join() == turn
    poll(lambda: len(waits) > turn)
'''
execute(script)
"""
    )
    run_python(code, check=True)
