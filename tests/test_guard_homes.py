"""Where guards live, and how they go from there: whatever lets one go, its task is not forgotten (G1; faults 2, 9)."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import gc
import sys
import sysconfig
import threading
import weakref

import pytest

import tether
from support import PLACES, Token, Unraisables, await_event, dedicated, poll

SMUGGLED: list[object] = []
"""A module global: the capture walk does not enter it, so what lies here has not been moved."""

VARIABLE: contextvars.ContextVar[object] = contextvars.ContextVar("VARIABLE")
LOCAL = threading.local()


class Slow:
    """A dedicated task that ends only when `release` is set, and says that it did."""

    def __init__(self):
        self.started, self.release, self.ended = threading.Event(), threading.Event(), threading.Event()
        self.guard = dedicated(self._run, self.started, self.release, self.ended)
        await_event(self.started)

    @staticmethod
    def _run(started, release, ended):
        started.set()
        await_event(release)
        ended.set()

    def take(self):
        guard, self.guard = self.guard, None
        return guard

    def soon(self):
        """Release from another thread, so that the caller can go on to wait."""
        threading.Thread(target=self.release.set).start()


@pytest.fixture(params=PLACES.values(), ids=list(PLACES))
def run(request):
    return request.param


# ---- every place it can be dropped in -------------------------------------------------------------------------------


def test_drop_on_another_thread_of_the_same_owner_waits():
    # fault 2, G3: the program's own threads are one owner
    for _ in range(10):
        slow = Slow()
        SMUGGLED.append(slow.take())
        seen = []

        def drop(slow=slow, seen=seen):
            slow.soon()
            SMUGGLED.clear()
            seen.append(slow.ended.is_set())

        thread = threading.Thread(target=drop)
        thread.start()
        thread.join()
        assert seen == [True]


def test_drop_by_another_task_waits_for_nothing(run):
    # fault 2
    slow = Slow()
    SMUGGLED.append(slow.take())
    run(lambda: SMUGGLED.clear())  # only this thread releases it, afterwards
    assert not slow.ended.is_set()
    slow.release.set()
    poll(lambda: tether.statistics().tasks_live == 0, "the adopted task to end")
    assert slow.ended.is_set()


def test_drop_of_a_guard_that_a_task_owns_by_a_thread_of_the_program_waits_for_nothing():
    # fault 2
    made, release = threading.Event(), threading.Event()

    def owner():
        slow = Slow()
        SMUGGLED.append(slow.take())
        made.slow = slow
        made.set()
        await_event(release)

    guard = dedicated(owner)
    await_event(made)
    SMUGGLED.clear()
    assert not made.slow.ended.is_set()
    made.slow.release.set()
    release.set()
    assert guard.join() is None
    await_event(made.slow.ended)


def test_drop_inside_a_task_that_owns_it_waits(run):
    # G1
    def entry():
        slow = Slow()
        guard = slow.take()
        slow.soon()
        del guard
        return slow.ended.is_set()

    assert run(entry)


@pytest.mark.parametrize("depth", [0, 1, 5])
def test_drop_on_the_guarded_task_or_below_it_waits_for_nothing(depth, run):
    # fault 2, G5
    given, dropped = threading.Event(), []

    def below(n):
        if n == 0:
            SMUGGLED.clear()
            dropped.append(True)
        else:
            run(below, n - 1)

    def entry():
        await_event(given)
        below(depth)

    SMUGGLED.append(dedicated(entry))
    given.set()
    poll(lambda: tether.statistics().tasks_live == 0, "the adopted task to end")
    assert dropped == [True]


def test_drop_by_a_child_of_the_owner_waits_for_nothing(run):
    # fault 2: the owner waits for the child, so the child must not wait for what is the owner's
    def owner():
        slow = Slow()
        SMUGGLED.append(slow.take())
        run(lambda: SMUGGLED.clear())
        early = slow.ended.is_set()
        slow.release.set()
        await_event(slow.ended)
        return early

    assert dedicated(owner).join() is False


# ---- objects that hold it -------------------------------------------------------------------------------------------


def in_attribute(guard):
    token = Token()
    token.guard = guard
    return token


def in_class_attribute(guard):
    return type("Holder", (), {"guard": guard})


def in_module(guard):
    module = type(sys)("held")
    module.guard = guard
    return module


def in_dict_value(guard):
    return {"guard": guard}


def in_dict_key(guard):
    return {guard: "value"}


def in_set(guard):
    return {guard}


def in_tuple(guard):
    return (guard,)


def in_closure(guard):
    return lambda: guard


def in_default(guard):
    def function(guard=guard):
        return guard

    return function


def in_bound_method(guard):
    return guard.join


def in_context(guard):
    context = contextvars.Context()
    context.run(VARIABLE.set, guard)
    return context


def in_exception(guard):
    return ValueError(guard)


def in_frame_of_a_traceback(guard):
    def fail(guard):
        raise ValueError("kept")

    try:
        fail(guard)
    except ValueError as error:
        return error.with_traceback(error.__traceback__.tb_next)
    finally:
        del guard  # this function's frame is kept by the exception, too


def in_weak_key_dictionary_value(guard):
    token = Token()
    return weakref.WeakKeyDictionary({token: guard}), token


HOMES = [
    in_attribute,
    in_dict_value,
    in_dict_key,
    in_set,
    in_tuple,
    in_closure,
    in_default,
    in_bound_method,
    in_context,
    in_exception,
    in_frame_of_a_traceback,
    in_weak_key_dictionary_value,
]
OF_THE_COLLECTOR = [in_class_attribute, in_module]
"""A class is a cycle; without a GIL a module, too, goes only with a collection."""


@pytest.mark.parametrize("home", HOMES, ids=lambda home: home.__name__)
def test_guard_is_joined_when_what_holds_it_goes(home):
    # G1
    slow = Slow()
    held = home(slow.take())
    assert tether.statistics().guards == 1
    slow.soon()
    del held
    assert slow.ended.is_set()
    assert tether.statistics().guards == 0


@pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")) and sys.version_info < (3, 14),
    reason="free-threaded CPython 3.13 makes classes and modules immortal once there are threads",
)
@pytest.mark.parametrize("home", OF_THE_COLLECTOR, ids=lambda home: home.__name__)
def test_guard_of_what_the_collector_frees_is_adopted(home):
    # fault 2, G1: nothing waits
    slow = Slow()
    held = home(slow.take())
    watch = weakref.ref(held)
    cycle = [held]
    cycle.append(cycle)
    del held, cycle
    gc.collect()
    assert watch() is None
    assert not slow.ended.is_set()
    slow.release.set()
    await_event(slow.ended)


def test_deleted_class_attribute_joins_its_guard():
    # G1
    slow = Slow()
    held = in_class_attribute(slow.take())
    slow.soon()
    del held.guard
    assert slow.ended.is_set()


def test_weak_containers_do_not_keep_a_guard():
    # G1: the last strong reference joins; the containers are told before the wait, and find no dead guard
    slow = Slow()
    values = weakref.WeakValueDictionary({"guard": slow.guard})
    keys = weakref.WeakKeyDictionary({slow.guard: "value"})
    members = weakref.WeakSet([slow.guard])
    told = []
    weakref.finalize(slow.guard, lambda: told.append(slow.ended.is_set()))
    assert (len(values), len(keys), len(members)) == (1, 1, 1)
    slow.soon()
    guard = slow.take()
    del guard
    assert slow.ended.is_set()
    assert (len(values), len(keys), len(members)) == (0, 0, 0)
    assert len(told) == 1


def test_weak_callback_of_a_dropped_guard_may_use_tether():
    # fault 2: it runs inside the destructor, before the wait
    slow, results = Slow(), []

    def gone(ref):
        assert ref() is None
        results.append(tether.spawn(int, 5).join())
        results.append(dedicated(int, 6).join())
        slow.release.set()  # else the drop would wait for ever

    watch = weakref.ref(slow.guard, gone)
    guard = slow.take()
    del guard
    assert results == [5, 6]
    assert slow.ended.is_set()
    assert watch() is None


def test_failing_weak_callback_does_not_keep_the_drop_from_joining():
    # G1, G6
    def gone(_):
        raise KeyError("callback")

    with Unraisables() as unraisable:
        slow = Slow()
        watch = weakref.ref(slow.guard, gone)
        guard = slow.take()
        slow.soon()
        del guard
        assert slow.ended.is_set()
    assert unraisable.types == [KeyError]
    assert watch() is None


def test_kept_exception_of_the_program_keeps_the_guard_of_its_frames():
    # G1: armed while somebody holds the traceback, joined when it goes
    slow = Slow()
    error = in_frame_of_a_traceback(slow.take())
    assert tether.statistics().guards == 1
    slow.soon()
    del error
    assert slow.ended.is_set()


def test_guard_in_sys_last_exception_is_joined_when_it_is_replaced():
    # G1
    slow = Slow()
    names = ["last_exc"] if sys.version_info >= (3, 12) else ["last_value"]
    for name in names:
        setattr(sys, name, in_frame_of_a_traceback(slow.take()))
        assert tether.statistics().guards == 1
        slow.soon()
        delattr(sys, name)
    assert slow.ended.is_set()


# ---- what a task leaves ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["return", "raise", "cancel"])
@pytest.mark.parametrize("where", ["context variable", "thread-local"])
def test_guard_in_a_context_variable_or_thread_local_of_a_task_is_joined_at_its_end(where, ending, run):
    # G1, G9: dropped while the task is still the current one, so it waits
    slows = []

    def entry():
        slow = Slow()
        slows.append(slow)
        if where == "context variable":
            VARIABLE.set(slow.take())
        else:
            LOCAL.guard = slow.take()
        slow.soon()
        if ending == "raise":
            raise ValueError
        if ending == "cancel":
            tether.current().cancel()
            tether.checkpoint()

    with contextlib.suppress(ValueError, tether.TaskKilled):
        run(entry)
    assert slows[0].ended.is_set()
    assert tether.statistics().guards == 0


def test_guard_in_a_context_that_the_spawner_gave_stays_armed(run):
    # G1: the context is the spawner's, and so is the guard in the end
    slows = []

    def entry():
        slows.append(Slow())
        VARIABLE.set(slows[0].take())

    context = contextvars.Context()
    tether.options(context=context).spawn(entry).join()
    assert tether.statistics().guards == 1
    guard = context[VARIABLE]
    assert guard.task.parent is None
    slows[0].release.set()
    assert guard.join() is None


@pytest.mark.parametrize("how", ["dropped", "collected", "detached"])
def test_guard_in_an_exit_value_that_nobody_takes_is_not_forgotten(how):
    # G1, G9
    slows = []

    def entry():
        slows.append(Slow())
        return [slows[0].take()]

    outer = dedicated(entry)
    poll(outer.done, "the end of the outer task")
    (slow,) = slows
    if how == "dropped":
        slow.soon()
        del outer
        assert slow.ended.is_set()
    elif how == "collected":
        cycle = [outer]
        cycle.append(cycle)
        del outer, cycle
        gc.collect()
        assert not slow.ended.is_set()
        slow.release.set()
    else:
        slow.soon()
        outer.detach()
        del outer
    poll(lambda: tether.statistics().tasks_live == 0, "the inner task to end")
    assert slow.ended.is_set()


def _in_a_closure(guard):
    return lambda: guard


HOLDERS = {
    "list": lambda guard: [guard],
    "tuple": lambda guard: (1, guard),
    "dict": lambda guard: {"guard": guard},
    "nested": lambda guard: [{"guards": ({"guard": guard},)}],
    "partial": lambda guard: functools.partial(print, guard),
    "closure": _in_a_closure,
}


@pytest.mark.parametrize("holder", HOLDERS.values(), ids=HOLDERS)
def test_guard_inside_an_argument_is_dropped_by_its_task(holder):
    # G1: also where another thread made what holds it, and without a GIL counts who refers to it
    for _ in range(3):
        slow, let_go = Slow(), threading.Event()
        task = dedicated(lambda held, let_go=let_go: await_event(let_go), holder(slow.take()))
        slow.soon()
        let_go.set()  # nobody but the task has it now
        task.join()
        assert slow.ended.is_set()


@pytest.mark.parametrize("holder", HOLDERS.values(), ids=HOLDERS)
def test_guard_inside_a_result_is_dropped_by_who_has_it(holder):
    # G1: the same on the way back
    for _ in range(3):
        slows = []

        def entry(slows=slows):
            slows.append(Slow())
            return holder(slows[0].take())

        result = dedicated(entry).join()
        slows[0].soon()
        del result
        assert slows[0].ended.is_set()


def test_guard_in_the_exit_value_of_a_detached_task_is_not_forgotten():
    # G1: the value goes when the task ends, on its thread
    slows, go = [], threading.Event()

    def entry():
        slows.append(Slow())
        await_event(go)
        return slows[0].take()

    dedicated(entry).detach()
    poll(lambda: slows, "the inner task")
    go.set()
    slows[0].release.set()
    poll(lambda: tether.statistics().tasks_live == 0, "the tasks to end")
    assert slows[0].ended.is_set()
    poll(lambda: tether.statistics().guards == 0, "the guards to go")


def test_guard_in_the_failure_of_a_task_is_joined_with_it(run):
    # G1, G6: the frames of the failed task are cleared, and its guards go with them
    slows = []

    def entry():
        slow = Slow()
        slows.append(slow)
        guard = slow.take()
        slow.soon()
        raise ValueError(guard.task.id)

    with pytest.raises(ValueError) as caught:
        run(entry)
    assert slows[0].ended.is_set()
    assert caught.value.__traceback__ is not None


def test_guard_in_the_arguments_of_a_failure_travels_with_it(run):
    # G1, G3: an exception that carries a guard brings it to who catches it
    def entry():
        raise ValueError(tether.spawn(int, 5))

    with pytest.raises(ValueError) as caught:
        run(entry)
    assert caught.value.args[0].join() == 5


# ---- at exit --------------------------------------------------------------------------------------------------------

EXIT = """
    import atexit, contextvars, gc, os, sys, threading, weakref
    import tether
    from support import dedicated
    import test_guard_homes as homes

    def slow():
        tether.sleep(0.05)
        os.write(1, b"ended\\n")

    def spawn():
        return dedicated(slow)
