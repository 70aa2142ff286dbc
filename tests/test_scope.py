"""Scopes: leaving joins everything, nesting, spawning from anywhere, guarded closures."""

from __future__ import annotations

import threading
import weakref

import pytest

import tether
from support import WAIT, Token, Unraisables, await_event, dedicated, poll


def test_scope_joins_everything_when_it_is_left():
    # G2
    ended = []
    with tether.scope() as s:
        for n in range(1_000):
            s.spawn(ended.append, n)
    assert sorted(ended) == list(range(1_000))


def test_scope_joins_children_that_block():
    # G2
    release, ended = threading.Event(), []

    def child(n):
        await_event(release)
        ended.append(n)

    with tether.scope() as s:
        for n in range(50):
            s.spawn(child, n)
        s.spawn(release.set)
    assert sorted(ended) == list(range(50))


def test_results_are_collected_inside_the_block():
    with tether.scope() as s:
        a = s.spawn(int, 40)
        b = s.options(name="b").spawn(int, 2)
        assert a.join() + b.join() == 42
        assert b.task.name == "b"


def test_handle_gives_its_result_once_after_the_block():
    # G9
    token = Token()
    with tether.scope() as s:
        handle = s.spawn(lambda: token)
    assert handle.done()
    assert handle.join() is token
    with pytest.raises(tether.ReapedError):
        handle.join()


def test_exit_value_of_a_handle_after_the_block():
    with tether.scope() as s:
        handle = s.spawn(int, 4)
    assert handle.exit_value() == tether.Completed(4)


def test_dropped_handle_neither_joins_nor_reports():
    # the scope owns the task
    release, started = threading.Event(), threading.Event()

    def child():
        started.set()
        await_event(release)

    with Unraisables() as unraisable:
        with tether.scope() as s:
            handle = s.options(dedicated=True).spawn(child)
            await_event(started)
            del handle
            assert s.tasks()[0].is_alive()
            release.set()
            s.spawn(int)
    assert unraisable.texts == []


def test_handles_need_not_be_kept():
    ran = []
    with tether.scope() as s:
        for n in range(10_000):
            s.spawn(ran.append, n)
    assert len(ran) == 10_000


def test_scopes_nest():
    # G2
    order = []
    with tether.scope() as outer:
        outer.spawn(order.append, "outer")
        with tether.scope() as inner:
            inner.spawn(order.append, "inner")
        assert "inner" in order
    assert sorted(order) == ["inner", "outer"]


def test_tasks_open_scopes():
    # G2
    def fib(n):
        if n < 2:
            return n
        with tether.scope() as s:
            left = s.spawn(fib, n - 1)
            right = fib(n - 2)
        return left.join() + right

    assert fib(14) == 377
    assert tether.spawn(fib, 14).join() == 377


def test_child_may_spawn_on_its_own_scope():
    # G2
    ended = []

    def child(s, depth):
        if depth:
            for _ in range(2):
                s.spawn(child, s, depth - 1)
        ended.append(depth)

    with tether.scope() as s:
        s.spawn(child, s, 8)
    assert len(ended) == 2**9 - 1


def test_child_may_spawn_while_the_block_is_already_being_left():
    # until its last child has ended and the block was left
    left, ran = threading.Event(), []

    def child(s):
        await_event(left)
        for n in range(10):
            s.spawn(ran.append, n)

    with tether.scope() as s:
        s.options(dedicated=True).spawn(child, s)
        left.set()
    assert sorted(ran) == list(range(10))


def test_foreign_thread_may_spawn_on_a_scope():
    ran = []
    with tether.scope() as s:
        thread = threading.Thread(target=lambda: [s.spawn(ran.append, n) for n in range(100)])
        thread.start()
        thread.join()
    assert sorted(ran) == list(range(100))


def test_many_tasks_spawn_on_one_scope_at_once():
    ran = []
    barrier = threading.Barrier(4)

    def spawner(s, base):
        barrier.wait(WAIT)
        for n in range(500):
            s.spawn(ran.append, base + n)

    with tether.scope() as s:
        for n in range(4):
            s.options(dedicated=True).spawn(spawner, s, 500 * n)
    assert sorted(ran) == list(range(2_000))


def test_spawn_on_a_closed_scope_is_refused():
    with tether.scope() as s:
        pass
    ran = []
    with pytest.raises(tether.ScopeClosedError):
        s.spawn(ran.append, 1)
    with pytest.raises(tether.ScopeClosedError):
        s.options(name="late").spawn(ran.append, 1)
    assert ran == []


def test_scope_cannot_be_entered_again():
    s = tether.scope()
    with s:
        with pytest.raises((tether.TetherError, RuntimeError)):
            s.__enter__()
    with pytest.raises((tether.TetherError, RuntimeError)):
        s.__enter__()


