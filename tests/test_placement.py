"""Where tasks run: in place where that is safe, elsewhere where it is not, and as `TETHER_PLACE` says."""

from __future__ import annotations

import threading

import pytest

import tether
from support import WAIT, dedicated

COUNT_PLACES = """
    import threading, tether

    main = threading.get_ident()
    here = sum(tether.spawn(threading.get_ident).join() == main for _ in range(300))
    with tether.scope() as s:
        handles = [s.spawn(threading.get_ident) for _ in range(100)]
    scoped = sum(handle.join() == main for handle in handles)
    timed = sum(tether.spawn(threading.get_ident).join(timeout=60) == main for _ in range(20))
    own = sum(tether.options(dedicated=True).spawn(threading.get_ident).join() == main for _ in range(20))
    print(here, scoped, timed, own)
"""


def counts(run_python, place):
    env = {} if place is None else {"TETHER_PLACE": place}
    return [int(word) for word in run_python(COUNT_PLACES, env=env, check=True).out.split()]


@pytest.mark.parametrize("place", [None, "inline"])
def test_join_of_a_queued_task_runs_it_in_place(place, run_python):
    here, _, timed, own = counts(run_python, place)
    assert here > 0
    assert timed == 0
    assert own == 0


def test_nothing_runs_in_place_when_threads_are_forced(run_python):
    assert counts(run_python, "thread") == [0, 0, 0, 0]


def test_both_places_are_used_at_random(run_python):
    here, _, timed, own = counts(run_python, "random")
    assert 0 < here < 300
    assert timed == 0
    assert own == 0


@pytest.mark.parametrize("place", ["inline", "thread", "random"])
def test_forced_placement_changes_no_result(place, run_python):
    # G7, G2, G8
    code = """
        import threading, tether
        from support import await_event

        def fib(n):
            if n < 2:
                return n
            with tether.scope() as s:
                left = s.spawn(fib, n - 1)
                right = fib(n - 2)
            return left.join() + right

        assert fib(10) == 55

        def fail():
            raise ValueError("x")

        for _ in range(20):
            try:
                tether.spawn(fail).join()
            except ValueError:
                pass
            else:
                raise AssertionError
        events = [threading.Event() for _ in range(30)]

        def chain(n):
            if n + 1 < len(events):
                await_event(events[n + 1])
            events[n].set()

        guards = [tether.spawn(chain, n) for n in range(30)]
        for guard in guards:
            guard.join()

        def nest(n):
            return 0 if n == 0 else 1 + tether.spawn(nest, n - 1).join()

        assert nest(200) == 200
        stats = tether.statistics()
        assert stats.tasks_live == stats.guards == stats.scopes == 0, stats
    """
    run_python(code, env={"TETHER_PLACE": place}, check=True)


def test_in_place_task_is_a_task_of_its_own():
    ref, ident = tether.spawn(lambda: (tether.current(), threading.get_ident())).join()
    assert ref.id != 0
    assert tether.current().id == 0
    assert isinstance(ident, int)


def test_dedicated_task_never_runs_in_place():
    main = threading.get_ident()
    assert all(dedicated(threading.get_ident).join() != main for _ in range(100))


def test_timed_join_never_runs_in_place():
    main = threading.get_ident()
    assert all(tether.spawn(threading.get_ident).join(timeout=WAIT) != main for _ in range(100))


def test_join_inside_a_finalizer_does_not_run_in_place():
    # a finalizer may stand anywhere, below any lock
    idents = []

    class Finalized:
        def __init__(self, guard):
            self.guard = guard

        def __del__(self):
            idents.append(self.guard.join())

    def entry():
        return threading.get_ident()

    for _ in range(20):
        Finalized(tether.spawn(entry))
    assert len(idents) == 20


def test_exception_of_an_in_place_task_leaves_the_joiner_in_its_own_task():
    def fail():
        raise ValueError("x")

    for _ in range(100):
        with pytest.raises(ValueError):
            tether.spawn(fail).join()
        assert tether.current().id == 0
