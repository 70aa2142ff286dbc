"""Executor: what a ThreadPoolExecutor does, and that nested waits end (G8, G12, G18)."""

from __future__ import annotations

import concurrent.futures
import contextvars
import gc
import itertools
import operator
import signal
import sys
import threading
import time
import weakref
from collections import deque
from concurrent.futures import (
    FIRST_COMPLETED,
    FIRST_EXCEPTION,
    CancelledError,
    Future,
    ThreadPoolExecutor,
    as_completed,
    wait,
)
from concurrent.futures.thread import BrokenThreadPool

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tether
from support import WAIT, Token, await_event, os_threads, poll, run_dedicated, run_elsewhere
from tether._pool import Pool


class Boom(Exception):
    pass


def fail(*args):
    raise Boom(*args)


@pytest.fixture
def pool():
    with tether.Executor(2) as pool:
        yield pool


@pytest.fixture
def single():
    with tether.Executor(1) as pool:
        yield pool


class Busy:
    """Keeps a worker inside of a call while the block runs."""

    def __init__(self, pool):
        self.inside, self.release = threading.Event(), threading.Event()
        self.pool = pool

    def __enter__(self):
        self.future = self.pool.submit(lambda: (self.inside.set(), await_event(self.release)))
        await_event(self.inside)
        return self

    def __exit__(self, *exc_info):
        self.release.set()


class Alarm(Exception):
    """What the signal handler raises."""


class Alarmed:
    """A signal handler that raises an Alarm in the main thread, which sleeps by then."""

    def __enter__(self):
        def ring(*_):
            raise Alarm

        self.before = signal.signal(signal.SIGUSR1, ring)
        return self

    def ring(self):
        signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

    def __exit__(self, *exc_info):
        signal.signal(signal.SIGUSR1, self.before)


# ---- futures ----------------------------------------------------------------------------------------------------


def test_future_is_a_real_one(pool):
    future = pool.submit(operator.add, 1, 2)
    assert isinstance(future, Future)
    assert future.result() == 3
    assert future.result(timeout=0) == 3
    assert future.exception() is None
    assert (future.done(), future.running(), future.cancelled()) == (True, False, False)
    assert "returned int" in repr(future)


def test_failure_comes_out_of_the_future(pool):
    future = pool.submit(fail, "x")
    with pytest.raises(Boom, match="x"):
        future.result()
    assert isinstance(future.exception(), Boom)
    assert "raised Boom" in repr(future)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration])
def test_no_exception_ends_a_worker(single, kind):
    # fault 29
    def call():
        raise kind

    ident = single.submit(threading.get_ident).result()
    assert isinstance(single.submit(call).exception(), kind)
    assert single.submit(threading.get_ident).result() == ident


def test_timeout_leaves_the_future_alone(single):
    with Busy(single) as busy:
        with pytest.raises(TimeoutError):
            busy.future.result(timeout=0.01)
        with pytest.raises(TimeoutError):
            busy.future.exception(timeout=0)
        assert busy.future.running()
        assert len(busy.future._done_callbacks) == 0  # nothing is left of the waits
    assert busy.future.result() == (None, None)


def test_cancel_before_the_start(single):
    # G7
    ran = []
    with Busy(single):
        future = single.submit(ran.append, 1)
        assert future.cancel()
        assert future.cancel()
        assert future.cancelled()
        assert future.done()
        for get in (future.result, future.exception):
            with pytest.raises(CancelledError):
                get()
    assert single.submit(int).result() == 0
    assert ran == []


def test_cancel_after_the_start_is_refused(single):
    with Busy(single) as busy:
        assert not busy.future.cancel()
    busy.future.result()
    assert not busy.future.cancel()


def test_cancelled_future_wakes_who_waits(single):
    with Busy(single):
        future = single.submit(int)
        waiter = tether.options(dedicated=True).spawn(future.exception)
        poll(lambda: waiter.task.state is tether.TaskState.BLOCKED, "the wait")
        future.cancel()
        with pytest.raises(CancelledError):
            waiter.join()
        done, _ = wait([future], timeout=0)
        assert done == {future}


