"""What other tools see of tasks: tracers, profilers, coverage, debuggers, samplers; and the standard library inside."""

from __future__ import annotations

import ast
import bdb
import concurrent.futures
import contextvars
import cProfile
import decimal
import faulthandler
import gc
import io
import json
import linecache
import os
import pstats
import queue
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import threading
import warnings
from pathlib import Path

import pytest

import tether
from support import PLACES, Held, await_event, dedicated, entry_of, run_dedicated

BUILD = f"{sys.version_info[0]}.{sys.version_info[1]}{'t' if sysconfig.get_config_var('Py_GIL_DISABLED') else ''}"

needs_monitoring = pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring came with Python 3.12")


@pytest.fixture(params=sorted(PLACES))
def run(request):
    return PLACES[request.param]


# ---- trace functions and profilers ----------------------------------------------------------------------------------


def test_trace_function_set_inside_a_task_is_the_tasks_alone(run):
    # fault 32
    events = []

    def hook(frame, event, arg):
        events.append((frame.f_code.co_name, event))
        return hook

    def traced():
        return 1

    def entry():
        sys.settrace(hook)
        return traced()

    before = sys.gettrace()
    run(entry)
    assert ("traced", "call") in events
    assert ("traced", "return") in events
    events.clear()
    assert run(sys.gettrace) is None
    assert sys.gettrace() is before
    run(traced)
    assert events == []


ALL_THREADS = """
    import sys, threading, tether
    from support import Held, entry_of, PLACES, await_event, dedicated

    seen = set()

    def hook(frame, event, arg):
        if event == "call" and frame.f_code.co_name.startswith("marked"):
            seen.add(frame.f_code.co_name)

    inside, go = threading.Event(), threading.Event()

    def marked_later():
        pass

    def marked_new():
        pass

    def runs_already():
        inside.set()
        await_event(go)
        marked_later()

    guard = dedicated(runs_already)
    await_event(inside)
    threading.set{kind}_all_threads(hook)
    go.set()
    guard.join()
    assert seen == {{"marked_later"}}, seen
    for name, run in PLACES.items():
        seen.clear()
        run(marked_new)
        assert seen == {{"marked_new"}}, (name, seen)
    assert sys.get{kind}() is hook
    threading.set{kind}_all_threads(None)
    assert sys.get{kind}() is None
    for name, run in PLACES.items():
        seen.clear()
        run(marked_new)
        assert not seen, (name, seen)
"""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="threading.settrace_all_threads came with Python 3.12")
@pytest.mark.parametrize("kind", ["trace", "profile"])
def test_hook_for_all_threads_reaches_tasks_that_run_and_those_to_come(kind, run_python):
    # G18
    run_python(ALL_THREADS.format(kind=kind), check=True)


@needs_monitoring
def test_monitoring_sees_tasks_wherever_they_run(run):
    # G18: events are the interpreter's, and the joiner's are not lost
    monitoring = sys.monitoring
    calls = []

    def marked():
        return threading.get_ident()

    def joiner():
        return run(marked)

    def on_start(code, offset):
        if code in (marked.__code__, joiner.__code__):
            calls.append((code.co_name, threading.get_ident()))

    tool = 4
    monitoring.use_tool_id(tool, "tether-test")
    try:
        monitoring.register_callback(tool, monitoring.events.PY_START, on_start)
        for fn in (marked, joiner):
            monitoring.set_local_events(tool, fn.__code__, monitoring.events.PY_START)
        for _ in range(3):
            calls.clear()
            ident = joiner()
            assert calls == [("joiner", threading.get_ident()), ("marked", ident)]
    finally:
        monitoring.free_tool_id(tool)


def test_profiler_of_the_joiner_does_not_see_the_task_and_goes_on_after_it(run, run_python):
    # fault 32: as with a Thread; threading.setprofile is for that
    code = f"""
        import cProfile, io, pstats, sys
        from support import Held, entry_of, PLACES

        def task():
            return in_task()

        def in_task():
            return 1

        def after():
            return 2

        run = PLACES[{next(name for name, value in PLACES.items() if value is run)!r}]
        profile = cProfile.Profile()
        profile.enable()
        run(task)
        after()
        profile.disable()
        names = {{name for _, _, name in pstats.Stats(profile, stream=io.StringIO()).stats}}
        assert "after" in names, names
        if sys.version_info < (3, 12):  # from 3.12 cProfile is a monitoring tool, which sees all threads
            assert "in_task" not in names, names
    """
    run_python(code, check=True)


