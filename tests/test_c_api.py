"""The C API: other extensions (tests/ext/_example*) spawn, join, loop and borrow without the GIL."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import subprocess
import sys
import sysconfig
import threading
from functools import cache
from pathlib import Path

import pytest

import native
import tether
from native import compiler, counters
from support import dedicated, forked, poll, status_of

(OK, FAILED, CANCELLED, KILLED, CONFLICT, TIMEOUT, DEADLOCK, CLOSED, READ_ONLY, INVALID, NO_MEMORY, NO_THREAD, SHUTDOWN,
 FORKED) = range(14)  # fmt: skip

HERE = Path(__file__).parent


def build(name: str, source: Path, defines: tuple[str, ...] = ()) -> Path:
    """Compile an extension module; warnings are errors."""
    built = native.folder() / (name + str(sysconfig.get_config_var("EXT_SUFFIX")))
    options = ["-shared", "-fPIC", "-O2", "-std=gnu11", "-pthread", *defines]
    if source.parent == HERE / "ext":
        options += ["-Wall", "-Wextra", "-Werror", "-Wno-missing-field-initializers", "-Wno-undef"]
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        options.append("-DPy_GIL_DISABLED=1")
    includes = [f"-I{tether.get_include()}", f"-isystem{sysconfig.get_path('include')}"]
    subprocess.run([compiler(), *options, *includes, "-o", str(built), str(source)], check=True)
    return built


@cache
def load(name: str, path: Path):
    spec = importlib.util.spec_from_file_location(
        name, path, loader=importlib.machinery.ExtensionFileLoader(name, str(path))
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def built_example() -> Path:
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.exists():
        pytest.skip("this test builds an extension, and there is no Python.h")
    return build("_example", HERE / "ext" / "_example.c")


@pytest.fixture(scope="module")
def example():
    return load("_example", built_example())


@pytest.fixture(scope="module")
def cython_example():
    pytest.importorskip("Cython", reason="Cython is not installed")
    written = native.folder() / "_example_cython.c"
    roots = [f"-I{Path(tether.__file__).parents[1]}"]
    source = HERE / "ext" / "_example_cython.pyx"
    subprocess.run([sys.executable, "-m", "cython", "-3", *roots, "-o", str(written), str(source)], check=True)
    return load("_example_cython", build("_example_cython", written))


# ---- tasks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "value"), [(0, 0), (1, 1), (10, 55), (20, 6765)])
def test_recursion_with_a_scope_at_every_node(example, n, value):
    assert example.fib(n) == value


def test_recursion_in_many_tasks_at_once(example):
    with tether.scope() as s:
        handles = [s.spawn(example.fib, 14) for _ in range(8)]
    assert [handle.join() for handle in handles] == [377] * 8


@pytest.mark.parametrize("n", [0, 1, 2, 500])
def test_every_task_of_a_scope_has_run_when_it_is_closed(example, n):
    # G2
    assert example.crew(n) == (OK, 0, n)


def test_tasks_that_wait_for_one_another_all_start(example):
    # G8
    assert example.crew(12, wanted=12) == (OK, 0, 12)


def test_tasks_run_beside_a_caller_that_keeps_the_gil(example):
    assert example.attached() == (OK, 10)


def test_any_native_thread_may_call(example):
    assert example.outside() == (OK, 20)


def test_failure_comes_out_of_the_scope(example):
    status, code, ran = example.crew(50, fails_with=7)
    assert (status, code) == (FAILED, 7)
    assert 1 <= ran <= 50
    assert example.crew(50, fails_with=7, flags=1) == (FAILED, 7, 50)


def test_failure_cancels_the_siblings(example):
    # The first one fails at once; the others are cancelled, running or not.
    status, code, _ = example.crew(6, fails_with=3, endless=0)
    assert (status, code) == (FAILED, 3)


@pytest.mark.parametrize("late", [False, True])
def test_join_gives_each_answer(example, late):
    # Also of tasks that were waited for by the scope already.
    answers = [0, 5, 0, -1, 2**31 - 1]
    *joined, (status, code) = example.joins(answers, late)
    assert joined == [(FAILED if answer else OK, answer) for answer in answers]
    assert (status, code) == ((FAILED, 5) if late else (OK, 0))


def test_cancelled_task_closes_its_scope_and_says_so(example):
    # G12: the tasks see it by Tether_Cancelled.
    before = set(tether.tasks())
    results = []
    guard = dedicated(lambda: results.append(example.crew(3, endless=1)))
    poll(lambda: len(set(tether.tasks()) - before) >= 2, "a task of C to live")
    guard.cancel()
    guard.join()  # it has a value: there was no checkpoint of Python's on the way
    assert results[0][0] in (CANCELLED, OK)  # OK, if all of them ran on its own stack


def test_tasks_are_seen_and_can_be_cancelled_from_python(example):
    guard = dedicated(example.crew, 4, endless=1, flags=1)
    names = {"odd", "native"}

    def theirs():
        return [task for task in tether.tasks() if task.name.rpartition("-")[0] in names]

    poll(lambda: len(theirs()) == 4, "all four to be there")
    found = theirs()
    assert {task.parent for task in found} == {guard.task}
    assert all(task.spawned_at == "<C>:0" for task in found)
    assert tether.statistics().scopes == 1
    for task in found:
        task.cancel("for a reason")
    status, code, ran = guard.join()
    assert (status, code) == (OK, 0)
    assert ran <= 4


def test_task_may_call_python(example):
    seen = []

    def call():
        seen.append((tether.current().name.startswith("calls-"), tether.spawn(pow, 2, 3).join()))

    assert example.calls(call, 30) == (OK, 0)
    assert seen == [(True, 8)] * 30


def test_task_that_fails_in_python_fails(example):
    from support import Unraisables

    with Unraisables() as reports:
        status, code = example.calls(lambda: 1 // 0, 3)
    assert (status, code) == (FAILED, 1)
    assert reports.types == [ZeroDivisionError] * 3


# ---- loops ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_static", [0, 1])
@pytest.mark.parametrize("grain", [0, 1, 1000])
def test_loop_sums_up(example, grain, is_static):
    for threads in (0, 1, 3):
        assert example.loop(10_000, -1, grain, threads, is_static)[:2] == (OK, 49_995_000)


def test_loop_tells_its_failure(example):
    status, _, code, begin, end = example.loop(10_000, 777, 10, 0, 0)
    assert (status, code) == (FAILED, 5)
    assert begin <= 777 < end


def test_loop_refuses_negative_numbers(example):
    assert example.loop(-1, 0, 0, 0, 0)[0] == INVALID
    assert example.loop(10, 0, -1, 0, 0)[0] == INVALID


# ---- borrows --------------------------------------------------------------------------------------------------------


def test_borrow_excludes_and_shares_as_in_python(example):
    # G13
    with tether.Region(1000, name="ours") as region:
        status, low = example.borrow(region, 0, 500, True, 0)
        assert status == OK
        assert example.borrow(region, 499, 600, False, 0) == (CONFLICT, None)
        status, high = example.borrow(region, 500, 1000, False, 0)
        assert status == OK
        assert example.borrow(region, 500, 1000, True, 0) == (CONFLICT, None)
        status, again = example.borrow(region, 600, -1, False, 0)
        assert status == OK
        with pytest.raises(tether.BorrowError, match="ours") as caught:
            region.share(0, 10)
        assert caught.value.range == (0, 500)
        with pytest.raises(tether.BorrowError):
            region.close()
        assert tether.statistics().borrows == 3
        example.write(low, 7)
        del low
        assert bytes(region.share(0, 3)) == b"\7\7\7"
        del high, again
        assert tether.statistics().borrows == 0


def test_borrow_of_python_is_in_the_way_in_c(example):
    with tether.Region(1000) as region, region.borrow_mut(0, 10) as borrow:
        assert example.borrow(region, 0, 1, False, 0) == (CONFLICT, None)
        assert example.borrow(region, 0, 1, False, 0.01) == (TIMEOUT, None)
        assert example.borrow(region, 10, 20, True, 0)[0] == OK
        assert len(borrow) == 10


def test_borrow_waits_for_its_turn(example):
    with tether.Region(1000) as region:
        borrow = region.borrow_mut()
        guard = dedicated(example.borrow, region, 0, 1000, True, -1)
        poll(lambda: guard.task.state is tether.TaskState.BLOCKED, "the borrow to be waited for")
        borrow.release()
        status, held = guard.join()
        assert status == OK
        del held


def test_waiting_borrow_is_cancelled(example):
    # G12
    with tether.Region(1000) as region, region.borrow_mut():
        results = []
        guard = dedicated(lambda: results.append(example.borrow(region, 0, 1000, True, -1)))
        poll(lambda: guard.task.state is tether.TaskState.BLOCKED, "the borrow to be waited for")
        guard.cancel()
        guard.join()
        assert results == [(CANCELLED, None)]


def test_borrows_end_with_their_task(example):
    # G14: each keeps all of the region, and the next one waits for its end.
    with tether.Region(1000) as region:
        assert example.keepers(region, 20) == 20
        region.borrow_mut().release()


def test_pinned_region_outlives_its_last_name(example):
    # G15: the pages stay while they are lent.
    region = tether.Region(100_000)
    _, held = example.borrow(region, 0, 100_000, True, 0)
    del region
    example.write(held, 1)
    assert tether.statistics().regions == 1
    del held
    assert tether.statistics().regions == 0


def test_what_cannot_be_borrowed_is_told(example, tmp_path):
    with tether.Region(100) as region:
        for start, stop in ((101, 101), (50, 40), (0, 101)):
            assert example.borrow(region, start, stop, False, 0) == (INVALID, None)
    assert example.borrow(region, 0, 10, False, 0) == (CLOSED, None)
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    with tether.Region.open(path) as region:
        assert example.borrow(region, 0, 10, True, 0) == (READ_ONLY, None)
        assert example.borrow(region, 0, 10, False, 0)[0] == OK
    with pytest.raises(TypeError, match=r"tether\.Region"):
        example.borrow(b"bytes", 0, 1, False, 0)


def test_deadlock_of_a_waiting_borrow_is_told(example):
    # fault 21: a task waits for what its joiner has.
    with tether.Region(1000) as region:

        def outer():
            borrow = region.borrow_mut()
            try:
                return tether.spawn(example.borrow, region, 0, 1000, True, -1).join()
            finally:
                borrow.release()

        result = dedicated(outer).exit_value()
        match result:
            case tether.Completed((status, held)):
                assert status == DEADLOCK
                assert held is None
            case tether.Killed(_, exception):
                assert isinstance(exception, tether.DeadlockError)


# ---- scarcity, fork, exit, interpreters -----------------------------------------------------------------------------


def test_nothing_is_left_when_memory_or_threads_are_scarce(example):
    # faults 13, 14
    from tether import _core

    for kind in ("alloc", "thread"):
        for nth in range(1, 8):
            _core._fail_nth(kind, nth)
            status, _, ran = example.crew(4)
            _core._fail_nth(kind, 0)
            assert (status, ran) == (OK, 4) or status in (NO_MEMORY, NO_THREAD)
    assert example.crew(4) == (OK, 0, 4)


def test_scope_of_the_parent_is_foreign_in_a_child(example):
    # fault 12
    scope = example.open()

    def child():
        assert example.use(scope) == (FORKED, FORKED)
        assert example.crew(10) == (OK, 0, 10)

    assert status_of(forked(child)) == 0
    assert example.use(scope) == (OK, OK)


def test_borrow_of_the_parent_is_foreign_in_a_child(example):
    with tether.Region(1000) as region:
        _, held = example.borrow(region, 0, 10, True, 0)

        def child():
            assert example.borrow(region, 20, 30, True, 0) == (FORKED, None)

        assert status_of(forked(child)) == 0
        del held


def module_in(folder: Path) -> str:
    return f"import sys; sys.path.insert(0, {str(folder)!r})\nimport _example, tether, threading\n"


def test_exit_waits_for_tasks(run_python):
    code = "threading.Thread(target=_example.crew, args=(50,), daemon=False).start()\n"
    assert run_python(module_in(built_example().parent) + code, check=True).out == ""


def test_at_the_very_end_nothing_is_spawned(run_python):
    code = """