def test_callbacks_run_once_whenever_they_are_added(single):
    heard = []
    with Busy(single) as busy:
        busy.future.add_done_callback(lambda future: heard.append(("before", future.done())))
    busy.future.result()
    poll(lambda: heard, "the callback")
    busy.future.add_done_callback(lambda future: heard.append(("after", future.done())))
    assert heard == [("before", True), ("after", True)]


def test_callback_added_while_the_future_finishes(pool):
    # Each is called exactly once, whoever is faster.
    for _ in range(300):
        heard = []
        future = pool.submit(int)
        future.add_done_callback(heard.append)
        future.result()
        poll(lambda heard=heard: heard, "the callback")
        assert heard == [future]


def test_wait_and_as_completed_from_outside(pool):
    futures = [pool.submit(operator.mul, i, 2) for i in range(50)]
    done, rest = wait(futures)
    assert (len(done), rest) == (50, set())
    assert sorted(future.result() for future in as_completed(futures)) == list(range(0, 100, 2))


def test_wait_modes(single):
    with Busy(single) as busy:
        later = single.submit(int)
        cancelled = single.submit(int)
        cancelled.cancel()
        done, rest = wait([busy.future, later, cancelled], return_when=FIRST_COMPLETED)
        assert (done, rest) == ({cancelled}, {busy.future, later})
    failing = single.submit(fail)
    done, _ = wait([busy.future, later, failing], return_when=FIRST_EXCEPTION)
    assert failing in done


def test_waits_of_many_threads_for_one_future(single):
    with Busy(single):
        future = single.submit(lambda: "x")
        waiters = [tether.options(dedicated=True).spawn(future.result) for _ in range(20)]
        poll(lambda: all(guard.task.state is tether.TaskState.BLOCKED for guard in waiters), "the waits")
    assert [guard.join() for guard in waiters] == ["x"] * 20


def test_cancelled_task_stops_waiting(single):
    # G12
    with Busy(single) as busy:
        waiter = tether.options(dedicated=True).spawn(busy.future.result)
        poll(lambda: waiter.task.state is tether.TaskState.BLOCKED, "the wait")
        waiter.cancel()
        with pytest.raises(tether.TaskKilled):
            waiter.join()
        assert len(busy.future._done_callbacks) == 0


def test_finished_future_keeps_neither_call_nor_context(pool):
    # G9
    token = Token()
    ref = weakref.ref(token)
    future = pool.submit(id, token)
    future.result()
    del token
    pool.submit(int).result()
    poll(lambda: gc.collect() is not None and ref() is None, "the argument to go")


def test_result_is_not_kept_by_the_worker(single):
    ref = weakref.ref(single.submit(Token).result())
    poll(lambda: gc.collect() is not None and ref() is None, "the result to go")


# ---- nested waits -----------------------------------------------------------------------------------------------


def test_ten_thousand_nested_submits_on_one_worker(single):
    # G8, fault 17
    def down(n):
        return 0 if n == 0 else 1 + single.submit(down, n - 1).result()

    assert single.submit(down, 10_000).result() == 10_000


def test_call_that_is_waited_for_runs_on_the_waiting_worker(single):
    def outer():
        return threading.get_ident(), single.submit(threading.get_ident).result()

    first, second = single.submit(outer).result()
    assert first == second


def test_nested_failure(single):
    with pytest.raises(Boom):
        single.submit(lambda: single.submit(fail).result()).result()
    assert isinstance(single.submit(lambda: single.submit(fail).exception()).result(), Boom)


def test_children_in_any_order(single):
    # G8
    def outer():
        futures = [single.submit(int, i) for i in range(100)]
        return [future.result() for future in futures[1::2] + futures[::-2]]

    assert sorted(single.submit(outer).result()) == sorted([*range(1, 100, 2), *range(99, 0, -2)])


def test_queue_does_not_grow_with_nested_waits(single):
    def outer():
        for i in range(2000):
            single.submit(int, i).result()
        return len(single._pool.queue)

    assert single.submit(outer).result() < 10


