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


# ---- who else is about ----------------------------------------------------------------------------------------------


def test_thread_that_outlives_main_may_use_tether_until_the_tasks_are_joined(run_python):
    # G1, fault 10: threading waits for it after tether; what it spawned in time is joined, later it is refused
    code = (
        PRELUDE
        + """
    def outlive():
        joined = 0
        try:
            while True:
                assert tether.spawn(int, 3).join() == 3
                assert dedicated(int, 4).join() == 4
                with tether.scope() as s:
                    child = s.spawn(int, 5)
                assert child.join() == 5
                joined += 1
                started.set()
        except tether.ShutdownError:
            pass
        except BaseExceptionGroup as group:
            assert all(isinstance(error, tether.ShutdownError) for error in group.exceptions), group
        os.write(1, b"refused\\n")
        assert joined > 0

    started = threading.Event()
    threading.Thread(target=outlive).start()
    await_event(started)
    """
    )
    assert run_python(code, check=True).out == "refused\n"


def test_tasks_and_pool_threads_may_wait_for_one_another_at_exit(run_python):
    # fault 10: tether waits for its tasks before the pool's threads are joined
    code = (
        PRELUDE
        + """
    import concurrent.futures

    def in_pool():
        await_event(exiting)
        return dedicated(slow, "spawned in the pool").join()

    def in_task(future):
        future.result()
        os.write(1, b"waited for the pool\\n")

    exiting = threading.Event()
    pool = concurrent.futures.ThreadPoolExecutor(8)
    guards = [dedicated(in_task, pool.submit(in_pool)) for _ in range(4)]
    threading._register_atexit(exiting.set)
    """
    )
    out = run_python(code, check=True).out.splitlines()
    assert sorted(out) == ["spawned in the pool"] * 4 + ["waited for the pool"] * 4


def test_task_may_give_work_to_a_pool_at_exit(run_python):
    # fault 10: it takes some until tether's tasks have ended
    code = (
        PRELUDE
        + """
    import concurrent.futures

    def in_task():
        await_event(exiting)
        os.write(1, str(pool.submit(int, 5).result()).encode())

    exiting = threading.Event()
    pool = concurrent.futures.ThreadPoolExecutor(1)
    pool.submit(int).result()
    guard = dedicated(in_task)
    threading._register_atexit(exiting.set)
    """
    )
    assert run_python(code, check=True).out == "5"


@pytest.mark.parametrize("closed", ["loop.close()", ""], ids=["closed", "left open"])
def test_event_loops_with_tasks_under_way_do_not_disturb_the_exit(closed, run_python):
    # G1, fault 10
    code = (
        PRELUDE
        + f"""
    import asyncio

    async def main():
        guards.append(dedicated(slow, "spawned in a coroutine"))
        assert await asyncio.to_thread(tether.spawn(int, 5).join) == 5

    async def in_task():
        await asyncio.sleep(0.05)
        os.write(1, b"loop in a task\\n")

    guards = []
    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    guards.append(dedicated(asyncio.run, in_task()))
    loop.run_until_complete(loop.shutdown_default_executor())
    {closed}
    """
    )
    result = run_python(code, args=("-W", "ignore::ResourceWarning"), check=True)
    assert sorted(result.out.splitlines()) == ["loop in a task", "spawned in a coroutine"]


def test_event_loop_that_still_runs_on_a_daemon_thread_does_not_disturb_the_exit(run_python):
    # G1, fault 10
    code = (
        PRELUDE
        + """
    import asyncio

    async def use_for_ever():
        while True:
            try:
                guard = tether.spawn(int)
            except tether.ShutdownError:
                break
            assert await asyncio.to_thread(guard.join) == 0
            used.set()

    used = threading.Event()
    threading.Thread(target=lambda: asyncio.run(use_for_ever()), daemon=True).start()
    await_event(used)
    guard = dedicated(slow)
    """
    )
    result = run_python(code)
    assert (result.rc, result.out) == (0, "ended\n")


@pytest.mark.parametrize("early", [True, False], ids=["registered before the import", "registered after it"])
@pytest.mark.parametrize(
    "handler", ["guards.pop().join()", "guards.clear()", "[g.exit_value() for g in guards]", "guards.pop().detach()"]
)
def test_atexit_handlers_find_every_task_ended(handler, early, run_python):
    # fault 10
    register, imports = "atexit.register(late)", "import tether"
    code = f"""
    import atexit, os
    from threading import Event

    def late():
        assert all(guard.done() for guard in guards)
        assert tether.statistics().tasks_live == 0
        {handler}
        os.write(1, b"late\\n")

    guards = []
    {register if early else imports}
    {imports if early else register}
    guards.append(tether.spawn(tether.sleep, 0.05))
    guards.append(tether.options(dedicated=True).spawn(tether.sleep, 0.05))
    """
    assert run_python(code, check=True).out == "late\n"


# ---- what the tasks themselves do -----------------------------------------------------------------------------------


