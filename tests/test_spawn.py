"""Spawning: what is called, with what, how often, and what is refused before anything starts."""

from __future__ import annotations

import contextvars
import copy
import functools
import gc
import pickle
import random
import threading
import weakref

import pytest

import tether
from support import PLACES, WAIT, Token, await_event, busy_statistics, dedicated, here, poll


@pytest.fixture(params=sorted(PLACES))
def run(request):
    """Run a function as a task: in place, on the crew, on a dedicated thread."""
    return PLACES[request.param]


def test_spawn_returns_a_guard_whose_join_gives_the_result(run):
    guard = tether.spawn(divmod, 7, 2)
    assert type(guard) is tether.JoinGuard
    assert guard.join() == (3, 1)
    assert run(divmod, 7, 2) == (3, 1)


def test_arguments_arrive_as_given():
    def entry(*args, **kwargs):
        return args, kwargs

    token = Token()
    args, kwargs = tether.spawn(entry, 1, token, None, key=token, other=(1, 2)).join()
    assert args == (1, token, None)
    assert kwargs == {"key": token, "other": (1, 2)}


def test_entry_is_positional_only_so_any_keyword_reaches_it():
    def entry(**kwargs):
        return kwargs

    given = {"fn": 1, "self": 2, "name": 3, "args": 4, "timeout": 5, "dedicated": 6}
    assert tether.spawn(entry, **given).join() == given
    assert tether.options(name="n").spawn(entry, **given).join() == given


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (int, 0),
        (functools.partial(int, "7"), 7),
        ("text".upper, "TEXT"),
        ([3, 1].__len__, 2),
        (type("Callable", (), {"__call__": lambda self: "called"})(), "called"),
        (type("Static", (), {"entry": staticmethod(lambda: "static")}).entry, "static"),
    ],
    ids=["class", "partial", "builtin method", "slot wrapper", "instance", "static"],
)
def test_any_callable_can_be_spawned(entry, expected):
    assert tether.spawn(entry).join() == expected


def test_wrong_signature_fails_the_task_not_the_spawn():
    guard = tether.spawn(lambda: None, 1)
    with pytest.raises(TypeError):
        guard.join()


def test_spawn_of_no_callable_raises_before_anything_starts():
    for bad in (None, 1, "text", object()):
        with pytest.raises(TypeError):
            tether.spawn(bad)
        with pytest.raises(TypeError):
            tether.options(name="x").spawn(bad)
    with pytest.raises(TypeError):
        tether.spawn()
    poll(lambda: busy_statistics() == {}, "nothing to be left")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"name": 3}, TypeError),
        ({"stack_size": "large"}, TypeError),
        ({"stack_size": 64 * 1024}, ValueError),
        ({"stack_size": 0}, ValueError),
        ({"stack_size": -1}, ValueError),
        ({"context": {}}, TypeError),
        ({"check": "perhaps"}, ValueError),
        ({"at_exit": "never"}, ValueError),
        ({"unheard_of": 1}, TypeError),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else None,
)
def test_bad_option_is_refused(options, error):
    # fault 17: among them a stack of 64 KiB
    with pytest.raises(error):
        tether.options(**options).spawn(int)
    with tether.scope() as s, pytest.raises(error):
        s.options(**options).spawn(int)


def test_options_are_keyword_only():
    with pytest.raises(TypeError):
        tether.options("name")


def test_options_object_can_be_used_again():
    made = tether.options(name="again")
    assert [made.spawn(int, n).join() for n in range(3)] == [0, 1, 2]
    assert made.spawn(lambda: tether.current().name).join() == "again"


def test_options_context_is_the_one_the_task_runs_with():
    variable = contextvars.ContextVar("variable", default="none")
    context = contextvars.copy_context()
    context.run(variable.set, "given")
    assert tether.options(context=context).spawn(variable.get).join() == "given"
    assert tether.options(context=context, dedicated=True).spawn(variable.get).join() == "given"
    assert variable.get() == "none"


def test_dedicated_task_has_a_thread_of_its_own():
    assert tether.options(dedicated=True).spawn(threading.get_ident).join() != threading.get_ident()


def test_stack_size_implies_a_dedicated_thread():
    assert tether.options(stack_size=512 * 1024).spawn(threading.get_ident).join() != threading.get_ident()


