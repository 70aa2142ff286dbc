"""par_reduce against functools.reduce (G2, G8)."""

from __future__ import annotations

import functools
import itertools
import operator
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tether
from support import await_event
from tether import _chunking


class Boom(Exception):
    pass


@settings(max_examples=80, deadline=None)
@given(st.lists(st.text(max_size=3), max_size=200), st.text(max_size=3))
def test_order_is_kept_and_initial_comes_first_once(items, initial):
    # G2: concatenation is associative, and not commutative.
    got = tether.par_reduce(str.upper, operator.add, items, initial)
    assert got == functools.reduce(operator.add, map(str.upper, items), initial)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*[st.integers(-3, 3)] * 4), max_size=100))
def test_products_of_matrices(items):
    def times(a, b):
        return (
            a[0] * b[0] + a[1] * b[2],
            a[0] * b[1] + a[1] * b[3],
            a[2] * b[0] + a[3] * b[2],
            a[2] * b[1] + a[3] * b[3],
        )

    unit = (1, 0, 0, 1)
    assert tether.par_reduce(tuple, times, items, unit) == functools.reduce(times, items, unit)


def test_many_items():
    assert tether.par_reduce(int, operator.add, range(300_000), 5) == sum(range(300_000)) + 5


def test_no_items_give_the_initial_value():
    initial = object()
    assert tether.par_reduce(int, operator.add, [], initial) is initial


def test_any_iterator_will_do():
    assert tether.par_reduce(len, operator.add, (("x",) * n for n in range(50)), 0) == 1225


def test_divided_batch_keeps_the_order():
    def fn(x):
        if x < 4:
            tether.sleep(0.02)
        return str(x)

    _chunking._costs[_chunking.key_of(fn)] = 1e-7
    assert tether.par_reduce(fn, operator.add, range(50), "") == "".join(map(str, range(50)))


def test_failure_of_the_function_names_the_item():
    with pytest.raises(ZeroDivisionError) as caught:
        tether.par_reduce(lambda x: 1 // (x - 7), operator.add, range(20), 0)
    assert any("item 7: 7" in note for note in caught.value.__notes__)
    assert tether.tasks() == []


def test_failure_of_the_operator_is_raised():
    def op(a, b):
        raise Boom

    with pytest.raises(Boom):
        tether.par_reduce(int, op, range(20), 0)
    assert tether.tasks() == []


def test_stop_iteration_is_a_failure():
    def fn(x):
        raise StopIteration

    with pytest.raises(RuntimeError, match="StopIteration"):
        tether.par_reduce(fn, operator.add, [1], 0)


def test_failing_source():
    def source():
        yield 1
        raise Boom

    with pytest.raises(Boom):
        tether.par_reduce(int, operator.add, source(), 0)


def test_failure_ends_an_infinite_input():
    with pytest.raises(ZeroDivisionError):
        tether.par_reduce(lambda x: 1 // (1000 - x), operator.add, itertools.count(), 0)


def test_nested():
    # G8
    def row(i):
        return tether.par_reduce(functools.partial(operator.mul, i), operator.add, range(30), 0)

    assert tether.par_reduce(row, operator.add, range(30), 0) == sum(range(30)) ** 2


def test_waiting_functions_run_at_the_same_time():
    # G8
    barrier = threading.Barrier(5)
    assert tether.par_reduce(lambda x: barrier.wait(60) * 0 + x, operator.add, range(5), 0) == 10


def test_cancelled_caller():
    # G12
    begun = threading.Event()

    def work():
        tether.par_reduce(lambda x: (begun.set(), tether.sleep(3600)), operator.add, range(4), 0)

    guard = tether.options(dedicated=True).spawn(work)
    await_event(begun)
    guard.cancel()
    with pytest.raises(tether.TaskKilled):
        guard.join()
    assert tether.tasks() == []


def test_wrong_arguments_are_refused_before_anything_starts():
    with pytest.raises(TypeError, match="callable fn"):
        tether.par_reduce(1, operator.add, [], 0)
    with pytest.raises(TypeError, match="callable op"):
        tether.par_reduce(int, 1, [], 0)
    with pytest.raises(TypeError, match="not iterable"):
        tether.par_reduce(int, operator.add, 5, 0)


def test_interrupt_ends_it(run_python):
    # fault 5
    code = """
        import operator, os, signal, tether

        def fn(x):
            if x == 3:
                os.kill(os.getpid(), signal.SIGINT)
            tether.sleep(3600)

        try:
            tether.par_reduce(fn, operator.add, range(4), 0)
        except KeyboardInterrupt:
            assert tether.tasks() == [], tether.tasks()
            print("interrupted")
    """
    assert run_python(code, check=True).out == "interrupted\n"
