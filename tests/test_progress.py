"""G8: a spawned task is started however many others are blocked, and computing does not make a crowd of threads."""

from __future__ import annotations

import threading

import pytest

import tether
from support import WAIT, PeakThreads, await_event, dedicated, os_threads

CHAIN = 200
FEW = 40
"""Far from 1,000 or 10,000, and loose enough for a loaded machine."""


def chain(events, order, n):
    """Wait for the neighbour, then let the next one go."""
    before = n - 1 if order == "forward" else n + 1
    if 0 <= before < len(events):
        await_event(events[before])
    events[n].set()
    return n


@pytest.mark.parametrize("order", ["forward", "backward"])
@pytest.mark.parametrize("joining", ["in order", "in reverse", "not at all"])
@pytest.mark.parametrize("spawner", ["root", "task", "scope"])
def test_two_hundred_tasks_that_wait_for_one_another_all_end(order, joining, spawner):
    # G8: tether cannot see what they wait for
    events = [threading.Event() for _ in range(CHAIN)]

    def parent():
        if spawner == "scope":
            with tether.scope() as s:
                handles = [s.spawn(chain, events, order, n) for n in range(CHAIN)]
                if joining == "not at all":
                    await_all()
            return sum(handle.join() for handle in handles)
        guards = [tether.spawn(chain, events, order, n) for n in range(CHAIN)]
        if joining == "not at all":
            await_all()
        elif joining == "in reverse":
            guards.reverse()
        return sum(guard.join() for guard in guards)

    def await_all():
        for event in events:
            await_event(event)

    total = dedicated(parent).join() if spawner == "task" else parent()
    assert total == sum(range(CHAIN))


@pytest.mark.parametrize("order", ["forward", "backward"])
def test_two_hundred_dedicated_tasks_that_wait_for_one_another_all_end(order):
    # G8
    events = [threading.Event() for _ in range(CHAIN)]
    guards = [dedicated(chain, events, order, n) for n in range(CHAIN)]
    assert sum(guard.join() for guard in guards) == sum(range(CHAIN))


def test_two_hundred_pairs_talk_to_each_other():
    # G8: each half of a pair waits for the other half several times
    def half(mine, other):
        for _ in range(5):
            mine.release()
            assert other.acquire(timeout=WAIT)

    with tether.scope() as s:
        for _ in range(CHAIN // 2):
            a, b = threading.Semaphore(0), threading.Semaphore(0)
            s.spawn(half, a, b)
            s.spawn(half, b, a)


@pytest.mark.timeout(300)
def test_thousand_blocked_tasks_are_all_started():
    # G8: the barrier opens only when all of them are inside at once
    barrier = threading.Barrier(1_001)
    with tether.scope() as s:
        for _ in range(1_000):
            s.spawn(barrier.wait, WAIT)
        barrier.wait(WAIT)


def test_tasks_start_although_their_spawner_never_joins():
    # G8
    started = [threading.Event() for _ in range(20)]
    guards = [tether.spawn(event.set) for event in started]
    for event in started:
        await_event(event)
    for guard in guards:
        guard.join()


def test_task_in_place_that_waits_for_a_later_one_ends():
    # G8: the joiner is stuck under the first; somebody else must start the second
    for _ in range(5):
        later = threading.Event()
        first = tether.spawn(await_event, later)
        second = tether.spawn(later.set)
        first.join()
        second.join()


def test_blocked_tasks_do_not_keep_a_new_one_from_starting():
    # G8
    release = threading.Event()
    with tether.scope() as s:
        for _ in range(100):
            s.spawn(await_event, release)
        started = threading.Event()
        s.spawn(started.set)
        await_event(started)
        release.set()


def test_tasks_blocked_in_tether_do_not_keep_a_new_one_from_starting():
    # G8
    release = threading.Event()
    with tether.scope() as s:
        handle = s.spawn(await_event, release)
        for _ in range(100):
            handle = s.spawn(lambda previous: previous.join(), handle)
        s.spawn(release.set)


@pytest.mark.parametrize("joining", ["in order", "not at all"])
def test_ten_thousand_computing_tasks_use_few_threads(joining):
    # growth follows blocking, not the length of the queue
    done = threading.Semaphore(0)

    def compute():
        total = sum(range(2_000))
        done.release()
        return total

    before = os_threads()
    with PeakThreads() as peak:
        guards = [tether.spawn(compute) for _ in range(10_000)]
        if joining == "not at all":
            for _ in guards:
                assert done.acquire(timeout=WAIT)
        assert {guard.join() for guard in guards} == {sum(range(2_000))}
    assert peak.value - before < FEW


def test_tree_of_computing_tasks_uses_few_threads():
    def fib(n):
        if n < 2:
            return n
        with tether.scope() as s:
            left = s.spawn(fib, n - 1)
            right = fib(n - 2)
        return left.join() + right

    before = os_threads()
    with PeakThreads() as peak:
        assert fib(16) == 987
    assert peak.value - before < FEW


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["guard", "scope"])
def test_joins_nested_ten_thousand_deep_complete(kind):
    # fault 17: where the stack is deep, another thread takes over
    def by_guard(n):
        return 0 if n == 0 else 1 + tether.spawn(by_guard, n - 1).join()

    def by_scope(n):
        if n == 0:
            return 0
        with tether.scope() as s:
            child = s.spawn(by_scope, n - 1)
        return 1 + child.join()

    entry = by_guard if kind == "guard" else by_scope
    assert tether.spawn(entry, 10_000).join() == 10_000