def test_large_stack_size_is_accepted():
    assert tether.options(stack_size=16 * 1024 * 1024).spawn(int, 5).join() == 5


def test_entry_runs_exactly_once():
    # G7
    ran = []
    guards = [tether.spawn(ran.append, n) for n in range(5_000)]
    for guard in guards:
        guard.join()
    assert sorted(ran) == list(range(5_000))


def order_first(guards):
    return guards


def order_last(guards):
    return guards[::-1]


def order_random(guards):
    return random.Random(7).sample(guards, len(guards))


@pytest.mark.parametrize("order", [order_first, order_last, order_random])
def test_ten_thousand_guards_join_in_any_order(order):
    # G7, G9
    guards = [(n, tether.spawn(int, n)) for n in range(10_000)]
    for n, guard in order(guards):
        assert guard.join() == n


def test_argument_and_function_live_until_the_task_ends(run):
    # The giver may forget them at once: nothing they refer to dies first.
    def entry(token):
        return token.word

    token = Token()
    token.word = "alive"
    watcher = weakref.ref(token)
    guard = tether.spawn(entry, token)
    del entry, token
    gc.collect()
    assert guard.join() == "alive"
    poll(lambda: watcher() is None, "the argument released")
    assert run(lambda: "again") == "again"


def test_tasks_spawn_tasks():
    def tree(depth):
        if depth == 0:
            return 1
        left, right = tether.spawn(tree, depth - 1), tether.spawn(tree, depth - 1)
        return left.join() + right.join()

    assert tree(8) == 256
    assert tether.spawn(tree, 8).join() == 256


def test_spawn_from_foreign_threads():
    # G3: all threads that tether did not make are one owner, the root.
    results = []

    def foreign():
        results.extend(tether.spawn(int, n).join() for n in range(200))

    threads = [threading.Thread(target=foreign) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == sorted(list(range(200)) * 4)


def test_spawning_from_several_tasks_at_once():
    barrier = threading.Barrier(4)

    def busy():
        barrier.wait(WAIT)
        return sum(guard.join() for guard in [tether.spawn(int, n) for n in range(500)])

    guards = [dedicated(busy) for _ in range(4)]
    assert [guard.join() for guard in guards] == [sum(range(500))] * 4


def test_task_that_raises_leaves_its_thread_usable():
    def fail():
        raise ValueError("once")

    for _ in range(50):
        with pytest.raises(ValueError, match="once"):
            dedicated(fail).join()
        assert dedicated(int, 3).join() == 3


def test_guard_cannot_be_made_subclassed_copied_or_pickled():
    # fault 8
    with pytest.raises(TypeError):
        tether.JoinGuard()
    with pytest.raises(TypeError):
        type("Derived", (tether.JoinGuard,), {})
    guard = tether.spawn(int, 4)
    for attempt in (copy.copy, copy.deepcopy, pickle.dumps, lambda value: copy.deepcopy([value])):
        with pytest.raises(TypeError):
            attempt(guard)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError):
            pickle.dumps(guard, protocol)
    assert guard.join() == 4


def test_guard_is_weakly_referencable():
    guard = tether.spawn(int, 4)
    watcher = weakref.ref(guard)
    assert watcher() is guard
    assert guard.join() == 4
    del guard
    assert watcher() is None


def test_guard_type_can_be_subscripted_in_annotations():
    # G10
    assert tether.JoinGuard[int]


def test_guard_has_no_room_for_attributes():
    guard = tether.spawn(int)
    with pytest.raises(AttributeError):
        guard.note = "mine"
    guard.join()


def test_spawn_site_is_the_line_of_the_spawn():
    guard, site = tether.spawn(int), here()
    assert guard.task.spawned_at.endswith(site)
    guard.join()
    guard, site = tether.options(name="named").spawn(int), here()
    assert guard.task.spawned_at.endswith(site)
    guard.join()


def test_dedicated_task_runs_while_nobody_joins():
    # G8
    started, release = threading.Event(), threading.Event()

    def entry():
        started.set()
        await_event(release)
        return "ended"

    guard = dedicated(entry)
    await_event(started)
    assert not guard.done()
    release.set()
    poll(guard.done, "the task to end without a join")
    assert guard.join() == "ended"