def test_profiler_inside_a_task_profiles_the_task(run):
    # G18
    def work():
        return sum(range(10))

    def entry():
        profile = cProfile.Profile()
        profile.runcall(work)
        return {name for _, _, name in pstats.Stats(profile, stream=io.StringIO()).stats}

    assert "work" in run(entry)


DEBUGGED = """
def body(n):
    first = n + 1
    second = first * 2
    return second
"""


class Recorder(bdb.Bdb):
    """A debugger that notes where it stopped."""

    def __init__(self):
        super().__init__()
        self.stops = []

    def user_line(self, frame):
        if self.break_here(frame):
            self.stops.append((frame.f_lineno, frame.f_locals["first"], threading.get_ident()))
        self.set_continue()


def test_breakpoint_set_for_threads_stops_inside_tasks(run, tmp_path):
    # G18: as a debugger does that follows threads
    file = tmp_path / "debugged.py"
    file.write_text(DEBUGGED)
    linecache.checkcache(str(file))
    space = {}
    exec(compile(DEBUGGED, str(file), "exec"), space)
    line = next(n for n, text in enumerate(DEBUGGED.splitlines(), 1) if "second =" in text)

    def traced(fn, *args):
        debugger = Recorder()
        debugger.set_break(str(file), line)
        debugger.reset()
        debugger.botframe = None
        previous = threading.gettrace()
        threading.settrace(debugger.trace_dispatch)
        try:
            return fn(*args), debugger.stops
        finally:
            threading.settrace(previous)
            debugger.clear_all_breaks()

    def entry(n):
        return space["body"](n), threading.get_ident()

    (value, ident), stops = traced(run, entry, 4)
    assert value == 10
    assert stops == [(line, 5, ident)]


# ---- coverage -------------------------------------------------------------------------------------------------------

COVERED = """\
import threading
import tether
from support import Held, entry_of, dedicated


def lazy(flag):
    if flag:
        result = "lazy"
    else:
        result = "never"
    return result


def elsewhere(flag):
    if flag:
        result = "elsewhere"
    else:
        result = "never"
    inner = tether.spawn(nested, flag).join()
    return result + inner


def nested(flag):
    if not flag:
        return "never"
    return " nested"


def own(flag):
    for step in range(2):
        last = step
    if last == 5:
        return "never"
    return "dedicated"


def failing(flag):
    try:
        raise ValueError("in a task")
    except KeyError:
        return "never"


def main():
    assert tether.spawn(lazy, True).join() == "lazy"
    assert tether.spawn(elsewhere, True).join(timeout=90) == "elsewhere nested"
    assert dedicated(own, True).join() == "dedicated"
    try:
        dedicated(failing, True).join()
    except ValueError:
        after = True
    return after


main()
"""

MEASURE = """
    import json, runpy, sys
    import coverage

    source, data = sys.argv[1:]
    cov = coverage.Coverage(
        data_file=data, include=[source], config_file=False, concurrency=["thread"], branch={branch}
    )
    if cov.get_option("run:core") == "pytrace":
        # The tracer written in Python wonders at the end that one thread had two trace functions: the second was the
        # one of a task in place. The lines are right all the same.
        cov.set_option("run:disable_warnings", ["trace-changed"])
    cov.start()
    runpy.run_path(source)
    cov.stop()
    tracers = [type(tracer).__name__ for tracer in getattr(cov._collector, "tracers", [])]
    core = dict(cov.sys_info()).get("core", tracers)
    print(json.dumps([sorted(cov.get_data().lines(source)), str(core)]))
"""


def lines_that_run(source):
    """Return the numbers of all statements' lines but those that say "never" and what leads to them alone."""
    lines = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.stmt):
            lines.add(node.lineno)
        if isinstance(node, ast.ExceptHandler):
            lines.add(node.lineno)
    text = source.splitlines()
    return sorted(line for line in lines if '"never"' not in text[line - 1])