def test_deep_nesting_from_a_dedicated_task_completes():
    # fault 17
    def nest(n):
        return 0 if n == 0 else 1 + tether.spawn(nest, n - 1).join()

    assert dedicated(nest, 2_000).join() == 2_000


def test_nested_waits_on_a_small_crew_cannot_deadlock():
    # where a pool of fixed size hangs: every task waits for tasks of its own
    def level(n):
        return 1 if n == 0 else sum(guard.join() for guard in [tether.spawn(level, n - 1) for _ in range(3)])

    assert [guard.join() for guard in [tether.spawn(level, 5) for _ in range(10)]] == [3**5] * 10


def test_helping_joiner_does_not_run_what_could_wait_for_it():
    # rayon#592: while it waits elsewhere, the joiner holds a lock that other queued tasks need
    lock, inside, release = threading.Lock(), threading.Event(), threading.Event()

    def slow():
        inside.set()
        await_event(release)

    def holder():
        with lock:
            child = dedicated(slow)
            await_event(inside)
            child.join()

    def wanting():
        assert lock.acquire(timeout=WAIT)
        lock.release()

    with tether.scope() as s:
        s.options(dedicated=True).spawn(holder)
        await_event(inside)
        for _ in range(50):
            s.spawn(wanting)
        s.spawn(release.set)


def test_max_threads_bounds_the_crew(run_python):
    # G8: "max_threads bounds it"
    code = """
        import threading, tether
        from support import WAIT, PeakThreads, await_event, os_threads

        tether.configure(max_threads=4)
        before = os_threads()
        release, started = threading.Event(), threading.Semaphore(0)

        def block():
            started.release()
            await_event(release)

        with PeakThreads() as peak:
            guards = [tether.spawn(block) for _ in range(100)]
            for _ in range(4):
                assert started.acquire(timeout=WAIT)
            assert not started.acquire(timeout=1)
            release.set()
            for guard in guards:
                guard.join()
        # beside the crew: the sampler, the ticker
        assert peak.value - before <= 4 + 2, (before, peak.value)
    """
    run_python(code, check=True)


@pytest.mark.parametrize("value", [0, -1, "many", 1.5])
def test_bad_max_threads_is_refused(value):
    with pytest.raises((TypeError, ValueError)):
        tether.configure(max_threads=value)


def test_bad_configuration_is_refused():
    with pytest.raises(ValueError):
        tether.configure(check="perhaps")
    with pytest.raises(TypeError):
        tether.configure(unheard_of=1)
