"""What one can see: references, states, trees, counters, and threads as Python knows them."""

from __future__ import annotations

import copy
import dataclasses
import faulthandler
import io
import re
import sys
import tempfile
import threading
import weakref

import pytest

import tether
from support import PLACES, Token, await_event, dedicated, here, poll
from tether import TaskState


class Blocked:
    """A named dedicated task that stays inside its function while the block runs."""

    def __init__(self, name="blocked"):
        self.started, self.release = threading.Event(), threading.Event()
        self.name = name

    def entry(self):
        self.started.set()
        await_event(self.release)

    def __enter__(self):
        self.guard = tether.options(name=self.name, dedicated=True).spawn(self.entry)
        await_event(self.started)
        return self.guard

    def __exit__(self, *exc_info):
        self.release.set()
        self.guard.exit_value()
        del self.guard


# ---- references -----------------------------------------------------------------------------------------------------


def test_ref_tells_what_is_known_of_a_task():
    with Blocked("loader") as guard:
        ref = guard.task
        assert type(ref) is tether.TaskRef
        assert isinstance(ref.id, int)
        assert ref.id > 0
        assert ref.name == "loader"
        assert ref.state is TaskState.RUNNING
        assert ref.parent is None
        assert re.fullmatch(r".+:\d+", ref.spawned_at)
        assert isinstance(ref.native_id, int)
        assert ref.is_alive()


def test_default_name_is_made_of_function_and_id():
    def reader():
        return tether.current()

    ref = tether.spawn(reader).join()
    assert ref.name == f"reader-{ref.id}"
    ref = tether.spawn(lambda: tether.current()).join()
    assert ref.name.endswith(f"-{ref.id}")


def test_ids_differ_and_grow():
    ids = [tether.spawn(lambda: tether.current().id).join() for _ in range(100)]
    assert ids == sorted(set(ids))


def test_ref_names_the_line_of_the_spawn():
    guard, site = tether.spawn(int), here()
    assert guard.task.spawned_at.endswith(site)
    guard.join()
    with tether.scope() as s:
        handle, site = s.spawn(int), here()
    assert handle.task.spawned_at.endswith(site)


def test_states_follow_the_life_of_a_task():
    started, release = threading.Event(), threading.Event()

    def entry():
        started.set()
        await_event(release)

    guard = tether.spawn(entry)
    ref = guard.task
    assert ref.state in (TaskState.QUEUED, TaskState.RUNNING)
    await_event(started)
    assert ref.state is TaskState.RUNNING
    assert ref.is_alive()
    release.set()
    poll(guard.done, "the end of the task")
    assert ref.state is TaskState.EXITED
    assert not ref.is_alive()
    guard.join()
    assert ref.state is TaskState.REAPED
    assert not ref.is_alive()


def test_task_that_waits_in_tether_is_blocked():
    release = threading.Event()

    def opener():
        with tether.scope() as inner:
            inner.options(dedicated=True).spawn(await_event, release)

    with tether.scope() as s:
        awaited = s.options(dedicated=True).spawn(await_event, release)
        joiner = s.options(dedicated=True).spawn(awaited.join)
        patient = s.options(dedicated=True).spawn(opener)
        sleeper = s.options(dedicated=True).spawn(tether.sleep, 3600)
        for handle in (joiner, patient, sleeper):
            poll(lambda handle=handle: handle.task.state is TaskState.BLOCKED, "the task to wait")
            assert handle.task.is_alive()
        poll(lambda: awaited.task.state is TaskState.RUNNING, "the task that they wait for to begin")
        sleeper.cancel()
        release.set()


def test_native_id_is_the_one_the_task_sees():
    for run in PLACES.values():
        mine, told = run(lambda: (threading.get_native_id(), tether.current().native_id))
        assert mine == told


def test_refs_compare_hash_and_copy():
    a, b = tether.spawn(int), tether.spawn(int)
    assert a.task == a.task
    assert a.task != b.task
    assert hash(a.task) == hash(a.task)
    assert {a.task, b.task, a.task} == {b.task, a.task}
    assert copy.copy(a.task) == a.task
    assert copy.deepcopy([a.task]) == [a.task]
    assert a.task != 1
    a.join()
    b.join()