"""


@pytest.mark.parametrize("home", [*HOMES, *OF_THE_COLLECTOR], ids=lambda home: home.__name__)
def test_guard_that_a_global_holds_is_joined_at_exit(home, run_python):
    # fault 9, G1
    assert run_python(EXIT + f"    held = homes.{home.__name__}(spawn())\n", check=True).out == "ended\n"


@pytest.mark.parametrize(
    "body",
    [
        "local = threading.local(); local.guard = spawn()",
        "variable = contextvars.ContextVar('v'); variable.set(spawn())",
        "sys.last_value = sys.last_exc = homes.in_frame_of_a_traceback(spawn())",
        "held = dedicated(lambda: [spawn()])",
        "tether.spawn(spawn)\n    held = weakref.WeakSet()",
        "dedicated(spawn).detach()",
        "tether.spawn(lambda: spawn()).detach()",
        "held = threading.Thread(target=lambda: setattr(held, 'guard', spawn())); held.start(); held.join()",
        "held = spawn(); weakref.finalize(held, os.write, 1, b'')",
        "held = spawn(); atexit.register(held.done)",
        "sys.unraisablehook = lambda report, held=spawn(): None",
        "held = spawn(); held = [held]; held.append(sys.modules); sys.modules['held'] = held",
    ],
)
def test_guard_in_an_odd_place_is_joined_at_exit(body, run_python):
    # fault 9, G1
    ran = run_python(EXIT + f"    {body}\n", args=("-W", "ignore::ResourceWarning"))
    assert (ran.rc, ran.out, ran.err) == (0, "ended\n", "")


def test_program_that_dies_of_an_exception_joins_the_guards_of_its_frames(run_python):
    # fault 9: sys.last_exc keeps them
    code = (
        EXIT
        + """
    def main():
        guard = spawn()
        raise ValueError("the program's own")

    main()
    """
    )
    ran = run_python(code)
    assert (ran.rc, ran.out) == (1, "ended\n")
    assert "the program's own" in ran.err
    assert "tether" not in ran.err.replace("import tether", "")
