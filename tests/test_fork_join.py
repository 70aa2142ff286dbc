"""join: two calls, both ended when it returns or raises (G1, G8, G12, G18)."""

from __future__ import annotations

import contextvars
import signal
import threading

import pytest

import tether
from support import Unraisables, await_event


class Boom(Exception):
    pass


def test_both_values_in_order():
    assert tether.join(lambda: 1, lambda: 2) == (1, 2)


def test_first_runs_here():
    ident, _ = tether.join(threading.get_ident, lambda: None)
    assert ident == threading.get_ident()


def test_second_gets_a_thread_if_the_first_waits_for_it():
    # G8
    event = threading.Event()
    assert tether.join(lambda: await_event(event), event.set) == (None, None)


def test_failure_of_the_first_cancels_the_second():
    # G1, G12
    begun = threading.Event()

    def second():
        begun.set()
        tether.sleep(3600)

    def first():
        await_event(begun)
        raise Boom

    with pytest.raises(Boom):
        tether.join(first, second)
    assert tether.tasks() == []


def test_failure_of_the_first_before_the_second_began():
    # G7: it never runs.
    ran = []

    def first():
        for task in tether.tasks():
            task.cancel()
        raise Boom

    with pytest.raises(Boom):
        tether.join(first, lambda: ran.append(1))
    assert ran == []


def test_failure_of_the_second_is_raised():
    def second():
        raise Boom

    with pytest.raises(Boom):
        tether.join(lambda: 1, second)


def test_failure_of_both():
    # G6: the first one's is raised, the other one's is reported.
    failed = threading.Event()

    def first():
        await_event(failed)
        raise Boom("first")

    def second():
        failed.set()
        raise Boom("second")

    with Unraisables() as reports, pytest.raises(Boom, match="first"):
        tether.join(first, second)
    assert "second" in "".join(reports.texts)


def test_recursion_of_any_depth():
    # G8, fault 17
    def down(n):
        return 0 if n == 0 else 1 + tether.join(lambda: 0, lambda: down(n - 1))[1]

    assert down(2000) == 2000


def test_fibonacci():
    def fib(n):
        return n if n < 2 else sum(tether.join(lambda: fib(n - 1), lambda: fib(n - 2)))

    assert fib(15) == 610


def test_second_has_a_context_of_its_own():
    # G18
    variable = contextvars.ContextVar("variable", default=0)

    def second():
        seen = variable.get()
        variable.set(2)
        return seen

    token = variable.set(1)
    try:
        assert tether.join(lambda: variable.get(), second) == (1, 1)
        assert variable.get() == 1
    finally:
        variable.reset(token)


def test_guard_in_the_second_result_comes_to_the_caller():
    # G3
    _, guard = tether.join(lambda: None, lambda: tether.spawn(int, "7"))
    assert guard.join() == 7


def test_interrupt_in_the_first_waits_for_the_second():
    # fault 5
    begun = threading.Event()

    def first():
        await_event(begun)
        signal.raise_signal(signal.SIGINT)

    def second():
        begun.set()
        tether.sleep(3600)

    with pytest.raises(KeyboardInterrupt):
        tether.join(first, second)
    assert tether.tasks() == []


def test_wrong_arguments_are_refused_before_anything_starts():
    with pytest.raises(TypeError, match="callables"):
        tether.join(lambda: 1, 2)
    with pytest.raises(TypeError, match="callables"):
        tether.join(1, lambda: 2)