@pytest.mark.parametrize("how", ["wait", "as_completed", "result with a timeout"])
def test_waits_of_concurrent_futures_on_one_worker(single, how):
    # G8
    def down(n):
        if n == 0:
            return 0
        future = single.submit(down, n - 1)
        if how == "wait":
            wait([future])
        elif how == "as_completed":
            (future,) = as_completed([future])
        return 1 + future.result(timeout=WAIT)

    assert single.submit(down, 20).result() == 20


def test_leaving_another_pool_lets_another_worker_take_over(single):
    # G8: the block's end waits for a call of the inner pool, and that for one of ours.
    def outer():
        with tether.Executor(1) as inner:
            future = inner.submit(lambda: single.submit(int, "7").result())
        return future.result()

    assert single.submit(outer).result(WAIT) == 7


class Interrupting(deque):
    """A queue for whose last cell another thread comes in between, and which another worker finds empty meanwhile."""

    def __init__(self, pool, come, looked):
        super().__init__()
        self.pool, self.come, self.looked = pool, come, looked
        self.armed = False

    def pop(self):
        if self.armed:
            self.armed = False
            self.pool.submit(self.come)
        cell = super().pop()
        if cell:
            self.looked()
        return cell


def test_call_that_comes_while_the_queue_is_trimmed_is_begun():
    # G8: the worker that trims waits for what tether does not know of, so the idle one has to begin it.
    come, free = threading.Event(), threading.Event()
    with tether.Executor(2) as pool:

        def looked():
            free.set()
            poll(lambda: pool._pool.idle, "the other worker to fall asleep")

        queue = pool._pool.queue = Interrupting(pool, come.set, looked)
        busy = pool.submit(await_event, free)
        poll(busy.running, "the other worker")

        def outer():
            future = pool.submit(setattr, queue, "armed", True)
            future.result()
            free.set()
            await_event(come)

        pool.submit(outer).result(WAIT)


def test_wait_for_a_call_that_runs_lets_another_worker_take_over():
    # G8: two calls on two workers, one waits for the other, which needs a third.
    with tether.Executor(2) as pool:
        running, needed = threading.Event(), threading.Event()

        def second():
            running.set()
            await_event(needed)
            return "second"

        def first(future):
            await_event(running)
            return future.result()

        waiting = pool.submit(first, pool.submit(second))
        await_event(running)
        assert pool.submit(needed.set).result(timeout=WAIT) is None
        assert waiting.result() == "second"


def test_unrelated_calls_do_not_run_on_top_of_a_waiting_one():
    # They might wait for what lies below them (rayon#592).
    with tether.Executor(2) as pool:
        running, go = threading.Event(), threading.Event()
        outer = []

        def slow():
            running.set()
            await_event(go)

        def waits(future):
            await_event(running)
            future.result()
            return threading.get_ident()

        def needs_outer():
            go.set()
            return outer[0].result(timeout=WAIT)

        outer.append(pool.submit(waits, pool.submit(slow)))
        await_event(running)
        assert pool.submit(needs_outer).result(timeout=WAIT) == outer[0].result()


def test_two_pools_that_wait_for_each_other():
    # G8
    with tether.Executor(1) as one, tether.Executor(1) as two:

        def down(n):
            return 0 if n == 0 else 1 + (one, two)[n % 2].submit(down, n - 1).result()

        assert one.submit(down, 100).result() == 100


def test_tasks_of_a_call_may_wait_for_its_pool(single):
    # G8: the batches inherit the context, and so the pool knows that its worker is waiting behind them.
    def outer():
        return list(tether.par_map(lambda x: single.submit(operator.neg, x).result(), range(20), chunksize=1))

    assert single.submit(outer).result() == [-x for x in range(20)]


def test_pool_is_as_large_as_before_after_nested_waits():
    with tether.Executor(2) as pool:

        def down(n):
            if n == 0:
                return 0
            wait([future := pool.submit(down, n - 1)])
            return 1 + future.result()

        assert pool.submit(down, 50).result() == 50
        now, most, lock = 0, 0, threading.Lock()

        def call(_):
            nonlocal now, most
            with lock:
                now += 1
                most = max(most, now)
            tether.sleep(0.001)
            with lock:
                now -= 1

        poll(lambda: len(pool._threads) <= 2 or pool.submit(int).result(), "the helpers to end")
        most = 0
        list(pool.map(call, range(100)))
        assert most <= 2


