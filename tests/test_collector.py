"""The cyclic collector and guards: it runs on any thread at any moment, and never waits (G1, G5; faults 2, 8, 9)."""

from __future__ import annotations

import contextlib
import gc
import threading
import warnings
import weakref

import pytest

import tether
from support import Token, Unraisables, await_event, dedicated, poll, run_dedicated, run_elsewhere, run_lazy


class Gate:
    """Makes tasks that stay inside their function until `open`, and garbage that holds their guards."""

    def __init__(self):
        self.open, self.ended, self.spawned = threading.Event(), [], 0

    def _entry(self):
        await_event(self.open)
        self.ended.append(threading.get_ident())

    def spawn(self):
        started = threading.Event()

        def entry():
            started.set()
            self._entry()

        guard = dedicated(entry)
        await_event(started)
        self.spawned += 1
        return guard

    def cycle(self):
        """An object that only the collector can free, with a running guard."""
        token = Token()
        token.me, token.guard = token, self.spawn()
        return token

    def finish(self):
        """Nobody has waited: the tasks are still there, and end when they may."""
        assert self.ended == []
        assert len([task for task in tether.tasks() if task.is_alive()]) >= self.spawned
        self.open.set()
        poll(lambda: tether.statistics().tasks_live == 0, "the adopted tasks to end")
        assert len(self.ended) == self.spawned
        assert tether.statistics().guards == 0


def on_main(collect):
    collect()


def on_a_foreign_thread(collect):
    thread = threading.Thread(target=collect)
    thread.start()
    thread.join()


def in_a_task_in_place(collect):
    run_lazy(collect)


def in_a_task_elsewhere(collect):
    run_elsewhere(collect)


def in_a_dedicated_task(collect):
    run_dedicated(collect)


def in_a_task_of_a_scope(collect):
    with tether.scope() as s:
        s.options(dedicated=True).spawn(collect)


THREADS = [
    on_main,
    on_a_foreign_thread,
    in_a_task_in_place,
    in_a_task_elsewhere,
    in_a_dedicated_task,
    in_a_task_of_a_scope,
]


@pytest.fixture(params=THREADS, ids=lambda where: where.__name__)
def on(request):
    return request.param


