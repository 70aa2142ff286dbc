"""par_map: order, laziness, failures, ends of every kind, nesting, contexts (G1, G2, G8, G12, G18)."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import gc
import itertools
import operator
import signal
import sys
import threading
import types
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tether
from support import Token, Unraisables, await_event, busy_statistics, dedicated, poll, run_elsewhere
from tether import _chunking, _flight


def identity(x):
    return x


def notes_of(error):
    return "\n".join(getattr(error, "__notes__", ()))


class Gate:
    """A function whose calls stay inside until they are let out; `entered` counts them."""

    def __init__(self) -> None:
        self.entered: list[object] = []
        self.open = threading.Event()

    def __call__(self, item):
        self.entered.append(item)
        await_event(self.open)
        return item


class Boom(Exception):
    pass


def fails_at(*bad):
    def call(x):
        if x in bad:
            raise Boom(x)
        return x * 10

    return call


# ---- what it computes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [None, 1, 2, 5])
@pytest.mark.parametrize("chunksize", [None, 1, 7, 1000])
def test_results_are_those_of_map(workers, chunksize):
    # G2
    got = tether.par_map(lambda x: x * x, range(500), workers=workers, chunksize=chunksize)
    assert list(got) == [x * x for x in range(500)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(), max_size=60), min_size=1, max_size=3),
    st.sampled_from([None, 1, 2, 3]),
    st.sampled_from([None, 1, 2, 50]),
    st.booleans(),
)
def test_any_inputs_give_what_map_gives(columns, workers, chunksize, ordered):
    # G2
    def fn(*items):
        return functools.reduce(operator.xor, items)

    got = list(tether.par_map(fn, *columns, workers=workers, chunksize=chunksize, ordered=ordered))
    wanted = list(map(fn, *columns))
    assert got == wanted if ordered else sorted(got) == sorted(wanted)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 60),
    st.sets(st.integers(0, 60), max_size=3),
    st.sampled_from([None, 1, 2]),
    st.sampled_from([None, 4]),
)
def test_any_failures_come_after_the_results_before_them(n, bad, workers, chunksize):
    def consume(iterator):
        seen = []
        try:
            seen.extend(iterator)
        except Boom as error:
            return seen, error.args
        return seen, None

    fn = fails_at(*bad)
    assert consume(iter(tether.par_map(fn, range(n), workers=workers, chunksize=chunksize))) == consume(
        map(fn, range(n))
    )


def test_large_range_is_done_in_few_tasks():
    _chunking._costs.clear()
    tasks = set()

    def fn(x):
        tasks.add(tether.current().id)
        return x

    assert sum(tether.par_map(fn, range(200_000))) == sum(range(200_000))
    assert len(tasks) < 20_000


def test_dear_items_are_not_batched():
    # G8: 8 items that wait for one another can only end if each has a task of its own.
    barrier = threading.Barrier(8)
    assert list(tether.par_map(lambda i: (barrier.wait(60), i)[1], range(8))) == list(range(8))


def test_batch_that_was_sized_by_cheap_items_is_divided():
    # G8: one batch by what is known of the function, but its items wait for one another.
    def fn(x):
        if x >= 100:
            seen.append(x)
            if x >= 104:
                barrier.wait(60)
            else:
                tether.sleep(0.02)  # longer than a batch should take
        return x

    seen, barrier = [], threading.Barrier(2)
    list(tether.par_map(fn, range(100)))
    _chunking._costs[_chunking.key_of(fn)] = 1e-7
    assert list(tether.par_map(fn, range(100, 106))) == list(range(100, 106))
    assert sorted(seen) == list(range(100, 106))


def test_unordered_gives_what_ends_first():
    gate = Gate()

    def fn(x):
        return gate(x) if x == 0 else x

    with tether.par_map(fn, range(4), ordered=False) as results:
        first = {next(results) for _ in range(3)}
        gate.open.set()
        assert first == {1, 2, 3}
        assert list(results) == [0]


def test_unordered_with_everything():
    assert sorted(tether.par_map(identity, range(50_000), ordered=False)) == list(range(50_000))


def test_iterator_and_next_share_one_position():
    results = tether.par_map(identity, range(5))
    assert next(results) == 0
    assert next(iter(results)) == 1
    assert list(results) == [2, 3, 4]
    assert list(results) == []


def test_no_items():
    assert list(tether.par_map(identity, [])) == []
    assert list(tether.par_map(identity, range(0))) == []
    assert list(tether.par_map(operator.add, [1, 2], [])) == []


def test_shortest_iterable_counts():
    assert list(tether.par_map(operator.add, itertools.count(), [10, 20])) == [10, 21]


# ---- laziness and look-ahead -----------------------------------------------------------------------------


def test_nothing_happens_before_the_first_result_is_asked_for():
    pulled = []
    results = tether.par_map(identity, (pulled.append(i) or i for i in range(10)))
    assert pulled == []
    poll(lambda: busy_statistics() == {}, "nothing to be left")
    assert next(results) == 0
    results.close()


@pytest.mark.parametrize("ordered", [True, False])
def test_infinite_input_is_looked_at_a_bounded_way_ahead(ordered):
    pulled = itertools.count()
    with tether.par_map(identity, (next(pulled) for _ in itertools.repeat(None)), ordered=ordered) as results:
        taken = list(itertools.islice(results, 100_000))
    assert sorted(taken)[0] == 0
    assert next(pulled) < 100_000 + 40 * _chunking.MOST


def test_items_are_taken_by_the_consumer_only():
    # The source is an iterator like any other: used by one thread, the one that asks for results.
    threads = set()

    def source():
        for i in range(300):
            threads.add(threading.get_ident())
            yield i

    assert list(tether.par_map(identity, source(), chunksize=3)) == list(range(300))
    assert threads == {threading.get_ident()}


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_no_more_calls_at_once_than_workers(workers):
    lock, now, most = threading.Lock(), 0, 0

    def fn(x):
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        tether.sleep(0.002)
        with lock:
            now -= 1
        return x

    assert list(tether.par_map(fn, range(40), workers=workers)) == list(range(40))
    assert most <= workers


def test_as_many_calls_at_once_as_workers():
    # G8
    barrier = threading.Barrier(12)
    assert len(list(tether.par_map(lambda x: barrier.wait(60), range(24), workers=12, chunksize=1))) == 24


def test_one_worker_runs_in_the_thread_that_asks():
    assert set(tether.par_map(lambda x: threading.get_ident(), range(50), workers=1)) == {threading.get_ident()}


def test_workers_do_not_idle_behind_a_slow_first_item():
    # With two workers, one of them busy with item 0, the other one does the rest of what was taken.
    gate = Gate()
    rest = threading.Semaphore(0)

    def fn(x):
        if x == 0:
            for _ in range(4):
                assert rest.acquire(timeout=60)
            return x
        rest.release()
        return x

    assert list(tether.par_map(fn, range(5), workers=2, chunksize=1)) == list(range(5))
    del gate


# ---- failures --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunksize", [None, 1, 10])
@pytest.mark.parametrize("workers", [None, 1, 2])
def test_failure_comes_after_the_results_before_it_and_names_the_item(chunksize, workers):
    results = tether.par_map(fails_at(25), range(100), chunksize=chunksize, workers=workers)
    seen = []
    with pytest.raises(Boom) as caught:
        seen.extend(results)
    assert seen == [x * 10 for x in range(25)]
    assert "item 25: 25" in notes_of(caught.value)
    assert list(results) == []  # it is over
    del caught


def test_failure_names_the_items_of_several_iterables():
    def fn(a, b):
        return a // b

    with pytest.raises(ZeroDivisionError) as caught:
        list(tether.par_map(fn, [1, 2, 3], [1, 0, 1]))
    assert "item 1: (2, 0)" in notes_of(caught.value)


def test_first_failure_by_index_is_raised_even_if_a_later_one_is_faster():
    later = threading.Event()

    def fn(x):
        if x == 1:
            await_event(later)
            raise Boom("first")
        if x == 2:
            later.set()
            raise Boom("second")
        return x

    with pytest.raises(Boom, match="first"):
        list(tether.par_map(fn, range(3), chunksize=1))


def test_failure_cancels_what_is_behind_it():
    # G12
    begun = threading.Event()

    def fn(x):
        if x == 0:
            await_event(begun)
            raise Boom
        begun.set()
        tether.sleep(3600)

    with pytest.raises(Boom):
        list(tether.par_map(fn, range(8), chunksize=1))


def test_failure_stops_taking_items():
    pulled = itertools.count()
    with pytest.raises(Boom):
        list(tether.par_map(fails_at(3), iter(pulled.__next__, -1), chunksize=1))
    assert next(pulled) < 200


def test_unordered_failure_is_raised_at_once():
    def fn(x):
        if x == 5:
            raise Boom
        tether.sleep(3600 if x < 5 else 0)
        return x

    with pytest.raises(Boom) as caught:
        list(tether.par_map(fn, range(8), ordered=False, chunksize=1))
    assert "item 5: 5" in notes_of(caught.value)
    del caught


def test_other_failures_are_not_reported():
    # G6: the first one is raised; those of items that nobody will ask for are of no interest.
    with Unraisables() as reports, pytest.raises(Boom):
        list(tether.par_map(fails_at(*range(100)), range(100), chunksize=1))
    gc.collect()
    assert reports.texts == []


def test_stop_iteration_of_the_function_is_a_failure():
    # PEP 479: it must not look like the end of the input.
    def fn(x):
        if x == 3:
            raise StopIteration
        return x

    for bad_end in (4, 10):
        seen = []
        with pytest.raises(RuntimeError, match="StopIteration") as caught:
            seen.extend(tether.par_map(fn, range(bad_end)))
        assert seen == [0, 1, 2]
        assert "item 3: 3" in notes_of(caught.value)
        del caught


def test_system_exit_of_the_function_goes_through():
    # fault 29
    def fn(x):
        if x == 2:
            raise SystemExit(7)
        return x

    seen = []
    with pytest.raises(SystemExit, match="7"):
        seen.extend(tether.par_map(fn, range(5)))
    assert seen == [0, 1]


def test_item_whose_repr_fails_does_not_hide_the_failure():
    class Odd:
        def __repr__(self):
            raise ValueError

    with pytest.raises(ZeroDivisionError):
        list(tether.par_map(lambda x: 1 // 0, [Odd()]))


def test_source_that_raises_is_heard_after_the_results_before_it():
    def source():
        yield from range(10)
        raise Boom("source")

    seen = []
    with pytest.raises(Boom, match="source"):
        seen.extend(tether.par_map(identity, source(), chunksize=4))
    assert seen == list(range(10))


def test_failure_before_a_failure_of_the_source_comes_first():
    def source():
        yield from range(10)
        raise Boom("source")

    with pytest.raises(ZeroDivisionError):
        list(tether.par_map(lambda x: 1 // (x - 9), source(), chunksize=100))


def test_failed_call_gives_its_borrow_back():
    # G14, fault 22: also while the traceback is kept.
    def fill(part):
        view = memoryview(part)
        view[0] = 1
        raise Boom

    with tether.Region(4096) as region:
        with pytest.raises(Boom) as caught:
            list(tether.par_map(fill, region.chunks_mut(4)))
        region.borrow_mut().release()
        del caught


def test_borrows_move_to_the_tasks():
    # G3, G13
    def fill(part):
        part[:] = b"x" * len(part)
        return len(part)

    with tether.Region(4096) as region:
        parts = region.chunks_mut(8)
        assert sum(tether.par_map(fill, parts)) == 4096
        with pytest.raises(tether.MovedError):
            parts[0][0]
        with region.share() as whole:
            assert bytes(whole) == b"x" * 4096
        parts.clear()


def test_guards_in_results_come_to_the_consumer():
    # G3
    guards = list(tether.par_map(lambda x: tether.spawn(identity, x), range(10)))
    assert [guard.join() for guard in guards] == list(range(10))


# ---- early ends ------------------------------------------------------------------------------------------


def sleeper(x):
    if x:
        tether.sleep(3600)
    return x


def test_closing_cancels_and_joins():
    # G1
    results = tether.par_map(sleeper, range(10), chunksize=1)
    assert next(results) == 0
    results.close()
    assert tether.tasks() == []
    results.close()
    assert list(results) == []


def test_closing_before_the_first_result():
    tether.par_map(sleeper, range(10)).close()
    with tether.par_map(sleeper, range(10)):
        pass
    poll(lambda: busy_statistics() == {}, "nothing to be left")


def test_leaving_the_loop_and_dropping_cancels_and_joins():
    # G1
    for x in tether.par_map(sleeper, range(10), chunksize=1):
        assert x == 0
        break
    poll(lambda: tether.tasks() == [], "the tasks to end")
    poll(lambda: busy_statistics() == {}, "nothing to be left")


def test_dropping_the_object_and_keeping_its_iterator():
    results = iter(tether.par_map(identity, range(1000)))
    gc.collect()
    assert list(results) == list(range(1000))


def test_batch_that_ends_before_its_spawner_knows_its_task(monkeypatch):
    # One that a task starts (workers=): spawned, run and ended while the thread of that task is held up.
    start, consumer = _flight.Work._start, threading.get_ident()

    def slow_start(self, batch):
        if threading.get_ident() == consumer:
            start(self, batch)
            return
        items, batch.items = batch.items, None
        handle = self.spawn(self.run, items, batch)
        poll(handle.done, "the batch")
        seen = len(results_seen)
        with contextlib.suppress(AssertionError):
            poll(lambda: len(results_seen) > seen, "the consumer to come to it", 0.1)
        batch.handle = handle

    monkeypatch.setattr(_flight.Work, "_start", slow_start)
    results_seen = []
    for x in tether.par_map(identity, range(20), workers=2, chunksize=1, ordered=False):
        results_seen.append(x)
    assert sorted(results_seen) == list(range(20))


def test_iterator_in_a_cycle_is_let_go_by_the_collector():
    # G5, fault 2: nothing waits there; the tasks end alone.
    gate = Gate()
    holder = types.SimpleNamespace(results=tether.par_map(lambda x: x and gate(x), range(4), chunksize=1, workers=2))
    holder.self = holder
    assert next(holder.results) == 0
    poll(lambda: gate.entered, "a call to begin")
    del holder
    gc.collect()
    assert tether.tasks() != []
    gate.open.set()
    poll(lambda: tether.tasks() == [], "the tasks to end")


def test_iterator_dropped_inside_of_one_of_its_own_calls_does_not_wait():
    # G5
    begun, dropped = threading.Event(), threading.Event()
    box = []

    def fn(x):
        if x == 1:
            await_event(begun)
            box.clear()
            dropped.set()
        return x

    box.append(tether.par_map(fn, range(3), chunksize=1, workers=2))
    assert next(box[0]) == 0
    begun.set()
    await_event(dropped)
    poll(lambda: tether.tasks() == [], "the tasks to end")


def test_closing_waits_for_a_call_that_cannot_be_cancelled():
    # G1
    gate = Gate()
    results = tether.par_map(lambda x: x and gate(x), range(2), chunksize=1)
    assert next(results) == 0
    poll(lambda: gate.entered, "a call to begin")
    closing = threading.Thread(target=results.close)
    closing.start()
    assert closing.is_alive()
    gate.open.set()
    closing.join()
    assert tether.tasks() == []


def test_results_are_not_kept():
    refs = []

    def fn(x):
        token = Token()
        refs.append(weakref.ref(token))
        return token

    with tether.par_map(fn, range(3), chunksize=1) as results:
        next(results)
        gc.collect()
        assert refs[0]() is None


def test_another_thread_may_go_on():
    results = tether.par_map(identity, range(100), chunksize=5)
    assert next(results) == 0
    rest = []
    thread = threading.Thread(target=lambda: rest.extend(results))
    thread.start()
    thread.join()
    assert rest == list(range(1, 100))


def test_another_task_may_go_on():
    # G3: the tasks belong to the iterator's scope, and that to whoever leaves it.
    results = tether.par_map(identity, range(100), chunksize=5)
    assert next(results) == 0
    assert run_elsewhere(list, results) == list(range(1, 100))

    def begin():
        begun = tether.par_map(identity, range(100), chunksize=5)
        next(begun)
        return begun

    assert list(run_elsewhere(begin)) == list(range(1, 100))


def test_two_iterators_at_once():
    first, second = (tether.par_map(identity, range(1000), chunksize=7) for _ in range(2))
    pairs = [(next(first), next(second)) for _ in range(500)]
    first.close()
    assert pairs == [(i, i) for i in range(500)]
    assert list(second) == list(range(500, 1000))


def test_cancelled_consumer_closes_its_iterator():
    # G12
    begun = threading.Event()

    def work():
        for _ in tether.par_map(lambda x: (begun.set(), tether.sleep(3600)), range(4), chunksize=1):
            pass

    guard = tether.options(dedicated=True).spawn(work)
    await_event(begun)
    guard.cancel()
    with pytest.raises(tether.TaskKilled):
        guard.join()
    assert tether.tasks() == []


@pytest.mark.parametrize("ordered", [True, False])
def test_batch_cancelled_by_somebody_is_a_failure(ordered):
    # G12: whoever cancels it; the consumer must not wait for ever.
    def fn(x):
        tether.sleep(3600)

    results = tether.par_map(fn, range(3), chunksize=1, ordered=ordered, workers=2)

    def meddle():
        poll(lambda: len(tether.tasks()) >= 2, "the tasks")
        for task in tether.tasks():
            if task.name.startswith("par_map"):
                task.cancel()

    meddler = threading.Thread(target=meddle)
    meddler.start()
    with pytest.raises(tether.TaskKilled):
        list(results)
    meddler.join()


def test_failure_leaves_the_consumers_own_scope_alone():
    # A look-ahead that has failed is no reason to cancel what the consumer does meanwhile.
    failed = threading.Event()

    def fn(x):
        if x == 1:
            failed.set()
            raise Boom
        return x

    results = tether.par_map(fn, range(3), chunksize=1)
    assert next(results) == 0
    await_event(failed)
    tether.checkpoint()
    with tether.scope() as s:
        assert s.spawn(identity, 1).join() == 1
    with pytest.raises(Boom):
        next(results)


# ---- Ctrl-C and exits ------------------------------------------------------------------------------------


def test_interrupt_while_waiting_closes(run_python):
    # G12, fault 5
    code = """
        import os, signal, threading, tether

        def fn(x):
            if x == 3:
                os.kill(os.getpid(), signal.SIGINT)
            tether.sleep(3600)

        try:
            list(tether.par_map(fn, range(4), chunksize=1))
        except KeyboardInterrupt:
            assert tether.tasks() == [], tether.tasks()
            print("interrupted")
    """
    assert run_python(code, check=True).out == "interrupted\n"


def test_interrupt_in_place_closes():
    # fault 5
    def fn(x):
        if x == 2:
            signal.raise_signal(signal.SIGINT)
        return x

    with pytest.raises(KeyboardInterrupt):
        list(tether.par_map(fn, range(5), workers=1))
    assert tether.tasks() == []


def test_exit_with_live_iterators(run_python):
    # fault 10
    code = """
        import itertools, tether
        kept = tether.par_map(lambda x: x, itertools.count(), chunksize=2)
        next(kept)
        def half():
            for x in tether.par_map(lambda x: x, itertools.count()):
                yield x
        generator = half()
        next(generator)
        waiting = tether.par_map(lambda x: x and tether.sleep(0.05), range(8), chunksize=1, ordered=False)
        next(waiting)
        cycle = [tether.par_map(lambda x: x, itertools.count())]
        cycle.append(cycle)
        next(cycle[0])
    """
    assert run_python(code, check=True).out == ""


def test_forked_child_has_nothing_of_a_live_iterator(run_python):
    # fault 12
    code = """
        import os, tether, warnings
        warnings.simplefilter("ignore")
        results = tether.par_map(lambda x: x, range(100), chunksize=1)
        assert next(results) == 0
        pid = os.fork()
        if pid == 0:
            del results
            assert list(tether.par_map(str, range(3))) == ["0", "1", "2"]
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert list(results) == list(range(1, 100))
    """
    run_python(code, check=True)


@pytest.mark.parametrize("options", [{}, {"workers": 1}, {"workers": 2}, {"ordered": False}])
def test_child_that_exits_inside_of_a_call_exits(run_python, options):
    # fault 12: the iterator is the parent's, and so is what it would wait for.
    code = f"""
        import os, sys, tether, warnings
        warnings.simplefilter("ignore")
        def call(_):
            pid = os.fork()
            if pid == 0:
                sys.exit(0)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(list(tether.par_map(call, range(3), **{options})))
    """
    done = run_python(code, check=True)
    assert (done.out, done.err) == ("[0, 0, 0]\n", "")


# ---- nesting, contexts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [True, False])
def test_nested_to_any_depth(ordered):
    # G8
    def count(depth):
        return 1 if depth == 0 else sum(tether.par_map(count, [depth - 1] * 2, ordered=ordered))

    assert count(8) == 256


def test_deep_nesting_does_not_overflow():
    # fault 17
    def down(depth):
        return 0 if depth == 0 else 1 + next(tether.par_map(down, [depth - 1]))

    assert down(600) == 600


def test_nested_hundred_by_hundred():
    # G8
    def row(i):
        return sum(tether.par_map(operator.mul, [i] * 100, range(100)))

    assert list(tether.par_map(row, range(100))) == [i * 4950 for i in range(100)]


def test_calls_see_the_consumers_context_and_keep_theirs():
    # G18, fault 32
    variable = contextvars.ContextVar("variable", default="none")
    variable.set("consumer")

    def fn(x):
        before = variable.get()
        variable.set(x)
        return before

    for workers in (None, 1):
        assert list(tether.par_map(fn, range(6), chunksize=1, workers=workers)) == ["consumer"] * 6
        assert variable.get() == "consumer"


@pytest.mark.parametrize("workers", [None, 1])
def test_asking_an_iterator_from_inside_it_is_told_to_both(workers):
    # As for a generator; but nobody may take it for the end of the results.
    def fn(x):
        if x == 1:
            with pytest.raises(ValueError, match="already executing"):
                next(results)
        return x

    results = tether.par_map(fn, range(3), chunksize=1, workers=workers)
    with pytest.raises(RuntimeError, match="somebody else asked"):
        for _ in range(4):
            next(results)
    results.close()


def test_threads_that_meet_in_one_iterator_are_told():
    # G20: without a GIL, too, where neither generators nor the iterators of itertools are safe.
    for _ in range(20):
        results = tether.par_map(identity, range(300), chunksize=7)
        start = threading.Barrier(4)
        got = []

        def consume(results=results, start=start, got=got):
            start.wait()
            with contextlib.suppress(ValueError, RuntimeError):
                for x in results:
                    got.append(x)

        threads = [threading.Thread(target=consume) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        results.close()
        assert len(set(got)) == len(got) <= 300


def test_closing_while_somebody_waits_for_a_result_is_refused():
    gate = Gate()
    results = tether.par_map(gate, [1])
    consumer = dedicated(next, results)
    poll(lambda: gate.entered, "the call")
    try:
        with pytest.raises(ValueError, match="cannot be closed while somebody waits"):
            results.close()
    finally:
        gate.open.set()
    assert consumer.join() == 1


def test_source_may_be_another_one():
    squares = tether.par_map(lambda x: x * x, range(1000))
    assert list(tether.par_map(lambda x: x + 1, squares)) == [x * x + 1 for x in range(1000)]


def test_inside_of_asyncio():
    import asyncio

    async def main():
        return list(tether.par_map(identity, range(100), chunksize=3))

    assert asyncio.run(main()) == list(range(100))


def test_tasks_are_named():
    # G18
    names = set(tether.par_map(lambda x: tether.current().name, range(3)))
    assert names == {"par_map(<lambda>)"}


# ---- arguments -------------------------------------------------------------------------------------------


def test_any_count_will_do():
    class Two:
        def __index__(self):
            return 2

    for count in (Two(), sys.maxsize, 2**70):
        assert list(tether.par_map(identity, range(5), workers=count)) == list(range(5))
        assert list(tether.par_map(identity, iter(range(5)), chunksize=count)) == list(range(5))


def test_wrong_arguments_are_refused_before_anything_starts():
    with pytest.raises(TypeError, match="callable"):
        tether.par_map(5, [1])
    with pytest.raises(TypeError, match="iterable"):
        tether.par_map(identity)
    with pytest.raises(TypeError, match="not iterable"):
        tether.par_map(identity, 5)
    for name in ("workers", "chunksize"):
        with pytest.raises(ValueError, match=name):
            tether.par_map(identity, [1], **{name: 0})
        with pytest.raises(TypeError, match=name):
            tether.par_map(identity, [1], **{name: 1.5})
    with pytest.raises(NotImplementedError, match="ProcessPoolExecutor"):
        tether.par_map(identity, [1], isolation="process")
    with pytest.raises(ValueError, match="isolation"):
        tether.par_map(identity, [1], isolation="thread")


def test_keys_of_functions_keep_nothing_alive():
    class Callable:
        def __call__(self, x):
            return x

    fn = functools.partial(Callable(), 1)
    ref = weakref.ref(fn.func)
    assert list(tether.par_map(fn, [])) == []
    list(tether.par_map(fn.func, range(100)))
    del fn
    gc.collect()
    assert ref() is None


# ---- progress --------------------------------------------------------------------------------------------


def test_function_hears_the_progress():
    heard = []
    list(tether.par_map(identity, range(10), chunksize=4, progress=heard.append))
    assert heard == [4, 4, 2]


def test_bar_of_the_caller_is_updated_and_left_open():
    class Bar:
        n = 0

        def update(self, n):
            self.n += n

        def close(self):
            raise AssertionError

    bar = Bar()
    list(tether.par_map(identity, range(10), progress=bar))
    assert bar.n == 10


def test_progress_without_tqdm_teaches(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ImportError, match=r"tether\[progress\]"):
        tether.par_map(identity, range(3), progress=True)
    with pytest.raises(TypeError, match="progress"):
        tether.par_map(identity, range(3), progress=5)


def test_failing_progress_ends_it():
    def tell(n):
        raise Boom

    with pytest.raises(Boom):
        list(tether.par_map(sleeper, range(5), chunksize=1, progress=tell))
    assert tether.tasks() == []