def coverage_cores():
    """Return the pairs (core, branch) that coverage has on this build."""
    cores = ["pytrace"]
    try:
        from coverage import tracer  # noqa: F401
    except ImportError:
        pass  # coverage publishes no wheel with its C tracer for this build
    else:
        cores.append("ctrace")
    pairs = [(core, branch) for core in cores for branch in (False, True)]
    if sys.version_info >= (3, 12):
        pairs.append(("sysmon", False))
    if sys.version_info >= (3, 14):  # before, sys.monitoring cannot measure branches
        pairs.append(("sysmon", True))
    return pairs


@pytest.mark.parametrize(("core", "branch"), coverage_cores())
def test_coverage_measures_the_lines_of_all_tasks(core, branch, run_python, tmp_path):
    # G18
    pytest.importorskip("coverage", reason="the test extra is not installed")
    source = tmp_path / "covered.py"
    source.write_text(COVERED)
    args = ("-c", "import textwrap\nexec(textwrap.dedent(" + repr(MEASURE.format(branch=branch)) + "))")
    ran = run_python(args=(*args, str(source), str(tmp_path / "data")), env={"COVERAGE_CORE": core}, check=True)
    lines, used = json.loads(ran.out)
    assert lines == lines_that_run(COVERED), used


# ---- faulthandler, samplers, tracemalloc ----------------------------------------------------------------------------


def test_faulthandler_shows_frames_and_names_of_tasks():
    # G18
    with Held(name="stuck task"), tempfile.TemporaryFile() as file:
        faulthandler.dump_traceback(file=file, all_threads=True)
        file.seek(0)
        text = file.read().decode()
    (block,) = (block for block in text.split("\n\n") if "in hold" in block)
    if sys.version_info >= (3, 14):
        assert "[stuck task]" in block.splitlines()[0]


def test_current_frames_and_exceptions_show_tasks():
    # G18
    inside, release = threading.Event(), threading.Event()

    def handling():
        try:
            raise KeyError("handled")
        except KeyError:
            inside.set()
            await_event(release)

    guard = dedicated(handling)
    await_event(inside)
    ident = entry_of(guard).ident
    frame, names = sys._current_frames()[ident], []
    while frame is not None:
        names.append(frame.f_code.co_name)
        frame = frame.f_back
    exception = sys._current_exceptions()[ident]
    if isinstance(exception, tuple):  # 3.11
        exception = exception[1]
    release.set()
    guard.join()
    assert names[-1] == "handling"
    assert repr(exception) == "KeyError('handled')"
    del exception


def test_tracemalloc_names_the_line_in_the_task(run_python):
    # G18
    code = """
        import tracemalloc
        from support import Held, entry_of, PLACES

        def allocate():
            return bytearray(300_000), allocate.__code__.co_firstlineno + 1

        tracemalloc.start(5)
        for name, run in PLACES.items():
            block, line = run(allocate)
            trace = tracemalloc.get_object_traceback(block)
            assert trace is not None, name
            assert trace[-1].lineno == line, (name, trace, line)
        tracemalloc.stop()
    """
    run_python(code, check=True)


def test_gc_callbacks_stay_and_freeze_works():
    # G5
    run_dedicated(int)
    assert any("_gc_event" in repr(callback) for callback in gc.callbacks)
    seen = []
    callback = lambda phase, info: seen.append(phase)  # noqa: E731
    gc.callbacks.append(callback)
    try:
        run_dedicated(gc.collect)
    finally:
        gc.callbacks.remove(callback)
    assert seen[:2] == ["start", "stop"]
    gc.freeze()
    try:
        assert run_dedicated(int) == 0
    finally:
        gc.unfreeze()


SAMPLED = """
import sys, threading
import tether

ready = threading.Barrier(4)
go = threading.Event()


def own_task():
    ready.wait()
    go.wait()


def named_task():
    ready.wait()
    go.wait()


def lazy_task():
    ready.wait()
    go.wait()


first = tether.options(dedicated=True).spawn(own_task)
second = tether.options(dedicated=True, name="explicit name").spawn(named_task)
third = tether.spawn(lazy_task)
ready.wait()
print(first.task.name, third.task.name, flush=True)
sys.stdin.readline()
go.set()
for guard in (first, second, third):
    guard.join()
"""