@pytest.fixture
def by_hand():
    """The collector runs where the test says, not before."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_collection_on_any_thread_waits_for_nothing(on, by_hand):
    # fault 2, G5: only this thread can open the gate, so a wait inside the collection would never end
    gate = Gate()
    watch = weakref.ref(gate.cycle())
    on(gc.collect)
    assert watch() is None
    gate.finish()


def allocate_until(gone):
    """Sets off the automatic collection, as any program does that makes containers."""
    kept = []  # growing: what is freed again is not counted
    for _ in range(1_000):
        kept.append([[n] for n in range(1_000)])
        if gone():
            return
        if len(kept) == 100:
            kept.clear()
    raise AssertionError("the automatic collection did not come")


@pytest.fixture
def eager():
    """The automatic collection comes soon, however many objects there are (a second threshold of 0 says so)."""
    before = gc.get_threshold()
    gc.set_threshold(100, 0)
    yield
    gc.set_threshold(*before)


def test_automatic_collection_on_any_thread_waits_for_nothing(on, eager):
    # fault 2
    gate = Gate()
    watch = weakref.ref(gate.cycle())
    on(lambda: allocate_until(lambda: watch() is None))
    gate.finish()


def test_collection_on_many_threads_at_once_waits_for_nothing():
    # fault 2: on free-threaded builds they stop the world for one another
    gate = Gate()
    watches = [weakref.ref(gate.cycle()) for _ in range(20)]
    barrier = threading.Barrier(6)

    def collect():
        barrier.wait(60)
        for _ in range(5):
            gc.collect()

    threads = [threading.Thread(target=collect) for _ in range(3)]
    for thread in threads:
        thread.start()
    guards = [dedicated(collect) for _ in range(3)]
    for waiter in [*threads, *guards]:
        waiter.join()
    poll(lambda: gc.collect() >= 0 and not any(watch() for watch in watches), "the cycles to be collected")
    gate.finish()


def test_collections_race_with_spawns_joins_and_drops():
    # fault 2, G1: every task ends once, whoever lets its guard go
    ran, stop = [], threading.Event()

    def collect():
        while not stop.is_set():
            gc.collect()

    def make(n):
        for k in range(60):
            box = [tether.spawn(ran.append, (n, k))]
            if k % 3 == 0:
                box.append(box)
            elif k % 3 == 1:
                box.pop().join()

    collectors = [threading.Thread(target=collect) for _ in range(2)]
    for thread in collectors:
        thread.start()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        makers = [dedicated(make, n) for n in range(4)]
        for guard in makers:
            guard.join()
        stop.set()
        for thread in collectors:
            thread.join()
        gc.collect()
        poll(lambda: tether.statistics().tasks_live == 0, "the tasks to end")
    assert sorted(ran) == [(n, k) for n in range(4) for k in range(60)]


def test_collector_on_the_guarded_task_or_below_it_waits_for_nothing(by_hand):
    # fault 2, G5: a wait would be for itself
    for run in (run_lazy, run_dedicated, lambda fn: fn()):
        box, given = [], threading.Event()

        def entry(run=run, box=box, given=given):
            await_event(given)
            token = Token()
            token.me, token.guard = token, box.pop()
            del token
            run(gc.collect)

        box.append(dedicated(entry))
        given.set()
        poll(lambda: tether.statistics().tasks_live == 0, "the adopted task to end")
        assert box == []


def test_failure_of_a_collected_guard_is_reported_with_its_site(on, by_hand):
    # fault 2, G6: also when the task has failed before the collection
    def fail():
        raise ValueError("collected")

    with Unraisables() as unraisable:
        guard = dedicated(fail)
        site = guard.task.spawned_at
        poll(guard.done, "the end of the task")
        box = [guard]
        box.append(box)
        del box, guard
        on(gc.collect)
        poll(lambda: unraisable.types, "the report")
    assert unraisable.types == [ValueError]
    assert site in unraisable.texts[0]


def test_weak_references_are_cleared_and_called_back_once(on, by_hand):
    # fault 2: a callback may itself let a running guard go, and must not wait either
    gate, called = Gate(), []
    token, other = gate.cycle(), [gate.spawn()]

    def gone(_):
        called.append("token")
        other.clear()

    watches = [weakref.ref(token, gone), weakref.ref(token.guard, lambda _: called.append("guard"))]
    del token
    on(gc.collect)
    assert [watch() for watch in watches] == [None, None]
    assert sorted(called) == ["guard", "token"]
    assert other == []
    gate.finish()


def test_finalizer_that_the_collector_calls_may_drop_guards(on, by_hand):
    # fault 2: a plain reference drop, but inside the collection
    class Holder:
        def __init__(self, guard):
            self.guard, self.me = guard, self

        def __del__(self):
            held = self.guard
            self.guard = None
            del held

    gate = Gate()
    Holder(gate.spawn())
    on(gc.collect)
    gate.finish()


def test_finalizer_that_the_collector_calls_may_spawn_and_join(on, by_hand):
    # fault 2: what it waits for runs on another thread, and the collection ends
    values = []

    class Holder:
        def __init__(self):
            self.me = self

        def __del__(self):
            values.append(tether.spawn(int, 5).join())
            values.append(dedicated(int, 6).join())

    Holder()
    on(gc.collect)
    assert values == [5, 6]


@pytest.mark.parametrize("by", ["the collector", "a reference count"])
def test_resurrected_holder_has_its_task_joined_once(by, by_hand):
    # fault 8: the collector has finalized the guard when the holder comes back; a reference count has not
    saved, ran = [], []

    class Holder:
        def __del__(self):
            saved.append(self)

    gate = Gate()
    holder = Holder()
    holder.guard, holder.ran = gate.spawn(), ran
    if by == "the collector":
        holder.me = holder
    del holder
    gc.collect()
    (holder,) = saved
    if by == "the collector":
        with pytest.raises(tether.ReapedError):
            holder.guard.join()
        gate.finish()
    else:
        assert gate.ended == []
        gate.open.set()
        assert holder.guard.join() is None
    assert len(gate.ended) == 1
    for _ in range(2):  # a second death of the holder changes nothing
        holder.__dict__.clear()
        saved.clear()
        del holder
        gc.collect()
        holder = Holder()
        holder.guard = None
    saved.clear()
    del holder
    saved.clear()
    assert len(gate.ended) == 1


def test_guard_resurrected_again_and_again_is_adopted_once(by_hand):
    # fault 8
    saved = []

    class Phoenix:
        def __del__(self):
            saved.append(self)

    gate = Gate()
    for n in range(5):
        phoenix = Phoenix()
        phoenix.me, phoenix.guard = phoenix, saved.pop().guard if saved else gate.spawn()
        del phoenix
        gc.collect()
        assert len(saved) == 1, n
    assert gate.ended == []
    gate.open.set()
    poll(lambda: tether.statistics().tasks_live == 0, "the adopted task to end")
    guard = saved.pop().guard
    for attempt in (guard.join, guard.exit_value, guard.detach):
        with pytest.raises(tether.ReapedError):
            attempt()
    assert guard.done()
    assert len(gate.ended) == 1


def test_frozen_garbage_keeps_its_guard_until_it_is_thawed(by_hand):
    # fault 9: gc.freeze() hides the cycle from the collector; its task goes on meanwhile
    gate = Gate()
    watch = weakref.ref(gate.cycle())
    gc.freeze()
    try:
        gc.collect()
        assert watch() is not None
        assert tether.statistics().guards == 1
    finally:
        gc.unfreeze()
    gc.collect()
    assert watch() is None
    gate.finish()


def test_cycle_that_died_while_the_collector_was_off_is_adopted_when_it_is_on():
    # fault 9
    gc.disable()
    try:
        gate = Gate()
        watch = weakref.ref(gate.cycle())
        kept = [[n] for n in range(50_000)]
        assert kept
        assert watch() is not None
    finally:
        gc.enable()
    gc.collect()
    assert watch() is None
    gate.finish()


# ---- suspended generators and coroutines ----------------------------------------------------------------------------


class Forever:
    """Awaitable that suspends."""

    def __await__(self):
        yield self


def generator(spawn):
    guard = spawn()
    yield guard.task


async def async_generator(spawn):
    guard = spawn()
    yield guard.task


async def coroutine(spawn):
    guard = spawn()
    await Forever()
    return guard


def send_through(awaitable):
    """Run an awaitable up to its first suspension, or to its end."""
    with contextlib.suppress(StopIteration):
        awaitable.send(None)


def start_generator(spawn):
    suspended = generator(spawn)
    next(suspended)
    return suspended, suspended.close


def start_async_generator(spawn):
    suspended = async_generator(spawn)
    send_through(suspended.__anext__())
    return suspended, lambda: send_through(suspended.aclose())


def start_coroutine(spawn):
    suspended = coroutine(spawn)
    suspended.send(None)
    return suspended, suspended.close


SUSPENDED = [start_generator, start_async_generator, start_coroutine]


@pytest.fixture(params=SUSPENDED, ids=lambda start: start.__name__.removeprefix("start_"))
def start(request):
    return request.param


@pytest.mark.parametrize("how", ["closed", "dropped"])
def test_suspended_frame_that_is_let_go_joins_its_guard(start, how):
    # fault 9, G1: waits for its task, which nobody but the drop waits for
    gate = Gate()
    suspended, close = start(gate.spawn)
    opener = threading.Thread(target=gate.open.set)
    opener.start()
    if how == "closed":
        close()
    del suspended, close
    assert len(gate.ended) == 1
    opener.join()


def test_suspended_frame_in_a_cycle_waits_for_nothing(start, on, by_hand):
    # fault 9, fault 2: the collector closes the frame, and the guard goes inside the collection
    gate = Gate()
    suspended, close = start(gate.spawn)
    token = Token()
    token.me, token.suspended = token, (suspended, close)
    del suspended, close, token
    on(gc.collect)
    gate.finish()


def scoped_generator(gate, seen):
    try:
        with tether.scope() as s:
            s.options(dedicated=True).spawn(tether.sleep, 3600)
            yield s
    finally:
        seen.append(threading.get_ident())


async def scoped_coroutine(gate, seen):
    try:
        with tether.scope() as s:
            s.options(dedicated=True).spawn(tether.sleep, 3600)
            await Forever()
    finally:
        seen.append(threading.get_ident())


async def scoped_async_generator(gate, seen):
    try:
        with tether.scope() as s:
            s.options(dedicated=True).spawn(tether.sleep, 3600)
            yield s
    finally:
        seen.append(threading.get_ident())


@pytest.mark.parametrize("how", ["closed", "dropped", "collected"])
@pytest.mark.parametrize("make", [scoped_generator, scoped_coroutine, scoped_async_generator], ids=lambda f: f.__name__)
def test_suspended_frame_with_an_open_scope_leaves_it(make, how):
    # fault 9, G2: GeneratorExit leaves the block, which cancels and joins its task
    seen = []
    suspended = make(None, seen)
    if make is scoped_async_generator:
        send_through(suspended.__anext__())
    else:
        suspended.send(None)
    assert tether.statistics().tasks_live == 1
    if how == "closed":
        if make is scoped_async_generator:
            send_through(suspended.aclose())
        else:
            suspended.close()
    elif how == "collected":
        token = Token()
        token.me, token.suspended = token, suspended
        del token
    del suspended
    gc.collect()
    assert seen == [threading.get_ident()]
    stats = tether.statistics()
    assert (stats.tasks_live, stats.scopes) == (0, 0)


def test_suspended_frame_may_be_dropped_by_a_task_that_does_not_own_its_guard(start):
    # fault 2: the dropper does not wait. (Without a GIL the maker of the frame destroys it, and drops the guard.)
    gate = Gate()
    box, early = [start(gate.spawn)], []
    held.append(box)

    def stranger():
        held.pop().clear()
        early.extend(gate.ended)
        gate.open.set()

    del box
    dedicated(stranger).join()
    assert early == []
    poll(lambda: tether.statistics().tasks_live == 0, "the task to end")
    assert len(gate.ended) == 1
    assert tether.statistics().guards == 0


held: list[list[object]] = []
"""A module global: the capture walk does not enter it, so what lies here has not been moved."""


# ---- at exit --------------------------------------------------------------------------------------------------------

EXIT = """
    import gc, os, sys, threading, weakref
    import tether
    from support import dedicated
    from test_collector import Forever, coroutine, generator, async_generator, send_through, start_generator
    from test_collector import scoped_generator, start_async_generator, start_coroutine

    def slow():
        tether.sleep(0.05)
        os.write(1, b"ended\\n")

    spawn = lambda: dedicated(slow)