# ---- workers ----------------------------------------------------------------------------------------------------


def test_workers_are_reused_and_limited():
    with tether.Executor(3) as pool:
        barrier = threading.Barrier(3)
        idents = {
            future.result()
            for future in [pool.submit(lambda: (barrier.wait(60), threading.get_ident())[1]) for _ in range(30)]
        }
        assert len(idents) == 3


def test_no_worker_without_work():
    before = os_threads()
    pool = tether.Executor(8)
    assert os_threads() <= before  # idle ones may end meanwhile
    pool.shutdown()


def test_thread_locals_stay_from_call_to_call():
    # G18: workers are dedicated tasks, as initializer expects.
    local = threading.local()

    def initialize(value):
        local.value = value

    with tether.Executor(2, initializer=initialize, initargs=("x",)) as pool:
        assert list(pool.map(lambda _: local.value, range(20))) == ["x"] * 20
        assert pool.submit(lambda: pool.submit(lambda: local.value).result()).result() == "x"


def test_failed_initializer_breaks_the_pool(caplog):
    begun = threading.Event()

    def initialize():
        await_event(begun)
        raise Boom

    pool = tether.Executor(1, initializer=initialize)
    futures = [pool.submit(int) for _ in range(3)]
    begun.set()
    for future in futures:
        with pytest.raises(BrokenThreadPool):
            future.result()
    with pytest.raises(BrokenThreadPool):
        pool.submit(int)
    pool.shutdown()
    assert "Exception in initializer" in caplog.text


def test_names_of_workers():
    with tether.Executor(1, thread_name_prefix="loader") as pool:
        assert pool.submit(lambda: threading.current_thread().name).result() == "loader_0"
        assert pool.submit(lambda: tether.current().name).result() == "loader_0"
    with tether.Executor(1) as pool:
        assert pool.submit(lambda: threading.current_thread().name).result().startswith("tether.Executor-")


def test_context_is_copied_for_each_call(single):
    # G18
    variable = contextvars.ContextVar("variable", default=0)

    def call():
        seen = variable.get()
        variable.set(99)
        return seen

    assert single.submit(call).result() == 0
    variable.set(1)
    assert single.submit(call).result() == 1
    assert single.submit(lambda: single.submit(call).result()).result() == 1
    assert variable.get() == 1


def test_worker_that_somebody_cancels_is_replaced(single):
    # G12
    def call():
        tether.current().cancel()
        tether.checkpoint()

    assert isinstance(single.submit(call).exception(), tether.Cancelled)
    assert single.submit(tether.checkpoint).result() is None


def test_submits_of_many_threads():
    with tether.Executor(2) as pool:

        def submit(k):
            return sum(future.result() for future in [pool.submit(operator.add, i, k) for i in range(300)])

        with tether.scope() as s:
            guards = [s.options(dedicated=True).spawn(submit, k) for k in range(6)]
        assert [guard.join() for guard in guards] == [44850 + 300 * k for k in range(6)]


def test_submits_of_tasks_that_end_before_the_pool():
    # The workers belong to no task: whoever happened to start them may end.
    with tether.Executor(2) as pool:
        future = run_dedicated(pool.submit, threading.get_ident)
        assert future.result() == pool.submit(threading.get_ident).result() or len(pool._threads) == 2
        with tether.scope() as s:
            s.spawn(pool.submit, int)
        assert run_elsewhere(lambda: pool.submit(int).result()) == 0


# ---- map --------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.integers(), max_size=40), min_size=1, max_size=3),
    st.sampled_from([1, 3, 100]),
    st.sampled_from([None, 1, 2, 50]),
)
def test_map_is_map(columns, chunksize, buffersize):
    def fn(*items):
        return items

    with tether.Executor(2) as pool:
        got = list(pool.map(fn, *columns, chunksize=chunksize, buffersize=buffersize))
    assert got == list(map(fn, *columns))