def py_spy():
    scripts = Path(sysconfig.get_path("scripts"), "py-spy")
    return str(scripts) if scripts.exists() else shutil.which("py-spy")


def sampled(pid):
    """Return what py-spy says; skips where it says that it cannot look."""
    done = subprocess.run(
        [py_spy(), "dump", "--pid", str(pid)], capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode != 0:
        for reason in ("Permission denied", "Operation not permitted", "Failed to find a python interpreter"):
            if reason in done.stderr:
                pytest.skip(f"py-spy cannot look into a {BUILD} process here: {done.stderr.splitlines()[0]}")
        raise AssertionError(done.stderr)
    return done.stdout


@pytest.mark.skipif(py_spy() is None, reason="py-spy is not installed; the test extra has it")
def test_py_spy_shows_functions_and_names_of_tasks():
    # G18
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(tether.__file__).parents[1]), str(Path(__file__).parent)]),
    }
    child = subprocess.Popen(
        [sys.executable, "-c", SAMPLED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    )
    try:
        own, lazy = child.stdout.readline().split()
        text = sampled(child.pid)
        child.communicate("\n", timeout=60)
    finally:
        child.kill()
        child.communicate()
    assert child.returncode == 0
    blocks = re.split(r"\n(?=Thread )", text)
    for function, name in (("own_task", own), ("named_task", "explicit name"), ("lazy_task", lazy)):
        (block,) = (block for block in blocks if f"    {function} (" in block)
        assert f'"{name}"' in block.splitlines()[0], text


# ---- the standard library inside tasks ------------------------------------------------------------------------------


def test_executors_and_queues_work_inside_tasks(run):
    def entry():
        numbers = queue.Queue()
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            for future in [pool.submit(numbers.put, n) for n in range(5)]:
                future.result()
            squares = list(pool.map(lambda n: n * n, range(5)))
        return sorted(numbers.get() for _ in range(5)), squares

    assert run(entry) == ([0, 1, 2, 3, 4], [0, 1, 4, 9, 16])


def test_thread_started_in_a_task_outlives_it_and_has_its_own_name(run):
    release = threading.Event()

    def entry():
        thread = threading.Thread(target=await_event, args=(release,), name="of a task")
        thread.start()
        return thread

    thread = run(entry)
    assert thread.is_alive()
    assert thread.name == "of a task"
    release.set()
    thread.join()


def test_decimal_context_is_the_tasks_own(run):
    # G18
    def entry():
        before = decimal.getcontext().prec
        decimal.setcontext(decimal.Context(prec=7))
        return before, str(decimal.Decimal(1) / 3)

    with decimal.localcontext() as context:
        context.prec = 5
        assert run(entry) == (5, "0.3333333")
        assert decimal.getcontext().prec == 5
        assert str(decimal.Decimal(1) / 3) == "0.33333"


def test_context_variables_and_locals_are_the_tasks_own(run):
    # G18
    variable = contextvars.ContextVar("variable", default=0)
    local = threading.local()
    local.value = "joiner"

    def entry():
        variable.set(variable.get() + 1)
        local.value = "task"
        return variable.get(), contextvars.copy_context()[variable]

    assert run(entry) == run(entry) == (1, 1)
    assert (variable.get(), local.value) == (0, "joiner")


def test_warning_raised_in_a_task_is_seen(run):
    def entry():
        warnings.warn("from a task", UserWarning, stacklevel=1)

    with pytest.warns(UserWarning, match="from a task"):
        run(entry)


def test_asyncio_in_debug_mode_runs_inside_tasks(run, run_python):
    code = f"""
        import asyncio, tether
        from support import Held, entry_of, PLACES

        async def inner():
            await asyncio.sleep(0)
            return await asyncio.to_thread(lambda: tether.spawn(int, "7").join())

        def entry():
            return asyncio.run(inner(), debug=True)

        run = PLACES[{next(name for name, value in PLACES.items() if value is run)!r}]
        assert run(entry) == 7

        async def outer():
            return run(entry)

        assert asyncio.run(outer(), debug=True) == 7
    """
    ran = run_python(code, args=("-X", "dev"))
    assert ran.rc == 0, ran.err
    assert "Traceback" not in ran.err
    assert "never retrieved" not in ran.err
