"""G9: after reaping nothing of a task remains: references, threads, descriptors, memory."""

from __future__ import annotations

import contextlib
import contextvars
import gc
import sys
import weakref

import pytest

import tether
from support import PLACES, Token, dedicated, poll

MEASURE = """
    import contextlib, gc, threading, warnings
    import tether
    from support import descriptors, dedicated, os_threads, poll, resident_bytes

    TOLERANCE = 4 << 20     # bytes; a leak of one word per task would be 8 MB in a million

    def fail():
        raise ValueError("x")

    def measure():
        gc.collect()
        poll(lambda: os_threads() <= 2, "the threads to retire")   # their stacks are memory too; the ticker may stay
        return resident_bytes(), descriptors()

    def unchanged(work, warm_up, count):
        work(warm_up)
        gc.collect()
        memory, files = measure()
        work(count)
        gc.collect()
        stats = tether.statistics()
        assert stats.tasks_live == stats.guards == stats.scopes == 0, stats
        grown, files_after = measure()
        assert grown - memory < TOLERANCE, f"grown by {grown - memory} bytes in {count}"
        assert files_after == files, (files, files_after)
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_million_lazy_tasks_leave_everything_where_it_was(run_python):
    code = (
        MEASURE
        + """
    def work(count):
        spawn = tether.spawn
        for n in range(count):
            spawn(int, n).join()

    unchanged(work, 50_000, 1_000_000)
    """
    )
    run_python(code, check=True, timeout=280)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_hundred_thousand_dedicated_tasks_leave_everything_where_it_was(run_python):
    code = (
        MEASURE
        + """
    def work(count):
        spawn = tether.options(dedicated=True).spawn
        for n in range(count):
            spawn(int, n).join()

    unchanged(work, 10_000, 100_000)
    """
    )
    run_python(code, check=True, timeout=280)


WAYS = {
    "failed": """
        for _ in range(count):
            try:
                tether.spawn(fail).join()
            except ValueError:
                pass
    """,
    "failed dedicated": """
        for _ in range(count // 10):
            try:
                dedicated(fail).join()
            except ValueError:
                pass
    """,
    "cancelled": """
        for _ in range(count):
            guard = tether.spawn(int)
            guard.cancel("text of a reason")
            guard.exit_value()
    """,
    "dropped": """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in range(count):
                tether.spawn(int)
    """,
    "many at once": """
        for _ in range(count // 5_000):
            for guard in [tether.spawn(int) for _ in range(5_000)]:
                guard.join()
    """,
    "scopes": """
        for _ in range(count // 100):
            with tether.scope("name") as s:
                for _ in range(100):
                    s.spawn(int)
    """,
    "failed scopes": """
        for _ in range(count // 100):
            with contextlib.suppress(ExceptionGroup), tether.scope() as s:
                for _ in range(20):
                    s.spawn(fail)
    """,
    "named": """
        for n in range(count):
            tether.options(name=f"task number {n}").spawn(int).join()
    """,
    "moved": """
        for n in range(count):
            tether.spawn(lambda guard: guard.join(), tether.spawn(int)).join()
    """,
    "refs": """
        for n in range(count):
            guard = tether.spawn(tether.current)
            ref = guard.task
            assert guard.join() == ref
    """,
    "thread-locals": """
        local = threading.local()
        def touch():
            local.value = 1
        for n in range(count):
            tether.spawn(touch).join()
    """,
    "detached": """
        for n in range(count // 10):
            tether.spawn(int).detach()
            if n % 100 == 0:
                poll(lambda: tether.statistics().tasks_live == 0, "the detached tasks to end")
        poll(lambda: tether.statistics().tasks_live == 0, "the detached tasks to end")
    """,
    "timed joins": """
        for n in range(count // 100):
            tether.spawn(int).join(timeout=60)
    """,
    "cycles": """
        for n in range(count // 50):
            box = [dedicated(int)]
            poll(box[0].done)  # else it is chance how many threads there are at once, whose memory stays
            box.append(box)
        del box
        gc.collect()
        poll(lambda: tether.statistics().tasks_live == 0, "the adopted tasks to end")
    """,
}


@pytest.mark.parametrize("way", sorted(WAYS))
@pytest.mark.timeout(200)
def test_every_way_to_end_leaves_everything_where_it_was(way, run_python):
    code = MEASURE + "\n    def work(count):\n" + WAYS[way] + "\n    unchanged(work, 20_000, 100_000)\n"
    run_python(code, check=True, timeout=180)


# ---- references -----------------------------------------------------------------------------------------------------


@pytest.fixture(params=sorted(PLACES))
def run(request):
    return PLACES[request.param]


def test_arguments_and_results_are_released(run):
    token = Token()

    def keep(value):
        return value

    for _ in range(10):
        run(keep, token)
    before = sys.getrefcount(token), sys.getrefcount(keep)
    for _ in range(200):
        run(keep, token)
    # on free-threaded builds the thread that owns an object may merge its count a little later
    poll(lambda: sys.getrefcount(token) <= before[0] + 5, "the reference count to come back", 20.0)
    assert abs(sys.getrefcount(token) - before[0]) <= 5
    assert abs(sys.getrefcount(keep) - before[1]) <= 5


@pytest.mark.parametrize("value", [None, True, int, "interned", (), 5], ids=repr)
def test_shared_constants_are_not_released_too_often(value, run):
    before = sys.getrefcount(value)
    for _ in range(500):
        run(lambda: value)
    assert abs(sys.getrefcount(value) - before) < 250


def test_argument_closure_and_result_die_after_the_join(run):
    watchers = []

    def watched():
        token = Token()
        watchers.append(weakref.ref(token))
        return token

    for _ in range(10):
        argument, cell = watched(), watched()

        def entry(given, cell=cell):
            assert isinstance(cell, Token)
            return [given, watched()]

        watchers.append(weakref.ref(entry))
        run(entry, argument)
        del argument, cell, entry
    gc.collect()
    poll(lambda: [watcher for watcher in watchers if watcher() is not None] == [], "everything released")


def test_argument_and_closure_die_at_exit_before_the_join():
    # G9: the exit value waits for the joiner, the rest does not
    watchers = []

    def make():
        token = Token()
        watchers.append(weakref.ref(token))
        return dedicated(lambda given: given is token, token)

    guard = make()
    poll(guard.done, "the end of the task")
    gc.collect()
    poll(lambda: watchers[0]() is None, "argument and closure released before the join")
    assert guard.join() is True


def test_failed_task_releases_its_frames_with_its_exception(run):
    watchers = []

    def entry():
        token = Token()
        watchers.append(weakref.ref(token))
        raise ValueError(token)

    for _ in range(10):
        with contextlib.suppress(ValueError):
            run(entry)
    gc.collect()
    poll(lambda: all(watcher() is None for watcher in watchers), "the frames released")


def test_arguments_of_a_refused_spawn_are_released():
    token = Token()
    before = sys.getrefcount(token)
    for _ in range(100):
        with contextlib.suppress(TypeError):
            tether.spawn(None, token)
        with contextlib.suppress(ValueError):
            tether.options(check="perhaps").spawn(int, token)
    assert sys.getrefcount(token) == before


def test_context_is_released(run):
    variable = contextvars.ContextVar("variable")
    watchers = []

    def entry():
        token = Token()
        watchers.append(weakref.ref(token))
        variable.set(token)

    for _ in range(10):
        run(entry)
    gc.collect()
    poll(lambda: all(watcher() is None for watcher in watchers), "the context released")


def test_scope_is_released_with_its_children():
    watchers = []
    for _ in range(10):
        with tether.scope() as s:
            token = Token()
            watchers.append(weakref.ref(token))
            s.spawn(lambda token=token: token)
        del token, s
    gc.collect()
    poll(lambda: all(watcher() is None for watcher in watchers), "the scopes released")


def test_guards_and_scopes_in_cycles_are_collected():
    watchers = []
    for _ in range(10):
        token = Token()
        watchers.append(weakref.ref(token))
        guard = tether.spawn(lambda token=token: token)
        token.guard = guard  # cycle: guard, task, function, default, token
        guard.exit_value()
        with tether.scope() as s:
            handle = s.spawn(lambda token=token: token)
        token.handle, token.scope = handle, s  # cycle: handle, exit value, token
        del token, guard, handle, s
    gc.collect()
    poll(lambda: all(watcher() is None for watcher in watchers), "the cycles collected")
