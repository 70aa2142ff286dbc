"""Guards that are dropped, collected, resurrected or abandoned: no path forgets a task, no error is lost."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import threading
import traceback
import tracemalloc
import warnings

import pytest

import tether
from support import Unraisables, await_event, dedicated, here, poll


class Broken(Exception):
    pass


SMUGGLED: list[tether.JoinGuard] = []
"""A module global: the capture walk does not enter it, so what lies here has not been moved."""


def fail(message="broken"):
    raise Broken(message)


class Gated:
    """A dedicated task that is inside its function and stays there until `release`."""

    def __init__(self, then=lambda: None):
        self.started, self.release, self.ended = threading.Event(), threading.Event(), threading.Event()
        self.then = then

    def __call__(self):
        self.started.set()
        await_event(self.release)
        try:
            self.then()
        finally:
            self.ended.set()

    def spawn(self):
        guard = dedicated(self)
        await_event(self.started)
        return guard

    def release_from_elsewhere(self):
        """Release from a thread that starts only now, so that the caller can go on to wait."""
        thread = threading.Thread(target=self.release.set)
        thread.start()
        return thread


def test_drop_of_a_running_guard_waits_for_its_task():
    # G1
    gate = Gated()
    guard = gate.spawn()
    thread = gate.release_from_elsewhere()
    del guard
    assert gate.ended.is_set()
    thread.join()


def test_owner_waits_although_another_thread_held_the_reference_that_it_drops():
    # G1: without a GIL such a drop used to be put off until that other thread looked, and was carried out there
    gate = Gated()
    box = [gate.spawn()]

    def owner(box):
        thread = gate.release_from_elsewhere()
        box.clear()
        ended = gate.ended.is_set()
        thread.join()
        return ended

    for _ in range(20):
        assert dedicated(owner, box).join()
        gate = Gated()
        box.append(gate.spawn())
    gate.release.set()
    box.clear()


def test_drop_of_a_guard_that_came_in_a_result_waits():
    # G1: made on another thread, dropped here
    for _ in range(20):
        gate = Gated()
        guard = dedicated(gate.spawn).join()
        thread = gate.release_from_elsewhere()
        del guard
        assert gate.ended.is_set()
        thread.join()


def test_drop_lets_its_task_have_the_gil():
    # fault 1
    counted = []

    def count():
        for n in range(300_000):
            counted.append(n)
        counted.append("end")

    guard = dedicated(count)
    del guard
    assert counted[-1] == "end"


def test_drop_of_a_running_or_ended_guard_is_silent():
    gate = Gated()
    guard = gate.spawn()
    gate.release.set()
    with Unraisables() as unraisable, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        del guard
        ended = dedicated(int)
        poll(ended.done, "the end of the task")
        del ended
    assert unraisable.texts == []
    assert [str(warning.message) for warning in warned] == []


def test_drop_of_a_never_started_guard_runs_it_and_warns_with_its_site():
    # G1; it may have been taken by a worker meanwhile, and then there is nothing to warn of
    ran, mentions = [], 0
    for n in range(200):
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            guard, site = tether.spawn(ran.append, n), here()
            del guard
        assert ran == list(range(n + 1))
        assert len(warned) <= 1
        for warning in warned:
            assert warning.category is ResourceWarning
            assert site in str(warning.message)
            mentions += 1
    assert mentions > 0


def test_bare_spawn_statement_is_serial_and_warns():
    # G1
    ran = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        for n in range(100):
            tether.spawn(ran.append, n)
            assert ran[-1] == n


def test_resource_warning_turned_into_an_error_is_not_raised_out_of_the_drop():
    ran, reported = [], 0
    for n in range(50):
        with Unraisables() as unraisable, warnings.catch_warnings():
            warnings.simplefilter("error", ResourceWarning)
            guard = tether.spawn(ran.append, n)
            del guard
        assert ran[-1] == n
        assert set(unraisable.types) <= {ResourceWarning}
        reported += len(unraisable.types)
    assert reported > 0


@pytest.mark.parametrize("outcome", ["waited for", "ended before"])
def test_must_join_guard_always_warns_when_dropped(outcome):
    release = threading.Event()
    made = tether.options(must_join=True, dedicated=True, name="precious")
    guards, site = [made.spawn(await_event, release)], here()
    release.set()
    if outcome == "ended before":
        poll(guards[0].done, "the end of the task")
    with pytest.warns(ResourceWarning) as warned:
        guards.clear()
    assert any(site in str(warning.message) for warning in warned)


def test_must_join_guard_that_is_joined_does_not_warn():
    assert tether.options(must_join=True).spawn(int, 1).join() == 1
    with tether.options(must_join=True).spawn(int, 1):
        pass


@pytest.mark.parametrize("outcome", ["waited for", "ended before"])
def test_failure_of_a_dropped_guard_is_reported_with_its_site(outcome):
    # G6
    release = threading.Event()

    def entry():
        await_event(release)
        fail("dropped")

    with Unraisables() as unraisable:
        guard, site = tether.options(dedicated=True).spawn(entry), here()
        release.set()
        if outcome == "ended before":
            poll(guard.done, "the end of the task")
        del guard
    assert unraisable.types == [Broken]
    assert "dropped" in unraisable.texts[0]
    assert site in unraisable.texts[0]


def test_failure_of_a_never_started_dropped_guard_is_reported():
    # G6
    for _ in range(50):
        with Unraisables() as unraisable, warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            guard, site = tether.spawn(fail), here()
            del guard
        assert unraisable.types == [Broken]
        assert site in unraisable.texts[0]


def test_cancelled_task_of_a_dropped_guard_is_no_failure():
    guard = dedicated(tether.sleep, 3600)
    with Unraisables() as unraisable:
        guard.cancel()
        del guard
    assert unraisable.texts == []


def test_base_exception_of_a_dropped_guard_is_reported_not_raised():
    # G6
    for error in (SystemExit(3), KeyboardInterrupt(), GeneratorExit()):

        def entry(error=error):
            raise error

        with Unraisables() as unraisable:
            guard = dedicated(entry)
            del guard
        assert unraisable.types == [type(error)]


def test_pending_exception_survives_the_drop():
    # G6, fault 7
    gate = Gated(then=fail)

    def body():
        guard = gate.spawn()
        gate.release.set()
        try:
            raise KeyError("pending")
        finally:
            del guard

    with Unraisables() as unraisable:
        with pytest.raises(KeyError) as caught:
            body()
    assert caught.value.__context__ is None
    assert gate.ended.is_set()
    assert unraisable.types == [Broken]


def test_frame_left_by_an_exception_joins_its_guards():
    # G1
    gate = Gated()

    def body():
        guard = gate.spawn()
        gate.release.set()
        assert guard
        raise KeyError("leaving")

    with contextlib.suppress(KeyError):
        body()
    assert gate.ended.is_set()


def test_return_from_a_function_joins_its_guards():
    # G1
    gates = [Gated() for _ in range(3)]

    def body():
        guards = [gate.spawn() for gate in gates]
        for gate in gates:
            gate.release.set()
        return len(guards)

    assert body() == 3
    assert all(gate.ended.is_set() for gate in gates)


@pytest.mark.parametrize("how", ["close", "del"])
def test_closed_generator_joins_its_guards(how):
    # fault 9, G1
    gate = Gated()

    def generate():
        guard = gate.spawn()
        yield guard.task

    generator = generate()
    next(generator)
    gate.release.set()
    if how == "close":
        generator.close()
    else:
        del generator
    assert gate.ended.is_set()


def test_closed_coroutine_joins_its_guards():
    # fault 9, G1
    gate = Gated()

    async def coroutine():
        guard = gate.spawn()
        gate.release.set()
        await asyncio.sleep(3600)
        return guard

    async def main():
        task = asyncio.create_task(coroutine())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    gc.collect()
    assert gate.ended.is_set()


def test_overwriting_a_guard_joins_it():
    gate = Gated()
    guard = gate.spawn()
    gate.release.set()
    guard = tether.spawn(int)
    assert gate.ended.is_set()
    guard.join()


def make_cycle(guard):
    cycle = [guard]
    cycle.append(cycle)


def test_collected_cycle_with_a_running_guard_waits_for_nothing():
    # fault 2, G5: only this thread can release the task, so a wait here would never end
    gate = Gated()
    make_cycle(gate.spawn())
    gc.collect()
    assert not gate.ended.is_set()
    gate.release.set()
    poll(lambda: tether.statistics().tasks_live == 0, "the adopted task to end")
    assert gate.ended.is_set()


def test_collected_cycle_with_a_queued_guard_does_not_run_it_here():
    # fault 2, G5, G1: it runs elsewhere, or ran elsewhere before the collection
    for _ in range(20):
        ran = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            make_cycle(tether.spawn(lambda ran=ran: ran.append(threading.get_ident())))
            gc.collect()
        poll(lambda ran=ran: ran, "the adopted task to run")
        assert ran != [threading.get_ident()]
        assert len(ran) == 1


def test_collection_on_another_thread_waits_for_nothing():
    # fault 2
    gate = Gated()
    make_cycle(gate.spawn())
    thread = threading.Thread(target=gc.collect)
    thread.start()
    thread.join()
    gate.release.set()
    gc.collect()
    await_event(gate.ended)


def test_collection_inside_a_task_waits_for_nothing():
    # fault 2: the collector runs on the guarded task itself
    def entry():
        await_event(ready)
        gc.collect()

    ready = threading.Event()
    guard = dedicated(entry)
    make_cycle(guard)
    del guard
    ready.set()
    poll(lambda: tether.statistics().tasks_live == 0, "the adopted task to end")


def test_failure_of_an_adopted_task_is_reported():
    # fault 2, G6
    gate = Gated(then=fail)
    with Unraisables() as unraisable:
        make_cycle(gate.spawn())
        gc.collect()
        gate.release.set()
        poll(lambda: unraisable.types, "the report")
    assert unraisable.types == [Broken]


def test_task_that_drops_its_own_guard_is_adopted():
    # G1, G5, fault 2
    box, dropped = [], threading.Event()

    def entry():
        await_event(given)
        box.clear()
        dropped.set()

    given = threading.Event()
    box.append(dedicated(entry))
    given.set()
    await_event(dropped)
    poll(lambda: tether.statistics().tasks_live == 0, "the adopted task to end")


def test_guard_dropped_below_its_task_is_adopted():
    # fault 2, G5: a descendant that waited for its ancestor would wait for itself
    given = threading.Event()

    def below():
        SMUGGLED.clear()

    def entry(spawn):
        await_event(given)
        spawn(below).join()

    for spawn in (tether.spawn, dedicated):
        given.clear()
        SMUGGLED.append(dedicated(entry, spawn))
        given.set()
        poll(lambda: tether.statistics().tasks_live == 0, "the adopted task to end")
        assert SMUGGLED == []


def test_guard_dropped_by_a_task_that_does_not_own_it_is_adopted():
    # fault 2: nothing waits; the dropper itself releases the task afterwards
    gate = Gated()
    SMUGGLED.append(gate.spawn())

    def stranger():
        SMUGGLED.clear()
        gate.release.set()

    dedicated(stranger).join()
    await_event(gate.ended)


def test_guard_resurrected_by_a_finalizer_stays_armed():
    # fault 8
    saved = []

    class Holder:
        def __init__(self, guard):
            self.guard = guard

        def __del__(self):
            saved.append(self.guard)

    gate = Gated(then=lambda: None)
    holder = Holder(gate.spawn())
    del holder
    assert not gate.ended.is_set()
    gate.release.set()
    assert saved.pop().join() is None

    gate = Gated()
    holder = Holder(gate.spawn())
    holder.cycle = holder
    del holder
    gc.collect()
    poll(lambda: saved, "the finalizer")
    gate.release.set()
    with contextlib.suppress(tether.TetherError):  # the collector may have finalized the guard first: adopted
        saved.pop().join()
    await_event(gate.ended)


def test_guard_dropped_in_a_finalizer_is_joined_by_its_owner():
    # fault 8
    gate = Gated()

    class Holder:
        def __del__(self):
            del self.guard

    holder = Holder()
    holder.guard = gate.spawn()
    gate.release.set()
    del holder
    await_event(gate.ended)


def test_collector_may_be_off_for_straight_drops():
    # fault 9
    gc.disable()
    try:
        gate = Gated()
        guard = gate.spawn()
        gate.release.set()
        del guard
        assert gate.ended.is_set()
    finally:
        gc.enable()


def test_drop_is_not_a_cancellation_point():
    # G12: cleanup is safe although the task is cancelled
    gate = Gated()
    owner_started = threading.Event()

    def owner():
        guard = gate.spawn()
        owner_started.set()
        try:
            tether.sleep(3600)
        finally:
            gate.release.set()
            del guard
            assert gate.ended.is_set()

    guard = dedicated(owner)
    await_event(owner_started)
    guard.cancel()
    with pytest.raises(tether.TaskKilled):
        guard.join()


def test_ten_thousand_dropped_guards_leave_nothing():
    # G9
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        for _ in range(10_000):
            tether.spawn(int)


def test_drop_keeps_the_handled_exception():
    # fault 7
    gate = Gated()
    guard = gate.spawn()
    gate.release.set()
    error = KeyError("handled")
    try:
        raise error
    except KeyError:
        del guard
        assert sys.exc_info()[1] is error


# ---- hooks that misbehave -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def unraisablehook(hook):
    saved, sys.unraisablehook = sys.unraisablehook, hook
    try:
        yield
    finally:
        sys.unraisablehook = saved


def drop_failing(how):
    """Lets the guard of a failing task go: when it has ended, before, before it started, or to the collector."""
    if how == "never started":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            tether.spawn(fail)
        return
    guard = dedicated(fail)
    if how != "running":
        poll(guard.done, "the end of the task")
    if how == "collected":
        make_cycle(guard)
        del guard
        gc.collect()


@pytest.fixture(params=["running", "ended", "never started", "collected"])
def how(request):
    return request.param


def test_unraisablehook_that_raises_does_not_reach_the_drop(how, capfd):
    # G6, fault 7: the interpreter says on stderr what it could not report
    calls = []

    def hook(report):
        calls.append(report.exc_type)
        raise KeyError("in the hook")

    with unraisablehook(hook):
        drop_failing(how)
    assert calls == [Broken]
    assert "in the hook" in capfd.readouterr().err


def test_unraisablehook_may_spawn_join_and_open_scopes(how):
    # G6, fault 7
    results = []

    def hook(report):
        results.append(report.exc_type)
        results.append(tether.spawn(int, 5).join())
        results.append(dedicated(int, 6).join())
        with tether.scope() as s:
            results.append(s.spawn(int, 7).join())
        guard = dedicated(int)
        poll(guard.done, "the end of the hook's task")  # else a hook in the collector would be warned, and called again
        del guard

    with unraisablehook(hook):
        drop_failing(how)
    assert results == [Broken, 5, 6, 7]


def test_unraisablehook_may_store_what_it_is_given(how):
    # G6, G9: it keeps the failure, not the task
    kept = []
    with unraisablehook(kept.append):
        drop_failing(how)
    (report,) = kept
    assert report.exc_type is Broken
    assert isinstance(report.exc_value, Broken)
    assert "test_guard_destructor.py:" in str(report.object) or "support.py:" in str(report.object)
    poll(lambda: tether.statistics().tasks_live == 0, "the end of the task")
    assert tether.statistics().guards == 0


def test_unraisablehook_that_fails_by_dropping_another_failing_guard():
    # G6: reports nest
    calls = []

    def hook(report):
        calls.append(str(report.exc_value))
        if len(calls) < 10:
            inner = dedicated(fail, f"inner {len(calls)}")
            del inner

    with unraisablehook(hook):
        guard = dedicated(fail, "outer")
        del guard
    assert calls == ["outer", *(f"inner {n}" for n in range(1, 10))]


# ---- warnings -------------------------------------------------------------------------------------------------------


def never_started():
    """A guard that nobody starts: without one, a free thread of the crew might be faster than the drop."""
    return tether.options(must_join=True).spawn(int)


@pytest.mark.parametrize("by", ["drop", "collector", "another task"])
def test_warning_names_the_site_however_the_guard_goes(by):
    # G6
    guard, site = never_started(), here_of_never_started()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        if by == "collector":
            make_cycle(guard)
            del guard
            gc.collect()
        elif by == "another task":
            SMUGGLED.append(guard)
            del guard
            dedicated(lambda: SMUGGLED.clear()).join()
        else:
            del guard
        poll(lambda: warned, "the warning")
    assert {warning.category for warning in warned} == {ResourceWarning}
    assert len(warned) == 1
    assert site in str(warned[0].message)
    assert "must_join" in str(warned[0].message)


def here_of_never_started():
    return f"test_guard_destructor.py:{never_started.__code__.co_firstlineno + 2}"


def test_warning_as_an_error_and_a_pending_exception_and_a_failure_at_once():
    # fault 7: each is told, none displaces another
    with Unraisables() as unraisable, warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)

        def body():
            guard = tether.options(must_join=True).spawn(fail)
            try:
                raise KeyError("pending")
            finally:
                del guard

        with pytest.raises(KeyError, match="pending") as caught:
            body()
    assert caught.value.__context__ is None
    assert sorted(kind.__name__ for kind in unraisable.types) == ["Broken", "ResourceWarning"]


def test_warning_filter_that_raises_does_not_reach_the_drop(monkeypatch):
    # G6: showwarning is user code in the destructor
    def show(*args, **kwargs):
        raise OSError("no place to show it")

    with Unraisables() as unraisable, warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "showwarning", show)
        guard = never_started()
        del guard
    assert unraisable.types == [OSError]


def test_showwarning_may_use_tether():
    # G6: it runs inside the destructor
    results = []

    def show(*args, **kwargs):
        results.append(tether.spawn(int, 5).join())
        results.append(dedicated(int, 6).join())

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = show
        guard = never_started()
        del guard
    assert results == [5, 6]


def test_warning_while_allocations_are_traced():
    # tracemalloc looks for the source of a ResourceWarning; ours is half destroyed, and is not shown to anybody
    tracemalloc.start(10)
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            for _ in range(20):
                guard = never_started()
                del guard
                guard = never_started()
                make_cycle(guard)
                del guard
                gc.collect()
            poll(lambda: len(warned) == 40, "the warnings")
        texts = {warnings.formatwarning(w.message, w.category, w.filename, w.lineno) for w in warned}
        assert all(here_of_never_started() in text for text in texts)
        assert {warning.source for warning in warned} == {None}
    finally:
        tracemalloc.stop()


def test_program_with_tracemalloc_and_warnings_as_errors_joins_all(run_python):
    # G1, G6
    code = """
        import gc, os, tether
        from support import dedicated, poll

        def entry(n):
            tether.sleep(0.01)
            os.write(1, b"ended\\n")

        precious = tether.options(must_join=True)
        guard = precious.spawn(entry, 1)
        del guard
        cycle = [precious.spawn(entry, 2)]
        cycle.append(cycle)
        del cycle
        gc.collect()
        poll(lambda: tether.statistics().tasks_live == 0)
        last = precious.spawn(entry, 3)
    """
    ran = run_python(code, args=("-X", "tracemalloc=10", "-W", "error"))
    assert (ran.rc, ran.out) == (0, "ended\n" * 3)
    assert ran.err.count("ResourceWarning: task ") >= 2
    assert "<string>:" in ran.err


# ---- exceptions around a drop ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("spawn", [tether.spawn, dedicated], ids=["lazy", "dedicated"])
@pytest.mark.parametrize("pending", [KeyError, KeyboardInterrupt, GeneratorExit, StopIteration, MemoryError])
def test_any_pending_exception_survives_the_drop_of_a_failed_task(pending, spawn):
    # fault 7, G6: pending one preserved, with its traceback; the task's reported with its site
    def body():
        guard = spawn(fail)
        site.append(guard.task.spawned_at)
        raise pending("pending")

    site = []
    with Unraisables() as unraisable, warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            body()
        except BaseException as error:
            caught = error
            frames = [entry.name for entry in traceback.extract_tb(error.__traceback__)]
            error.__traceback__.tb_next.tb_frame.clear()
    assert type(caught) is pending
    assert caught.args == ("pending",)
    assert caught.__context__ is None
    assert frames == ["test_any_pending_exception_survives_the_drop_of_a_failed_task", "body"]
    assert unraisable.types == [Broken]
    assert site[0] in unraisable.texts[0]
    del caught


def test_exception_chain_is_untouched_by_a_drop_inside_an_except_block():
    # fault 7: the failure of the task does not become the context of what is raised next
    with Unraisables() as unraisable:
        with pytest.raises(ValueError, match="second") as caught:
            try:
                raise KeyError("first")
            except KeyError:
                guard = dedicated(fail)
                del guard
                raise ValueError("second")  # noqa: B904
    assert type(caught.value.__context__) is KeyError
    assert caught.value.__context__.__context__ is None
    assert unraisable.types == [Broken]


def test_exception_raised_in_a_finalizer_after_a_drop_is_the_finalizers():
    # fault 7: both are unraisable, each with its own text
    class Holder:
        def __del__(self):
            del self.guard
            raise KeyError("finalizer")

    with Unraisables() as unraisable:
        holder = Holder()
        holder.guard = dedicated(fail)
        del holder
    assert unraisable.types == [Broken, KeyError]


def test_drop_at_the_recursion_limit_joins():
    # fault 17, G1: the destructor has little of the budget left, and the task a full one
    ended = []

    def entry():
        ended.append(sum(n for n in range(3)))

    def dive():
        try:
            dive()
        finally:
            guard = dedicated(entry) if len(ended) < 3 else None
            del guard

    def run():
        with pytest.raises(RecursionError):
            dive()
        return True

    assert dedicated(run).join()
    assert ended == [3, 3, 3]