"""


@pytest.mark.parametrize(
    "body",
    [
        "held = start_generator(spawn)",
        "held = start_async_generator(spawn)",
        "held = start_coroutine(spawn)",
        "held = start_generator(spawn)[0]; cycle = [held]; cycle.append(cycle); gc.disable(); del held, cycle",
        "held = start_coroutine(spawn)[0]; cycle = [held]; cycle.append(cycle); gc.disable(); del held, cycle",
        "cycle = [spawn()]; cycle.append(cycle); gc.disable(); gc.freeze(); del cycle",
        "cycle = [spawn()]; cycle.append(cycle); del cycle; gc.collect()",
        "cycle = [spawn()]; cycle.append(cycle); del cycle; dedicated(gc.collect).join()",
        "cycle = [spawn()]; cycle.append(cycle); del cycle; threading.Thread(target=gc.collect).start()",
        "gc.callbacks.append(lambda *_: None); cycle = [spawn()]; cycle.append(cycle); del cycle; gc.collect()",
        "gc.set_threshold(1); cycle = [spawn()]; cycle.append(cycle); del cycle; x = [[n] for n in range(10_000)]",
    ],
)
def test_guard_out_of_reach_is_joined_at_exit(body, run_python):
    # fault 9, G1
    assert run_python(EXIT + f"    {body}\n", check=True).out == "ended\n"


@pytest.mark.parametrize("kind", ["generator", "coroutine", "async generator"])
def test_open_scope_in_a_suspended_frame_is_joined_at_exit(kind, run_python):
    # fault 9, G2: nobody closes it before the tasks are joined
    code = (
        EXIT
        + f"""
    def holding():
        with tether.scope() as s:
            s.options(dedicated=True).spawn(slow)
            yield s

    async def awaiting():
        with tether.scope() as s:
            s.options(dedicated=True).spawn(slow)
            await Forever()

    async def yielding():
        with tether.scope() as s:
            s.options(dedicated=True).spawn(slow)
            yield s

    kind = {kind!r}
    held = {{"generator": holding, "coroutine": awaiting, "async generator": yielding}}[kind]()
    if kind == "generator":
        next(held)
    elif kind == "coroutine":
        held.send(None)
    else:
        send_through(held.__anext__())
    """
    )
    assert run_python(code, check=True).out == "ended\n"


def test_collector_that_was_never_on_leaks_no_task(run_python):
    # fault 9: with the collector off from the start, straight drops join and cycles are joined at exit
    code = """
        import gc
        gc.disable()
        import os, tether
        from support import dedicated

        def slow(word):
            tether.sleep(0.02)
            os.write(1, word)

        for _ in range(3):
            guard = dedicated(slow, b"straight ")
            del guard
        assert tether.statistics().tasks_live == 0
        cycle = [dedicated(slow, b"cycle")]
        cycle.append(cycle)
        del cycle
    """
    assert run_python(code, check=True).out == "straight " * 3 + "cycle"