def test_must_join_guard_at_exit_warns_with_its_site(run_python):
    # G1, fault 10: joined like any other, and named
    code = PRELUDE + "    guard = tether.options(must_join=True, dedicated=True).spawn(slow)  # the site\n"
    result = run_python(code, args=("-W", "always::ResourceWarning"))
    assert (result.rc, result.out) == (0, "ended\n")
    assert "ResourceWarning" in result.err
    assert "must_join=True" in result.err
    assert "<string>:9" in result.err
    assert run_python(code, check=True).out == "ended\n"  # such warnings are off by default


@pytest.mark.parametrize("error", ["SystemExit(3)", "KeyboardInterrupt()", "GeneratorExit()"])
def test_exit_raised_by_a_task_that_nobody_joined_is_reported_and_no_status(error, run_python):
    # G6, faults 10 and 29
    code = PRELUDE + f"    def fail():\n        slow()\n        raise {error}\n\n    guard = dedicated(fail)\n"
    result = run_python(code)
    assert (result.rc, result.out) == (0, "ended\n")
    assert error.split("(")[0] in result.err


@pytest.mark.parametrize("entered", ["next(generator)", "generator.send(None)"])
def test_scope_open_in_an_abandoned_generator_is_joined_at_exit(entered, run_python):
    # G2, faults 9 and 10: its children, whatever they wait for, end before the interpreter
    code = (
        PRELUDE
        + f"""
    def holder():
        with tether.scope() as s:
            s.options(dedicated=True).spawn(slow, "running")
            s.spawn(slow, "queued")
            yield s

    generator = holder()
    {entered}
    """
    )
    assert sorted(run_python(code, check=True).out.split()) == ["queued", "running"]


def test_failure_in_a_scope_that_an_abandoned_generator_holds_is_reported_at_exit(run_python):
    # G6, fault 10
    code = (
        PRELUDE
        + """
    def holder():
        with tether.scope(on_error="wait") as s:
            child = s.options(dedicated=True).spawn(int, "in the scope")
            while not child.done():
                tether.sleep(0.001)
            yield

    generator = holder()
    next(generator)
    """
    )
    result = run_python(code)
    assert result.rc == 0
    assert "ValueError: invalid literal for int() with base 10: 'in the scope'" in result.err
    assert result.err.count("Error") == 1


def test_scope_that_a_thread_has_open_at_exit_is_left_by_that_thread(run_python):
    # G2, fault 10
    code = (
        PRELUDE
        + """
    def hold():
        with tether.scope() as s:
            child = s.options(dedicated=True).spawn(await_event, exiting)
            opened.set()
        child.join()
        os.write(1, b"left\\n")

    opened, exiting = threading.Event(), threading.Event()
    threading.Thread(target=hold).start()
    await_event(opened)
    threading._register_atexit(exiting.set)
    """
    )
    assert run_python(code, check=True).out == "left\n"


def test_task_that_waits_for_main_to_end_may_still_join_and_spawn(run_python):
    # G1, fault 10: every blocking call of tether works until the last task has ended
    code = (
        PRELUDE
        + """
    def work():
        await_event(exiting)
        assert tether.spawn(int, 1).join() == 1
        assert dedicated(int, 2).join() == 2
        assert tether.spawn(int, 3).join(timeout=60) == 3
        with tether.scope(timeout=60) as s:
            s.spawn(tether.sleep, 0.001)
        dedicated(int).detach()
        del kept[:]
        os.write(1, b"worked\\n")

    exiting = threading.Event()
    guards = [dedicated(work) for _ in range(10)]
    kept = [tether.spawn(tether.sleep, 0.001) for _ in range(10)]
    threading._register_atexit(exiting.set)
    """
    )
    assert run_python(code, check=True).out == "worked\n" * 10


def test_exit_from_inside_a_task_by_os_exit_abandons_everything(run_python):
    # G1: there the promise ends
    code = PRELUDE + "    guard = dedicated(tether.sleep, 3600)\n    dedicated(os._exit, 9).join()\n"
    assert run_python(code) == (9, "", "")


def test_daemon_threads_that_end_while_they_wait_for_a_borrow_leave_nothing_in_its_queue(run_python):
    # Up to 3.13 such a thread ends where it takes the GIL back, and its stack goes; from 3.14 on it hangs there.
    code = (
        PRELUDE
        + """
    def wait(region):
        waiting.append(region)
        region.borrow_mut(timeout=0.5)

    PATIENCE = 60 if sys.version_info < (3, 14) else 1

    class Last:  # in sys.modules: its destructor runs when daemon threads can come back no more
        def __init__(self, borrow):
            self.borrow = borrow

        def __del__(self, os=os, now=time.monotonic, pause=time.sleep, patience=PATIENCE):
            begin = now()
            while len(os.listdir("/proc/self/task")) > 1 and now() < begin + patience:
                pause(0.01)
            self.borrow.release()
            os.write(1, b"released\\n")

    waiting = []
    region = tether.Region(4096)
    sys.modules["last"] = Last(region.borrow_mut())
    for _ in range(16):  # more stacks than the C library keeps
        threading.Thread(target=wait, args=(region,), daemon=True).start()
    while len(waiting) < 16:
        time.sleep(0.001)
    """
    )
    assert run_python(code, check=True).out == "released\n"