class Last:
    def __del__(self, crew=_example.crew, print=print):
        print(crew(3))
import builtins
_example.crew(3)
builtins.last = Last()
"""
    out = run_python(module_in(built_example().parent) + code, check=True).out
    assert out == f"({SHUTDOWN}, 0, 0)\n"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="interpreters with a GIL of their own came with 3.12")
def test_table_of_a_sub_interpreter_is_its_own(run_python):
    # G20
    inner = f"sys = __import__('sys'); sys.path[:0] = {[str(built_example().parent), *sys.path]!r}\n" + (
        "import _example, tether\n"
        "assert _example.crew(20) == (0, 0, 20)\n"
        "assert _example.fib(12) == 144\n"
        "assert tether.spawn(_example.fib, 10).join() == 55\n"
        "with tether.Region(100) as region: assert _example.keepers(region, 3) == 3\n"
    )
    code = f"""
import importlib, sys
name = "_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters"
interpreters = importlib.import_module(name)
def run():
    own = interpreters.create()
    failed = interpreters.run_string(own, {inner!r})
    assert failed is None, failed
    interpreters.destroy(own)
threads = [threading.Thread(target=run) for _ in range(2)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert _example.crew(5) == (0, 0, 5)
"""
    run_python(module_in(built_example().parent) + code, check=True)


def test_extension_of_another_version_is_refused(run_python, tmp_path):
    # Its table would be another one.
    text = (HERE / "ext" / "_example.c").read_text()
    other = tmp_path / "_example.c"
    other.write_text("#include <tether.h>\n#undef TETHER_API_VERSION\n#define TETHER_API_VERSION 99\n" + text)
    header = (
        Path(tether.get_include(), "tether.h")
        .read_text()
        .replace("#define TETHER_API_VERSION 1", "#define TETHER_API_VERSION 99")
    )
    (tmp_path / "tether.h").write_text(header)
    built = build("_example99", other, (f"-I{tmp_path}",))
    target = tmp_path / ("_example" + str(sysconfig.get_config_var("EXT_SUFFIX")))
    os.replace(built, target)
    result = run_python(f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nimport _example")
    assert result.rc == 1
    assert "compiled for version 99" in result.err


# ---- Cython ---------------------------------------------------------------------------------------------------------


def test_cython_loops_over_a_borrow(cython_example):
    with tether.Region(80_000) as region:
        tether.native.fill(region, 3.0, format="d")
        assert cython_example.square_all(region) == OK
        assert tether.native.min(region, format="d") == tether.native.max(region, format="d") == 9.0
        with region.share():
            assert cython_example.square_all(region) == CONFLICT


def test_cython_spawns_and_joins(cython_example):
    with tether.Region(80_000) as region:
        tether.native.fill(region, 0.5, format="d")
        assert cython_example.sum_of(region) == 5000.0


def test_cython_is_told_of_a_failure(cython_example):
    failed, code, begin, end = cython_example.failing(100)
    assert (failed, code) == (True, -9)
    assert begin <= 3 < end


def test_cython_function_is_run_by_parallel_for(cython_example):
    counts = counters(1000)
    tether.native.parallel_for(cython_example.__pyx_capi__["visit"], 1000, counts)
    assert list(counts) == [1] * 1000


def test_threads_of_c_do_not_show_in_threading(example):
    before = set(threading.enumerate())
    example.crew(8, wanted=8)
    assert set(threading.enumerate()) <= before  # idle threads may end meanwhile
