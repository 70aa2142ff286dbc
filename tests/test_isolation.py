"""What a task sees is the same in place, on the crew and on a dedicated thread, and nothing of it stays behind."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import decimal
import sys
import threading
import weakref

import pytest

import tether
from support import PLACES, Token, dedicated, poll

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@pytest.fixture(params=sorted(PLACES))
def run(request):
    return PLACES[request.param]


# ---- context variables ----------------------------------------------------------------------------------------------


def test_context_is_copied_at_spawn(run):
    # G18
    token = VARIABLE.set("parent")
    try:
        assert run(VARIABLE.get) == "parent"
    finally:
        VARIABLE.reset(token)


def test_context_is_copied_when_spawned_not_when_started():
    # G18
    token = VARIABLE.set("at spawn")
    try:
        guard = tether.spawn(VARIABLE.get)
        VARIABLE.set("later")
        assert guard.join() == "at spawn"
    finally:
        VARIABLE.reset(token)


def test_changes_of_the_task_stay_in_the_task(run):
    # G18
    def entry():
        VARIABLE.set("task")
        inner = tether.spawn(VARIABLE.get).join()
        return inner, VARIABLE.get()

    assert run(entry) == ("task", "task")
    assert VARIABLE.get() == "unset"
    assert run(VARIABLE.get) == "unset"


def test_children_of_a_scope_see_the_context_of_the_spawner():
    # G18
    token = VARIABLE.set("body")
    try:
        with tether.scope() as s:
            first = s.spawn(VARIABLE.get)
            VARIABLE.set("changed")
            second = s.spawn(VARIABLE.get)
        assert (first.join(), second.join()) == ("body", "changed")
    finally:
        VARIABLE.reset(token)


def test_context_of_the_joiner_is_entered_again_after_a_task_in_place():
    # fault 32: a token of the joiner's context is still good
    token = VARIABLE.set("joiner")
    for _ in range(50):
        tether.spawn(VARIABLE.set, "task").join()
    assert VARIABLE.get() == "joiner"
    VARIABLE.reset(token)
    assert VARIABLE.get() == "unset"


# ---- thread-locals --------------------------------------------------------------------------------------------------


def test_task_has_its_own_thread_locals(run):
    # G18
    local = threading.local()
    local.value = "joiner"

    def entry():
        before = hasattr(local, "value")
        local.value = "task"
        return before, local.value

    for _ in range(5):
        assert run(entry) == (False, "task")
        assert local.value == "joiner"


def test_thread_locals_of_nested_tasks_are_apart(run):
    # G18
    local = threading.local()

    def entry(depth):
        assert not hasattr(local, "value")
        local.value = depth
        if depth:
            tether.spawn(entry, depth - 1).join()
            dedicated(entry, 0).join()
        assert local.value == depth
        return depth

    local.value = "root"
    assert run(entry, 5) == 5
    assert local.value == "root"


def test_subclass_of_local_is_initialised_once_per_task(run):
    # G18
    made = []

    class Local(threading.local):
        def __init__(self, word):
            self.word = word
            made.append(word)

    local = Local("hello")
    assert local.word == "hello"
    assert run(lambda: (local.word, local.word)) == ("hello", "hello")
    assert run(lambda: local.word) == "hello"
    assert made == ["hello"] * 3


def test_thread_locals_die_with_their_task(run):
    # G9
    local = threading.local()
    watchers = []

    def entry():
        local.token = Token()
        watchers.append(weakref.ref(local.token))

    for _ in range(5):
        run(entry)
    poll(lambda: all(watcher() is None for watcher in watchers), "the thread-locals released")


def test_local_that_dies_inside_a_task_is_gone_outside_too(run):
    holder = [threading.local()]
    holder[0].value = Token()
    watcher = weakref.ref(holder[0].value)
    run(holder.clear)
    poll(lambda: watcher() is None, "the value of the joiner released with its local")


def test_next_task_of_a_thread_sees_nothing_of_the_last_one():
    # fault 32
    local = threading.local()

    def dirty():
        local.value = 1
        VARIABLE.set("dirty")
        sys.set_asyncgen_hooks(firstiter=print, finalizer=print)
        raise ValueError("left in flight")

    def clean():
        return (hasattr(local, "value"), VARIABLE.get(), *sys.get_asyncgen_hooks(), sys.exc_info()[0])

    for run in PLACES.values():
        for _ in range(20):
            with pytest.raises(ValueError, match="left in flight"):
                run(dirty)
            assert run(clean) == (False, "unset", None, None, None)


# ---- handled exceptions ---------------------------------------------------------------------------------------------


def test_task_sees_no_handled_exception_of_the_joiner(run):
    # G18
    def entry():
        info = sys.exc_info()
        try:
            raise KeyError("task")
        except KeyError as error:
            return info, error.__context__

    handled = ValueError("joiner")
    try:
        raise handled
    except ValueError:
        assert run(entry) == ((None, None, None), None)
        assert sys.exc_info()[1] is handled


def test_bare_raise_in_a_task_finds_nothing_to_raise(run):
    def entry():
        raise

    try:
        raise ValueError("joiner")
    except ValueError:
        with pytest.raises(RuntimeError):
            run(entry)


def test_exception_that_a_task_handles_at_its_end_does_not_reach_the_joiner(run):
    def entry():
        try:
            raise ValueError("task")
        except ValueError:
            return sys.exc_info()[0]

    assert run(entry) is ValueError
    assert sys.exc_info() == (None, None, None)


# ---- recursion ------------------------------------------------------------------------------------------------------


def depth_left():
    """Return how many frames may still be entered here."""

    def descend(n):
        try:
            return descend(n + 1)
        except RecursionError:
            return n

    return descend(0)


def at_depth(n, call):
    return call() if n == 0 else at_depth(n - 1, call)


def dive(n):
    return 0 if n == 0 else 1 + dive(n - 1)


def test_task_has_a_full_recursion_budget(run):
    # G18: joiner and task together go deeper than the limit
    most = sys.getrecursionlimit() * 6 // 10
    assert at_depth(most, lambda: run(dive, most)) == most


def test_budget_of_a_nested_task_is_full_again():
    # G18
    most = sys.getrecursionlimit() * 6 // 10

    def entry(levels):
        return dive(most) if levels == 0 else at_depth(most, lambda: tether.spawn(entry, levels - 1).join())

    assert tether.spawn(entry, 5).join() == most


def test_runaway_recursion_is_contained(run):
    # fault 17
    def runaway(n):
        return runaway(n + 1) + 1

    with pytest.raises(RecursionError):
        run(runaway, 0)
    assert run(int, 5) == 5


def test_budget_of_the_joiner_is_restored_after_a_task_in_place(run):
    # fault 32
    before = depth_left()
    assert run(depth_left) >= before
    with pytest.raises(ValueError, match="deep"):
        run(lambda: at_depth(300, lambda: (_ for _ in ()).throw(ValueError("deep"))))
    assert depth_left() == before


# ---- hooks ----------------------------------------------------------------------------------------------------------


def test_async_generator_hooks_of_the_joiner_are_hidden_and_restored(run):
    # fault 32
    def first(generator):
        pass

    def last(generator):
        pass

    saved = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(firstiter=first, finalizer=last)
    try:
        assert tuple(run(sys.get_asyncgen_hooks)) == (None, None)
        run(lambda: sys.set_asyncgen_hooks(firstiter=print, finalizer=print))
        assert tuple(sys.get_asyncgen_hooks()) == (first, last)
    finally:
        sys.set_asyncgen_hooks(*saved)


HOOKS = """
    import sys, threading
    import tether
    from support import PLACES

    seen = []

    def hook(frame, event, arg):
        if event == "call" and frame.f_code.co_name == "marked":
            seen.append(threading.get_ident())
        return None

    def marked():
        return threading.get_ident()

    def own(frame, event, arg):
        return None

    set_hook, get_hook = sys.set{kind}, sys.get{kind}
    threading_set = threading.set{kind}