def test_map_submits_at_once_and_with_a_buffer_only_so_much(single):
    pulled = itertools.count()
    results = single.map(int, (next(pulled) for _ in range(10)))
    assert next(pulled) == 10
    list(results)
    pulled = itertools.count()
    results = single.map(int, iter(pulled.__next__, -1), buffersize=3)
    assert next(pulled) == 3
    assert next(results) == 0
    assert next(pulled) == 5
    results.close()


@pytest.mark.parametrize("chunksize", [1, 3, 100])
def test_map_failure_comes_after_the_results_before_it(single, chunksize):
    results = single.map(lambda x: 1 // (x - 7), range(20), chunksize=chunksize)
    seen = []
    with pytest.raises(ZeroDivisionError):
        seen.extend(results)
    assert seen == [1 // (x - 7) for x in range(7)]


def test_map_timeout(single):
    with Busy(single), pytest.raises(TimeoutError):
        next(single.map(int, [1], timeout=0.01))


def test_map_closed_early_cancels_the_rest(single):
    ran = []
    with Busy(single) as busy:
        results = single.map(ran.append, range(10), timeout=0)
        with pytest.raises(TimeoutError):
            next(results)
        busy.release.set()
        single.submit(int).result()
    assert ran == []


def test_map_arguments_are_checked(single):
    for name, value, kind in (
        ("chunksize", 0, ValueError),
        ("buffersize", 0, ValueError),
        ("buffersize", "x", TypeError),
    ):
        with pytest.raises(kind, match=name):
            single.map(int, [1], **{name: value})


def test_map_inside_of_a_call(single):
    assert single.submit(lambda: list(single.map(operator.neg, range(10)))).result() == [-x for x in range(10)]


# ---- shutdown ---------------------------------------------------------------------------------------------------


def test_shutdown_does_what_is_queued():
    pool = tether.Executor(2)
    futures = [pool.submit(operator.add, i, 1) for i in range(100)]
    pool.shutdown()
    assert all(future.done() for future in futures)
    assert tether.tasks() == []
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(int)
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.map(int, [1])
    pool.shutdown()


def test_shutdown_cancels_if_asked():
    pool = tether.Executor(1)
    with Busy(pool) as busy:
        futures = [pool.submit(int) for _ in range(10)]
        pool.shutdown(wait=False, cancel_futures=True)
        assert all(future.cancelled() for future in futures)
    pool.shutdown()
    assert busy.future.done()


def test_shutdown_without_waiting():
    pool = tether.Executor(1)
    with Busy(pool):
        future = pool.submit(int)
        pool.shutdown(wait=False)
        assert not future.done()
    assert future.result() == 0
    pool.shutdown()


def test_nested_waits_end_after_shutdown():
    # What was submitted before it is done, whatever it waits for.
    pool = tether.Executor(1)
    inside, go = threading.Event(), threading.Event()

    def outer():
        future = pool.submit(int, "5")
        inside.set()
        await_event(go)
        return future.result()

    future = pool.submit(outer)
    await_event(inside)
    pool.shutdown(wait=False)
    go.set()
    assert future.result() == 5
    pool.shutdown()


def test_shutdown_inside_of_a_call_does_not_wait_for_itself(single):
    with pytest.raises(RuntimeError, match="waits in shutdown"):
        single.submit(single.shutdown).result()


def test_shutdown_racing_submits_loses_nothing():
    # Each future that submit has returned ends.
    for _ in range(30):
        pool = tether.Executor(2)
        futures = []

        def submit(pool=pool, futures=futures):
            with pytest.raises(RuntimeError, match="after shutdown"):
                while True:
                    futures.append(pool.submit(int))

        guard = tether.options(dedicated=True).spawn(submit)
        poll(lambda futures=futures: futures, "a submit")
        pool.shutdown()
        guard.join()
        assert [future.result(timeout=WAIT) for future in futures] == [0] * len(futures)


def test_dropped_pool_does_what_is_queued_and_ends():
    pool = tether.Executor(1)
    with Busy(pool) as busy:
        future = pool.submit(operator.add, 1, 1)
        busy.pool = None
        del pool
        gc.collect()
    assert future.result() == 2
    poll(lambda: tether.tasks() == [], "the workers to end")


def test_dropped_idle_pool_ends():
    tether.Executor(2).submit(int).result()
    gc.collect()
    poll(lambda: tether.tasks() == [], "the workers to end")


def test_pool_in_a_cycle_ends():
    # G5
    class Holder:
        pass

    holder = Holder()
    holder.pool, holder.self = tether.Executor(2), holder
    holder.pool.submit(int).result()
    del holder
    gc.collect()
    poll(lambda: tether.tasks() == [], "the workers to end")


def test_with_block_waits():
    with tether.Executor(1) as pool:
        future = pool.submit(time.sleep, 0.01)
    assert future.done()


def test_interpreter_exit_does_what_is_queued(run_python):
    # fault 10
    code = """
        import os, time, tether
        pool = tether.Executor(2)
        for i in range(4):
            pool.submit(lambda i=i: (time.sleep(0.05), os.write(1, b"%d\\n" % i)))  # whole lines; a print is two writes
    """
    assert sorted(run_python(code, check=True).out.split()) == ["0", "1", "2", "3"]


def test_interpreter_exit_with_idle_workers(run_python):
    # fault 10
    code = """
        import tether
        pool = tether.Executor(2)
        assert list(pool.map(abs, range(5))) == [0, 1, 2, 3, 4]
        never = tether.Executor(2)
    """
    assert run_python(code, check=True).out == ""


def test_interpreter_exit_with_a_task_that_waits_for_the_pool(run_python):
    # fault 10
    code = """
        import threading, time, tether
        pool = tether.Executor(1)
        gate = threading.Event()
        future = pool.submit(lambda: (time.sleep(0.1), "x")[1])
        kept = tether.options(dedicated=True).spawn(lambda: print(future.result(), flush=True))
    """
    assert run_python(code, check=True).out == "x\n"


def test_submit_during_exit_is_refused(run_python):
    # fault 11
    code = """
        import atexit, tether
        pool = tether.Executor(1)
        fresh = tether.Executor(1)
        @atexit.register
        def late():
            for p in (pool, fresh):
                try:
                    p.submit(int)
                except RuntimeError as error:
                    print(error)
        pool.submit(int).result()
    """
    assert run_python(code, check=True).out.count("after interpreter shutdown") == 2


def test_interrupt_while_waiting_for_a_result(run_python):
    # G12, fault 5
    code = """
        import _thread, threading, tether
        with tether.Executor(1) as pool:
            waiting, gate = threading.Event(), threading.Event()
            def call():
                waiting.wait(60)
                _thread.interrupt_main()
                gate.wait(60)
            future = pool.submit(call)
            try:
                waiting.set()
                future.result()
            except KeyboardInterrupt:
                gate.set()
                print("interrupted", flush=True)
            future.result()
    """
    assert run_python(code, check=True).out == "interrupted\n"


WAITS = {
    "result": lambda pool, future: future.result(),
    "exception": lambda pool, future: future.exception(),
    "map": lambda pool, future: list(pool.map(lambda _: future.result(), [1])),
    "shutdown": lambda pool, future: pool.shutdown(),
}


@pytest.mark.parametrize("how", WAITS)
def test_signal_handler_that_raises_ends_a_wait_with_just_that(how):
    # G12: no group is made of it.
    gate = threading.Event()
    pool = tether.Executor(2)
    with Alarmed() as alarm:

        def call():
            poll(lambda: "_bell.py" in sys._current_frames()[main].f_code.co_filename, "the wait")
            alarm.ring()
            await_event(gate)

        main = threading.main_thread().ident
        future = pool.submit(call)
        try:
            with pytest.raises(Alarm):
                WAITS[how](pool, future)
        finally:
            gate.set()
            pool.shutdown()


def test_interrupt_while_a_worker_starts_is_not_lost(monkeypatch):
    # G12, fault 5: it comes while submit waits for the worker to begin; and there are no more workers for it.
    begin = Pool._work

    def work(self, worker):
        ring()
        return begin(self, worker)

    with Alarmed() as alarm, tether.Executor(1) as pool:

        def ring():
            monkeypatch.setattr(Pool, "_work", begin)
            alarm.ring()
            poll(raised.is_set, "the interrupt")

        raised = threading.Event()
        monkeypatch.setattr(Pool, "_work", work)
        with pytest.raises(Alarm):
            try:
                pool.submit(int)
            finally:
                raised.set()
        list(pool.map(abs, range(10)))
        assert (len(pool._pool.alive), len(pool._pool.permits)) == (1, 0)


def test_iterator_of_map_that_is_left_at_exit_is_silent(run_python):
    code = """
        import tether
        pool = tether.Executor(1)
        results = pool.map(abs, range(5))
        next(results)
    """
    done = run_python(code, check=True)
    assert (done.out, done.err) == ("", "")


def test_child_that_exits_inside_of_a_call_is_silent(run_python):
    # fault 12: nobody waits there for the call's end.
    code = """
        import os, sys, warnings, tether
        warnings.simplefilter("ignore")
        def call():
            pid = os.fork()
            if pid == 0:
                sys.exit(0)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with tether.Executor(1) as pool:
            print(pool.submit(call).result())
    """
    done = run_python(code, check=True)
    assert (done.out, done.err) == ("0\n", "")


def test_forked_child_is_told(run_python):
    # fault 12
    code = """
        import os, threading, warnings, tether
        warnings.simplefilter("ignore")
        pool = tether.Executor(1)
        gate = threading.Event()
        future = pool.submit(gate.wait, 60)
        pid = os.fork()
        if pid == 0:
            for use in (lambda: pool.submit(int), future.result):
                try:
                    use()
                except tether.ForkedError as error:
                    assert "make a new one" in str(error)
                else:
                    os._exit(1)
            pool.shutdown()
            with tether.Executor(1) as own:
                own.submit(int).result()
            os._exit(0)
        gate.set()
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert future.result() is True
        pool.shutdown()
    """
    run_python(code, check=True)


# ---- as a ThreadPoolExecutor ------------------------------------------------------------------------------------


def test_is_a_thread_pool_executor():
    with tether.Executor(3, "prefix") as pool:
        assert isinstance(pool, (concurrent.futures.Executor, ThreadPoolExecutor))
        assert pool._max_workers == 3
        assert pool._thread_name_prefix == "prefix"
        assert pool._work_queue.qsize() == 0
        assert not pool._shutdown
        pool.submit(int).result()
        assert [thread.name for thread in pool._threads] == ["prefix_0"]
    assert pool._shutdown
    assert tether.Executor()._max_workers == ThreadPoolExecutor()._max_workers


class Two:
    """An integer that is no int, such as NumPy's."""

    def __index__(self):
        return 2


@pytest.mark.parametrize("workers", [Two(), sys.maxsize, 2**70])
def test_any_number_of_workers_will_do(workers):
    with tether.Executor(workers) as pool:
        assert list(pool.map(abs, range(5), chunksize=2**70, buffersize=2**70)) == list(range(5))


def test_wrong_arguments_are_refused():
    for workers in (0, -1):
        with pytest.raises(ValueError, match="max_workers"):
            tether.Executor(workers)
    with pytest.raises(TypeError, match="max_workers"):
        tether.Executor("2")
    with pytest.raises(TypeError, match="initializer"):
        tether.Executor(1, initializer=5)


def test_worker_thread_that_does_not_start(run_python):
    # fault 13: submit raises, nothing is queued, and the next one tries again.
    code = """
        import tether
        pool = tether.Executor(1)
        tether.spawn(int).join()
        ran = []
        tether._core._fail_nth("thread", 1)
        try:
            pool.submit(ran.append, 1)
        except RuntimeError as error:
            assert "can't start new thread" in str(error)
        else:
            raise AssertionError
        tether._core._fail_nth("thread", 0)
        assert pool.submit(int, "3").result() == 3
        assert ran == []
        pool.shutdown()
    """
    run_python(code, check=True)
