"""G1: at the latest when the interpreter exits, every task is joined, quietly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tether
from support import WAIT

PRELUDE = """
    import atexit, gc, os, sys, threading, time
    import tether
    from support import await_event, dedicated

    def slow(word="ended"):
        tether.sleep(0.1)
        os.write(1, f"{word}\\n".encode())
"""


@pytest.mark.parametrize(
    "body",
    [
        "guard = dedicated(slow)",
        "guard = tether.spawn(slow)",
        "dedicated(slow).detach()",
        "tether.spawn(slow).detach()",
        "box = [dedicated(slow)]; box.append(box)",
        "gc.disable(); box = [dedicated(slow)]; box.append(box); del box",
        "gc.disable(); box = [tether.spawn(slow)]; box.append(box); del box",
        "generator = (guard.done() for guard in [dedicated(slow)]); next(generator)",
        "class Holder: guard = dedicated(slow)",
        "sys.modules['held'] = dedicated(slow)",
        "import builtins; builtins.held = dedicated(slow)",
    ],
)
def test_task_that_nobody_joined_is_joined_at_exit(body, run_python):
    # fault 9
    assert run_python(PRELUDE + f"    {body}\n", check=True).out == "ended\n"


def test_task_that_a_foreign_thread_still_joins_is_joined(run_python):
    code = (
        PRELUDE
        + """
    def foreign():
        guard = dedicated(slow)
        spawned.set()
        guard.join()

    spawned = threading.Event()
    threading.Thread(target=foreign).start()
    await_event(spawned)
    """
    )
    assert run_python(code, check=True).out == "ended\n"


def test_suspended_coroutine_with_a_guard_is_joined_at_exit(run_python):
    # fault 9
    code = (
        PRELUDE
        + """
    async def coroutine():
        guard = dedicated(slow)
        await Forever()

    class Forever:
        def __await__(self):
            yield

    suspended = coroutine()
    suspended.send(None)
    """
    )
    assert run_python(code, check=True).out == "ended\n"


def test_task_that_spawns_while_the_interpreter_exits_is_joined_too(run_python):
    code = (
        PRELUDE
        + """
    def outer():
        tether.sleep(0.1)
        with tether.scope() as s:
            s.spawn(slow, "inner")
        slow("outer")

    guard = dedicated(outer)
    """
    )
    assert run_python(code, check=True).out == "inner\nouter\n"


def test_task_told_to_cancel_at_exit_is_cancelled(run_python):
    code = (
        PRELUDE
        + """
    def entry():
        try:
            started.set()
            tether.sleep(3600)
        finally:
            os.write(1, b"cancelled\\n")

    started = threading.Event()
    guard = tether.options(at_exit="cancel", dedicated=True).spawn(entry)
    await_event(started)
    queued = [tether.options(at_exit="cancel").spawn(tether.sleep, 3600) for _ in range(10)]
    """
    )
    assert run_python(code, check=True).out == "cancelled\n"


def test_exit_with_a_hundred_live_tasks(run_python):
    # fault 10
    code = (
        PRELUDE
        + """
    guards = []
    for n in range(25):
        guards.append(tether.spawn(tether.sleep, 0.2))
        guards.append(dedicated(time.sleep, 0.2))
        guards.append(tether.spawn(sum, range(1_000)))
        guards.append(tether.options(at_exit="cancel", dedicated=True).spawn(tether.sleep, 3600))
    """
    )
    assert run_python(code, check=True).out == ""


@pytest.mark.parametrize(("ending", "rc"), [("sys.exit(3)", 3), ("raise ValueError('main')", 1)])
def test_exit_code_of_the_program_is_kept(ending, rc, run_python):
    result = run_python(PRELUDE + f"    guard = dedicated(slow)\n    {ending}\n")
    assert result.rc == rc
    assert result.out == "ended\n"
    assert ("ValueError: main" in result.err) == (rc == 1)


def test_failure_of_a_task_joined_at_exit_is_reported(run_python):
    # G6
    code = (
        PRELUDE
        + """
    def fail():
        tether.sleep(0.1)
        raise ValueError("at exit")

    guard = dedicated(fail)
    """
    )
    result = run_python(code)
    assert result.rc == 0
    assert "ValueError: at exit" in result.err


@pytest.mark.parametrize("first", ["", "tether.spawn(int).join()"], ids=["never used", "used before"])
def test_spawn_after_the_tasks_were_joined_is_refused(first, run_python):
    # fault 11
    code = (
        PRELUDE
        + f"    {first}\n"
        + """
    def late():
        scoped = lambda: tether.scoped(lambda s: s.spawn(int))
        for attempt in (lambda: tether.spawn(int), lambda: dedicated(int), scoped):
            try:
                attempt()
            except tether.ShutdownError:
                os.write(1, b"refused\\n")
            except BaseExceptionGroup as group:
                os.write(1, b"refused\\n" * isinstance(group.exceptions[0], tether.ShutdownError))

    atexit.register(late)
    """
    )
    assert run_python(code, check=True).out == "refused\n" * 3


@pytest.mark.parametrize("first", ["", "tether.spawn(int).join()"], ids=["never used", "used before"])
def test_spawn_from_a_finalizer_during_finalization_is_refused(first, run_python):
    # fault 11
    code = (
        PRELUDE
        + f"    {first}\n"
        + """
    class Late:
        def __init__(self):
            self.spawn, self.refused, self.write = tether.spawn, tether.ShutdownError, os.write

        def __del__(self):
            try:
                self.spawn(int)
            except self.refused:
                self.write(1, b"refused\\n")

    sys.late = Late()
    """
    )
    assert run_python(code, check=True).out == "refused\n"


def test_exit_values_may_be_taken_from_atexit(run_python):
    # awaited at exit, not reaped
    code = (
        PRELUDE
        + """
    def value():
        tether.sleep(0.05)
        return 5

    guard = dedicated(value)
    atexit.register(lambda: os.write(1, str(guard.join()).encode()))
    """
    )
    assert run_python(code, check=True).out == "5"


def test_import_alone_exits_silently(run_python):
    assert run_python("import tether", check=True).out == ""


def test_tether_may_be_the_last_thing_imported(run_python):
    code = """
        import concurrent.futures, threading, asyncio, logging
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            pool.submit(int).result()
        import tether
        from support import dedicated
        guard = dedicated(tether.sleep, 0.05)
    """
    assert run_python(code, check=True).out == ""


def test_pool_threads_may_join_guards_at_exit(run_python):
    code = (
        PRELUDE
        + """
    import concurrent.futures

    pool = concurrent.futures.ThreadPoolExecutor(2)
    guards = [dedicated(slow, "x") for _ in range(4)]
    futures = [pool.submit(guard.join) for guard in guards]
    """
    )
    assert run_python(code, check=True).out == "x\n" * 4


def test_repeated_interrupt_at_exit_names_what_is_abandoned():
    # G1: a second Ctrl-C at exit stops waiting and names the tasks
    code = (
        "import threading, tether\n"
        "def stuck():\n"
        "    print('ready', flush=True)\n"  # by the task: one that has not started would just never run
        "    threading.Event().wait()\n"
        "guard = tether.options(name='the-stuck-one', dedicated=True).spawn(stuck)\n"
    )
    roots = [str(Path(tether.__file__).parents[1])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(roots)}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as child:
        try:
            assert child.stdout.readline() == "ready\n"
            deadline = time.monotonic() + WAIT
            while child.poll() is None and time.monotonic() < deadline:
                child.send_signal(signal.SIGINT)
                try:
                    child.wait(0.2)
                except subprocess.TimeoutExpired:
                    continue
            assert child.poll() is not None, "still waiting after many interrupts"
            assert "the-stuck-one" in child.stderr.read()
        finally:
            child.kill()