"""


@pytest.mark.parametrize("kind", ["trace", "profile"])
def test_threading_hook_is_seen_by_every_task(kind, run_python):
    # G18: as in any thread started after threading.settrace
    code = (
        HOOKS.replace("{kind}", kind)
        + """
    for run in PLACES.values():     # threads that were made before the hook was set serve tasks after it too
        run(marked)
    threading_set(hook)
    for name, run in PLACES.items():
        for _ in range(3):
            seen.clear()
            ident = run(marked)
            assert seen == [ident], (name, seen, ident)
    assert get_hook() is None
    threading_set(None)
    for name, run in PLACES.items():
        seen.clear()
        run(marked)
        assert seen == [], name
    """
    )
    run_python(code, check=True)


@pytest.mark.parametrize("kind", ["trace", "profile"])
def test_hook_of_the_joiner_is_restored_and_the_one_of_the_task_forgotten(kind, run_python):
    # fault 32
    code = (
        HOOKS.replace("{kind}", kind)
        + """
    def entry():
        set_hook(hook)
        return marked()

    for name, run in PLACES.items():
        set_hook(own)
        run(entry)
        assert get_hook() is own, name
        set_hook(None)
        run(entry)
        assert get_hook() is None, name
        seen.clear()
        run(marked)
        assert seen == [], name
    """
    )
    run_python(code, check=True)


# ---- asyncio --------------------------------------------------------------------------------------------------------


def test_task_does_not_run_in_place_on_the_thread_of_a_running_loop():
    # a task that runs a loop of its own would find this one
    async def main():
        return tether.spawn(threading.get_ident).join()

    assert asyncio.run(main()) != threading.get_ident()


def test_task_sees_no_running_loop(run):
    def entry():
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        return True

    async def main():
        return run(entry)

    assert asyncio.run(main())
    assert run(entry)


def test_task_may_run_a_loop_of_its_own(run):
    async def inner():
        await asyncio.sleep(0)
        return asyncio.get_running_loop()

    def entry():
        return asyncio.run(inner()) is not None

    async def main():
        here = asyncio.get_running_loop()
        assert run(entry)
        assert asyncio.get_running_loop() is here

    assert run(entry)
    asyncio.run(main())


def test_scope_may_be_left_inside_a_coroutine():
    ran = []

    async def main():
        with tether.scope() as s:
            for n in range(20):
                s.spawn(lambda n=n: ran.append((n, threading.get_ident())))

    asyncio.run(main())
    assert sorted(n for n, _ in ran) == list(range(20))
    assert threading.get_ident() not in {ident for _, ident in ran}


# ---- all of it after every way to end -------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["return", "raise", "cancel", "kill", "exit"])
def test_everything_of_the_joiner_is_restored_however_the_task_ends(ending, run):
    # fault 32
    local = threading.local()
    local.value = "joiner"
    token = VARIABLE.set("joiner")

    def entry():
        local.value = "task"
        VARIABLE.set("task")
        match ending:
            case "raise":
                raise ValueError
            case "exit":
                raise SystemExit
            case "cancel":
                tether.current().cancel()
                tether.checkpoint()
            case "kill":
                raise tether.KilledTask

    left = depth_left()
    with contextlib.suppress(ValueError, SystemExit, tether.TaskKilled):
        run(entry)
    assert local.value == "joiner"
    assert VARIABLE.get() == "joiner"
    assert sys.exc_info() == (None, None, None)
    assert tether.current().id == 0
    assert depth_left() == left
    VARIABLE.reset(token)


def test_next_task_of_a_thread_has_no_context_hooks_or_depth_of_one_that_failed_deep_down():
    # fault 32: `__context__`, trace and profile functions, recursion depth, decimal's context
    def dirty():
        sys.settrace(lambda *args: None)
        sys.setprofile(lambda *args: None)
        decimal.setcontext(decimal.Context(prec=3))  # not a change of the one that the copied context shares
        try:
            raise KeyError("handled")
        except KeyError:
            at_depth(200, lambda: int("deep"))

    def clean():
        try:
            raise IndexError
        except IndexError as error:
            return error.__context__, sys.gettrace(), sys.getprofile(), decimal.getcontext().prec, depth_left() > 200

    precision = decimal.getcontext().prec
    for run in PLACES.values():
        for _ in range(5):
            hooks = sys.gettrace(), sys.getprofile()
            with pytest.raises(ValueError, match="deep") as caught:
                run(dirty)
            assert isinstance(caught.value.__context__, KeyError)
            assert (sys.gettrace(), sys.getprofile()) == hooks
            assert run(clean) == (None, None, None, precision, True)
            assert decimal.getcontext().prec == precision


def test_exception_of_the_joiner_is_no_context_of_the_tasks_failure():
    # fault 32: nor is the task's of the next one of the joiner
    def entry():
        raise ValueError("task")

    for run in PLACES.values():
        try:
            raise KeyError("joiner")
        except KeyError:
            outcome = tether.spawn(entry).exit_value()
            assert outcome.exception.__context__ is None
            with contextlib.suppress(ValueError):
                run(entry)
        try:
            raise IndexError
        except IndexError as error:
            context = error.__context__
        assert context is None