def test_ref_is_not_constructible():
    with pytest.raises(TypeError):
        tether.TaskRef()


def test_ref_keeps_nothing_alive():
    # G9
    token = Token()
    watcher = weakref.ref(token)
    guard = tether.spawn(lambda token: token, token)
    ref = guard.task
    del token
    guard.join()
    del guard
    poll(lambda: watcher() is None, "argument and result released")
    assert ref.state is TaskState.REAPED
    assert isinstance(ref.name, str)
    assert isinstance(repr(ref), str)


def test_refs_may_be_given_to_tasks_and_kept_for_ever():
    refs = [tether.spawn(lambda: tether.current()).join() for _ in range(1_000)]
    assert len(set(refs)) == 1_000
    assert all(ref.state is TaskState.REAPED for ref in refs)
    assert tether.spawn(lambda refs: refs[0].state, refs).join() is TaskState.REAPED


def test_reprs_name_the_task_and_its_state():
    with Blocked("loader") as guard:
        assert "loader" in repr(guard)
        assert "loader" in repr(guard.task)
        assert "RUNNING" in repr(guard.task).upper()
    with tether.scope("group") as s:
        assert "group" in repr(s)


# ---- current, tasks, parents ----------------------------------------------------------------------------------------


def test_current_outside_any_task_is_the_root():
    root = tether.current()
    assert (root.id, root.name, root.state) == (0, "root", TaskState.RUNNING)
    assert root.parent is None
    assert root.is_alive()
    refs = []
    thread = threading.Thread(target=lambda: refs.append(tether.current()))
    thread.start()
    thread.join()
    assert refs == [root]


def test_current_inside_a_task_is_the_task():
    for spawn in (tether.spawn, dedicated):
        guard = spawn(tether.current)
        ref = guard.task
        assert guard.join() == ref


def test_tasks_lists_those_that_have_not_ended():
    with Blocked("first") as first, Blocked("second") as second:
        assert {first.task, second.task} <= set(tether.tasks())
        ended = dedicated(int)
        poll(ended.done, "the end of a task")
        assert ended.task not in tether.tasks()
        ended.join()
    assert tether.tasks() == []


def test_parent_is_the_owner_of_the_guard():
    def outer():
        inner = tether.spawn(lambda: tether.current().parent)
        assert inner.task.parent == tether.current()
        return inner.join() == tether.current()

    for run in PLACES.values():
        assert run(outer) is True


# ---- dump -----------------------------------------------------------------------------------------------------------


def test_dump_shows_the_tree_with_states_and_sites():
    started, release = threading.Event(), threading.Event()
    sites = []

    def inner():
        started.set()
        await_event(release)

    def outer():
        child, site = tether.options(name="leaf", dedicated=True).spawn(inner), here()
        sites.append(site)
        child.join()

    guard, site = tether.options(name="trunk", dedicated=True).spawn(outer), here()
    await_event(started)
    poll(lambda: guard.task.state is TaskState.BLOCKED, "the outer task to wait")
    text = io.StringIO()
    assert tether.dump(text) is None
    assert tether.dump(file=io.StringIO()) is None
    release.set()
    guard.join()

    lines = text.getvalue().splitlines()
    (trunk,) = [line for line in lines if "trunk" in line]
    (leaf,) = [line for line in lines if "leaf" in line]
    assert lines.index(trunk) < lines.index(leaf)
    assert "BLOCKED" in trunk.upper()
    assert "RUNNING" in leaf.upper()
    assert site in trunk
    assert sites[0] in leaf
    assert trunk.index("trunk") < leaf.index("leaf"), "the child is indented"


def test_dump_goes_to_standard_error_by_default(run_python):
    code = """
        import tether
        with tether.scope("named") as s:
            handle = s.options(name="visible", dedicated=True).spawn(tether.sleep, 3600)
            tether.dump()
            s.cancel()
    """
    result = run_python(code)
    assert result.rc == 0
    assert result.out == ""
    assert "visible" in result.err


def test_dump_of_nothing_is_short():
    text = io.StringIO()
    tether.dump(text)
    assert len(text.getvalue().splitlines()) <= 2


