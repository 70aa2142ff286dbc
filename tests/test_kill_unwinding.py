"""What a killed or cancelled task runs on its way out, and what is left of it: nothing (faults 28 and 33)."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import operator
import sysconfig
import threading
import weakref

import pytest

import tether
from support import PLACES, WAIT, Token, Unraisables, await_event, busy_statistics, dedicated, poll

VARIABLE: contextvars.ContextVar[object] = contextvars.ContextVar("variable")


def spin(started):
    """Compute without a checkpoint, until killed."""
    started.set()
    while True:
        pass


def killed(entry, *args, times=1):
    """Kill the task once it has told that it started; return what it raised out of."""
    started = threading.Event()
    guard = dedicated(entry, started, *args)
    await_event(started)
    for _ in range(times):
        guard.kill()
    outcome = guard.exit_value()
    assert isinstance(outcome, tether.Killed), outcome
    assert outcome.reason is tether.KillReason.REQUESTED
    return outcome.exception


class Manager:
    def __init__(self, log):
        self.log = log

    def __enter__(self):
        self.log.append("entered")
        return self

    def __exit__(self, kind, *rest):
        self.log.append(kind)

    async def __aenter__(self):
        return self.__enter__()

    async def __aexit__(self, *info):
        self.__exit__(*info)


@contextlib.contextmanager
def managed(log):
    try:
        yield log.append("entered")
    except BaseException as error:
        log.append(type(error))
        raise


def with_statement(started, log):
    with Manager(log):
        spin(started)


def with_generator(started, log):
    with managed(log):
        spin(started)


def with_exit_stack(started, log):
    with contextlib.ExitStack() as stack:
        stack.enter_context(Manager(log))
        spin(started)


def try_finally(started, log):
    log.append("entered")
    try:
        spin(started)
    finally:
        log.append(tether.KilledTask)


def except_exception(started, log):
    log.append("entered")
    try:
        while True:
            try:
                spin(started)
            except Exception as error:
                log.append(error)
    except tether.KilledTask as error:
        log.append(type(error))
        raise


def inside_a_generator(started, log):
    def generate():
        with Manager(log):
            spin(started)
            yield

    for _ in generate():
        pass


def async_with(started, log):
    async def main():
        async with Manager(log):
            spin(started)

    asyncio.run(main())


def in_a_task_of_a_loop(started, log):
    async def inner():
        async with Manager(log):
            spin(started)

    async def main():
        await asyncio.create_task(inner())

    asyncio.run(main())


UNWOUND = [
    with_statement,
    with_generator,
    with_exit_stack,
    try_finally,
    except_exception,
    inside_a_generator,
    async_with,
    in_a_task_of_a_loop,
]


@pytest.mark.parametrize("entry", UNWOUND, ids=lambda entry: entry.__name__)
def test_killed_task_unwinds(entry):
    # G12, fault 33
    log = []
    assert isinstance(killed(entry, log), tether.KilledTask)
    assert log == ["entered", tether.KilledTask]


def test_generator_that_a_killed_task_has_suspended_is_closed():
    # G9, fault 33: when its frames go, on its own thread
    log = []

    def generate():
        try:
            yield
        except GeneratorExit:
            log.append(threading.get_ident())
            raise

    def entry(started, threads):
        generator = generate()
        next(generator)
        threads.append(threading.get_ident())
        spin(started)

    killed(entry, threads := [])
    assert log == threads


@pytest.mark.parametrize("lock", [threading.Lock, threading.RLock, threading.Condition], ids=lambda lock: lock.__name__)
def test_killed_task_gives_back_the_lock_it_holds(lock):
    # fault 33
    held = lock()

    def entry(started):
        with held:
            spin(started)

    killed(entry)
    assert held.acquire(timeout=60)
    held.release()


def test_killed_task_joins_its_scope_and_cancels_the_children():
    # G2, fault 33
    ended = []

    def child(running):
        try:
            running.set()
            tether.sleep(3600)
        finally:
            ended.append(True)

    def entry(started):
        running = threading.Event()
        with tether.scope() as s:
            s.options(dedicated=True).spawn(child, running)
            await_event(running)
            spin(started)

    assert isinstance(killed(entry), tether.KilledTask)
    assert ended == [True]


def test_killed_task_joins_the_guards_it_owns():
    # G1, fault 33: their frames go first, and they wait for what they guard
    release, ended = threading.Event(), []

    def inner():
        await_event(release)
        ended.append(True)

    def entry(started):
        inside = dedicated(inner)
        try:
            spin(started)
        finally:
            release.set()
        inside.join()

    killed(entry)
    assert ended == [True]


# ---- while it ends --------------------------------------------------------------------------------------------------


class Stage:
    """A place in the task's end where it waits until it has been killed.

    It waits in C alone: a kill that strikes inside `Event.wait` ends it with the error of a lock released twice.
    """

    def __init__(self):
        self._reached, self._go_on = threading.Lock(), threading.Lock()
        self._reached.acquire()
        self._go_on.acquire()

    def wait(self):
        list(map(operator.call, [self._reached.release, self._go_on.acquire]))
        for _ in range(100):  # where an asynchronous exception would be raised
            pass

    def await_reached(self):
        assert self._reached.acquire(timeout=WAIT)

    def go_on(self):
        self._go_on.release()


def in_finally(stage):
    try:
        tether.sleep(0)
    finally:
        stage.wait()


def in_exit(stage):
    with contextlib.ExitStack() as stack:
        stack.callback(stage.wait)


def in_generator_close(stage):
    def generate():
        try:
            yield
        finally:
            stage.wait()

    generator = generate()
    next(generator)
    generator.close()


def in_except(stage):
    try:
        raise ValueError
    except ValueError:
        stage.wait()


@pytest.mark.parametrize(
    "entry", [in_finally, in_exit, in_generator_close, in_except], ids=lambda entry: entry.__name__
)
def test_kill_during_the_clean_up_interrupts_it_as_any_code(entry):
    # fault 33: it is the task's own code, and the task says how it ended
    stage = Stage()
    guard = dedicated(entry, stage)
    stage.await_reached()
    assert guard.kill() is True
    stage.go_on()
    outcome = guard.exit_value()
    assert isinstance(outcome, tether.Killed), outcome
    assert isinstance(outcome.exception, tether.KilledTask)
    assert dedicated(sum, range(1_000)).join() == 499_500


class Destructed:
    def __init__(self, stage):
        self.stage = stage

    def __del__(self):
        self.stage.wait()


def in_the_frame(stage):
    destructed = Destructed(stage)
    return destructed is None


def in_an_argument(stage, destructed, alone):
    await_event(alone)  # else the destructor may run in the caller, who has the argument until spawn returns
    return False


def in_a_local(stage):
    VARIABLE.set(threading.local())
    VARIABLE.get().value = Destructed(stage)
    return False


@pytest.mark.parametrize("where", ["frame", "argument", "local"])
def test_kill_while_a_destructor_runs_disturbs_nobody_else(where):
    if where == "argument" and sysconfig.get_config_var("Py_GIL_DISABLED"):
        pytest.skip("without a GIL an argument may die on the thread that made it, which waits here")
    # fault 33: in a destructor Python can only report it; after the function's end it comes too late
    stage, alone = Stage(), threading.Event()
    with Unraisables() as reports:
        match where:
            case "frame":
                guard = dedicated(in_the_frame, stage)
            case "argument":
                guard = dedicated(in_an_argument, stage, Destructed(stage), alone)
                alone.set()
            case "local":
                guard = dedicated(in_a_local, stage)
        # Not by this thread: without a GIL, what it made may be destructed here, when it looks up.
        killer = threading.Thread(target=lambda: (stage.await_reached(), guard.kill(), stage.go_on()))
        killer.start()
        outcome = guard.exit_value()
        poll(lambda: not killer.is_alive(), "the killer's end")
    assert set(reports.types) <= {tether.KilledTask}
    assert where == "frame" or reports.types == []
    assert outcome == tether.Completed(False) or isinstance(outcome.exception, tether.KilledTask)
    for run in PLACES.values():
        assert run(sum, range(1_000)) == 499_500


def test_kill_racing_the_end_in_many_rounds_leaves_the_thread_clean():
    # fault 33: the joiner's own code, the next task, and the destructors of what the task returned
    class Result:
        def __del__(self):
            for _ in range(20):
                pass

    def entry(started):
        started.set()
        for _ in range(n % 50):
            pass
        return Result()

    with Unraisables() as reports:
        for n in range(200):
            started = threading.Event()
            guard = dedicated(entry, started) if n % 2 else tether.spawn(entry, started)
            killer = threading.Thread(target=lambda guard=guard, started=started: (await_event(started), guard.kill()))
            killer.start()
            outcome = guard.exit_value()
            assert isinstance(outcome, tether.Completed) or outcome.reason is tether.KillReason.REQUESTED
            del outcome, guard
            assert sum(range(1_000)) == 499_500
            assert tether.spawn(sum, range(1_000)).join() == 499_500
            killer.join()
    assert reports.types == []


# ---- what is left ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["kill", "cancel", "kill before the start", "cancel before the start"])
def test_everything_of_a_killed_task_is_released(how):
    # G9, fault 28
    watched = []

    def watch():
        token = Token()
        watched.append(weakref.ref(token))
        return token

    def build():
        captured = watch()
        local = threading.local()

        def entry(started, argument, *, keyword):
            local.value = watch()
            VARIABLE.set(watch())
            mine = [captured, argument, keyword, watch()]
            started.set()
            while mine:
                if how.startswith("cancel"):
                    tether.checkpoint()

        return entry

    for _ in range(5):
        started = threading.Event()
        context = contextvars.copy_context()
        context.run(VARIABLE.set, watch())
        guard = context.run(dedicated, build(), started, watch(), keyword=watch())
        del context
        if "start" not in how:
            await_event(started)
        getattr(guard, how.split()[0])()
        assert isinstance(guard.exit_value(), tether.Killed)
        del guard
    gc.collect()
    poll(lambda: not any(watcher() for watcher in watched), "everything the tasks held to be released")
    poll(lambda: not busy_statistics(), "the counters back to zero")


def test_kept_exception_of_a_killed_task_keeps_nothing_of_its_frames():
    # G9, G14, fault 28
    watched = []

    def entry(started):
        token = Token()
        watched.append(weakref.ref(token))
        spin(started)

    kept = killed(entry)
    assert kept.__traceback__ is not None
    gc.collect()
    poll(lambda: watched[0]() is None, "the local of the killed task to be released")