def test_block_may_be_left_by_return_break_and_continue():
    # G2
    ended = []

    def leave_by_return():
        with tether.scope() as s:
            s.spawn(ended.append, "return")
            return "value"

    assert leave_by_return() == "value"
    for kind in ("continue", "break"):
        with tether.scope() as s:
            s.spawn(ended.append, kind)
            if kind == "continue":
                continue
            break
    assert ended == ["return", "continue", "break"]


def test_generator_that_holds_a_scope_may_be_closed():
    # G1, G2
    ended = []

    def generate():
        with tether.scope() as s:
            s.spawn(ended.append, 1)
            yield s

    generator = generate()
    next(generator)
    generator.close()
    assert ended in ([1], [])
    assert tether.statistics().scopes == 0
    assert tether.statistics().tasks_live == 0


def test_scope_tells_its_name_and_its_tasks():
    release = threading.Event()
    with tether.scope("loaders") as s:
        assert s.name == "loaders"
        assert "loaders" in repr(s)
        assert s.tasks() == []
        handles = [s.options(name=f"n{n}", dedicated=True).spawn(await_event, release) for n in range(3)]
        assert sorted(ref.name for ref in s.tasks()) == ["n0", "n1", "n2"]
        assert set(s.tasks()) == {handle.task for handle in handles}
        release.set()
        for handle in handles:
            handle.join()
        assert s.tasks() == []
    assert s.tasks() == []


def test_parent_of_a_scope_child_is_the_task_that_opened_the_scope():
    with tether.scope() as s:
        assert s.spawn(lambda: tether.current().parent).join() is None

    def opener():
        with tether.scope() as s:
            return s.spawn(lambda: tether.current().parent).join(), tether.current()

    parent, itself = dedicated(opener).join()
    assert parent == itself


def test_open_scopes_are_counted():
    with tether.scope():
        assert tether.statistics().scopes == 1
        with tether.scope():
            assert tether.statistics().scopes == 2
    assert tether.statistics().scopes == 0


def test_scope_handle_does_not_count_as_an_armed_guard():
    release = threading.Event()
    with tether.scope() as s:
        handle = s.options(dedicated=True).spawn(await_event, release)
        assert tether.statistics().guards == 0
        assert tether.statistics().tasks_live == 1
        release.set()
    assert handle.done()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"on_error": "explode"}, ValueError),
        ({"on_error": 3}, (TypeError, ValueError)),
        ({"timeout": "soon"}, TypeError),
        ({"timeout": float("nan")}, ValueError),
        ({"name": 3}, TypeError),
        ({"check": "perhaps"}, ValueError),
        ({"unheard_of": 1}, TypeError),
    ],
    ids=str,
)
def test_bad_scope_option_is_refused(options, error):
    with pytest.raises(error):
        with tether.scope(**options):
            pass


def test_spawn_of_no_callable_on_a_scope_is_refused():
    with tether.scope() as s:
        with pytest.raises(TypeError):
            s.spawn(None)
        with pytest.raises(TypeError):
            s.spawn()


def test_scoped_gives_the_value_of_its_closure():
    # G2
    ended = []

    def body(s):
        for n in range(10):
            s.spawn(ended.append, n)
        return s.spawn(int, 5).join()

    assert tether.scoped(body) == 5
    assert sorted(ended) == list(range(10))
    assert tether.scoped(lambda s: None) is None


def test_scoped_raises_what_a_scope_raises():
    with pytest.raises(ExceptionGroup):
        tether.scoped(lambda s: s.spawn(int, "no number") and None)
    with pytest.raises(TypeError):
        tether.scoped(None)


def test_with_handle_inside_a_scope_joins():
    with tether.scope() as s:
        with s.spawn(int, 3) as handle:
            pass
        assert handle.done()


def test_scope_waits_for_scopes_of_its_tasks():
    # G2: "and in nested scopes"
    release, ended = threading.Event(), []

    def grandchild():
        await_event(release)
        ended.append("grandchild")

    def child():
        with tether.scope() as inner:
            inner.options(dedicated=True).spawn(grandchild)
        ended.append("child")

    with tether.scope() as s:
        s.spawn(child)
        s.spawn(release.set)
    assert ended == ["grandchild", "child"]


def test_result_of_a_child_is_released_with_its_handle():
    # G9
    watchers = []

    def make():
        token = Token()
        watchers.append(weakref.ref(token))
        return token

    with tether.scope() as s:
        s.spawn(make)
        kept = s.spawn(make)
    poll(lambda: sum(watcher() is None for watcher in watchers) == 1, "the dropped result released")
    del kept
    poll(lambda: all(watcher() is None for watcher in watchers), "the kept result released")


def test_child_frames_do_not_keep_the_scope_open():
    with tether.scope() as s:
        assert s.spawn(lambda scope: scope.name, s).join() == s.name


def test_twenty_scopes_of_a_thousand_empty_tasks_in_turn():
    # G9
    for _ in range(20):
        with tether.scope() as s:
            for _ in range(1_000):
                s.spawn(int)
    assert tether.statistics().tasks_live == 0