def test_dump_to_a_broken_file_raises_its_error():
    class Full(io.StringIO):
        def write(self, text):
            raise OSError("disk full")

    with Blocked(), pytest.raises(OSError, match="disk full"):
        tether.dump(Full())


def test_dump_while_tasks_come_and_go():
    stop = threading.Event()

    def churn():
        while not stop.is_set():
            with tether.scope() as s:
                for _ in range(20):
                    s.spawn(int)

    with tether.scope() as s:
        s.options(dedicated=True).spawn(churn)
        for _ in range(200):
            tether.dump(io.StringIO())
            assert isinstance(tether.tasks(), list)
            assert tether.statistics().tasks_live >= 0
        stop.set()


# ---- statistics -----------------------------------------------------------------------------------------------------


FIELDS = ["tasks_live", "tasks_queued", "tasks_running", "threads", "guards", "scopes", "regions", "borrows"]


def test_statistics_is_a_frozen_dataclass_of_integers():
    stats = tether.statistics()
    assert dataclasses.is_dataclass(stats)
    names = [field.name for field in dataclasses.fields(stats)]
    assert set(names) >= {*FIELDS, "bytes_mapped"}
    assert all(type(getattr(stats, name)) is int for name in names)
    with pytest.raises(dataclasses.FrozenInstanceError):
        stats.guards = 1
    assert stats == tether.statistics()


def test_statistics_count_a_running_task():
    with Blocked():
        stats = tether.statistics()
        assert (stats.tasks_live, stats.tasks_running, stats.guards) == (1, 1, 1)
        assert stats.threads >= 1
        assert (stats.regions, stats.borrows, stats.bytes_mapped) == (0, 0, 0)


def test_ended_task_that_was_not_joined_is_an_armed_guard_only():
    # G9
    guard = dedicated(int)
    poll(guard.done, "the end of the task")
    stats = tether.statistics()
    assert (stats.tasks_live, stats.tasks_running, stats.guards) == (0, 0, 1)
    guard.join()
    assert tether.statistics().guards == 0


def test_statistics_count_queued_tasks(run_python):
    code = """
        import threading, tether
        from support import await_event

        tether.configure(max_threads=1)
        started, release = threading.Event(), threading.Event()
        blocker = tether.spawn(lambda: (started.set(), await_event(release)))
        await_event(started)
        guards = [tether.spawn(int) for _ in range(10)]
        stats = tether.statistics()
        assert stats.tasks_queued == 10, stats
        assert stats.tasks_running == 1, stats
        assert stats.tasks_live == 11, stats
        assert stats.guards == 11, stats
        release.set()
        for guard in guards:
            guard.join()
        blocker.join()
    """
    run_python(code, check=True)


# ---- threads as Python knows them -----------------------------------------------------------------------------------


def find_thread(native_id):
    return [thread for thread in threading.enumerate() if thread.native_id == native_id]


def test_crew_threads_are_enumerated_while_they_run():
    # G18
    with Blocked() as guard:
        (thread,) = find_thread(guard.task.native_id)
        assert thread.is_alive()
        assert thread.daemon
        assert thread.name
        assert not isinstance(thread, threading._DummyThread)
        assert thread.ident in sys._current_frames()


def test_current_thread_of_a_dedicated_task_is_enumerated():
    # G18
    def entry():
        thread = threading.current_thread()
        known = thread in threading.enumerate()
        return known, type(thread).__name__, thread.ident == threading.get_ident(), thread is threading.main_thread()

    known, kind, same, is_main = dedicated(entry).join()
    assert known
    assert kind != "_DummyThread"
    assert same
    assert not is_main


def test_current_thread_of_a_task_in_place_is_known(recwarn):
    # G18
    for run in PLACES.values():
        assert run(lambda: threading.current_thread() in threading.enumerate())
    assert not recwarn.list


def test_faulthandler_sees_the_frames_of_tasks():
    # G18
    with Blocked(), tempfile.TemporaryFile() as file:
        faulthandler.dump_traceback(file=file, all_threads=True)
        file.seek(0)
        assert b"entry" in file.read()
