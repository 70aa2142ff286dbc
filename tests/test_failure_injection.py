"""Every operation of the public API with the nth request for memory, or for a thread, refused (faults 13, 14).

Each works or says that memory (a thread) is missing; then everything is as it was: guards that were to be moved are
their owner's and can be joined, nothing is registered, nothing is kept alive. How it is done: scarcity.py.
"""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import functools
import io
import operator
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import tether
from scarcity import KINDS, Operation, Outcome, Step, sweep
from support import Token, await_event, dedicated, poll
from tether import _core

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

OPERATIONS: list[Operation] = []
PYTHON: list[Operation] = []
"""Those that are Python code which makes functions: CPython up to 3.13 crashes when it finds no memory for one."""

tether.spawn(int).join()  # the first spawn of a process is swept in test_failure_at_first_use.py


def operation(*expected: type[BaseException]) -> Callable[[Operation], Operation]:
    """Registers an operation; `expected`: what it may raise beside MemoryError."""

    def add(fn: Operation) -> Operation:
        fn.expected = expected  # type: ignore[attr-defined]
        OPERATIONS.append(fn)
        return fn

    return add


# What runs while memory is scarce is C code: the interpreter itself loses exceptions when it finds no memory for the
# traceback of a Python frame ("returned NULL without setting an exception").

give: Callable[..., Any] = {}.get
"""give(None, x) returns x and asks for no memory: a task that cannot fail itself."""

fail: Callable[..., Any] = {}.pop
"""fail(x) raises KeyError(x)."""


def count(*args: object, **kwargs: object) -> int:
    return len(args) + len(kwargs)


def running(*values: object) -> tuple[tether.JoinGuard[Any], threading.Event]:
    """A task that runs on a thread of its own until the event is set."""
    begun, go = threading.Event(), threading.Event()

    def wait() -> tuple[object, ...]:
        begun.set()
        await_event(go)
        return values

    guard = dedicated(wait)
    await_event(begun)
    return guard, go


def polite() -> tether.JoinGuard[Any]:
    """A task that waits in tether until it is cancelled."""
    begun = threading.Event()

    def wait() -> None:
        begun.set()
        tether.sleep(1000)

    guard = dedicated(wait)
    await_event(begun)
    return guard


def finished(fn: Callable[..., Any], *args: object) -> tether.JoinGuard[Any]:
    """A task that has ended and was not joined."""
    guard = dedicated(fn, *args)
    poll(guard.done)
    return guard


# ---- spawn ---------------------------------------------------------------------------------------------------------


def spawned(out: Outcome, result: object) -> None:
    if not out.failed:
        assert out.value.join() == result


@operation()
def spawn_without_arguments(token: Token) -> Step:
    spawned((yield functools.partial(tether.spawn, int)), 0)


@operation()
def spawn_with_two_arguments(token: Token) -> Step:
    spawned((yield functools.partial(tether.spawn, give, None, token)), token)


@operation()
def spawn_with_five_arguments(token: Token) -> Step:
    spawned((yield functools.partial(tether.spawn, count, 1, 2, 3, 4, token)), 5)


@operation()
def spawn_with_keyword_arguments(token: Token) -> Step:
    spawned((yield functools.partial(tether.spawn, count, token, a=1, b=2, c=token)), 4)


@operation()
def spawn_in_a_context_that_is_not_empty(token: Token) -> Step:
    variable: contextvars.ContextVar[Token] = contextvars.ContextVar("variable")
    reset = variable.set(token)
    out = yield functools.partial(tether.spawn, variable.get)
    variable.reset(reset)
    spawned(out, token)


@operation()
def spawn_that_moves_guards(token: Token) -> Step:
    one, two = tether.spawn(give, None, token), tether.spawn(give, None, token)
    mover = functools.partial(tether.spawn, lambda *guards: guards, one, [two])
    out = yield mover
    mine = (one, [two]) if out.failed else out.value.join()
    assert mine[0].join() is token
    assert mine[1][0].join() is token


@operation()
def spawn_on_a_scope_that_moves_a_guard(token: Token) -> Step:
    inner = tether.spawn(give, None, token)
    with tether.scope() as s:
        out = yield functools.partial(s.spawn, lambda guard: guard.join(), inner)
        assert len(s.tasks()) == (0 if out.failed else 1)
    if out.failed:
        assert inner.join() is token
    else:
        assert out.value.join() is token


@operation()
def spawn_that_moves_a_guard_in_a_closure(token: Token) -> Step:
    inner = tether.spawn(give, None, token)
    out = yield functools.partial(tether.spawn, lambda: inner.join())
    assert (inner if out.failed else out.value).join() is token


def _given_all(token: Token, **more: Any) -> tether.JoinGuard[Any]:
    return tether.options(
        name="named", context=contextvars.copy_context(), must_join=True, at_exit="cancel", **more
    ).spawn(give, None, token)


@operation()
def spawn_with_options(token: Token) -> Step:
    spawned((yield functools.partial(_given_all, token)), token)


@operation()
def spawn_of_a_restartable_task(token: Token) -> Step:
    run = tether.options(restart=tether.Restart(max_restarts=1)).spawn
    out = yield functools.partial(run, give, None, 5)
    spawned(out, 5)


PYTHON.append(spawn_of_a_restartable_task)


@operation()
def spawn_of_a_dedicated_task(token: Token) -> Step:
    spawned((yield functools.partial(_given_all, token, dedicated=True)), token)


@operation()
def spawn_with_a_stack_of_its_own(token: Token) -> Step:
    spawned((yield functools.partial(_given_all, token, stack_size=1 << 20)), token)


@operation()
def spawn_of_a_dedicated_task_on_a_scope(token: Token) -> Step:
    with tether.scope() as s:
        out = yield functools.partial(s.options(dedicated=True).spawn, give, None, token)
        assert not s.cancelled
        assert out.failed or out.value.join() is token


@operation(TypeError)
def spawn_of_what_cannot_be_called(token: Token) -> Step:
    assert (yield functools.partial(tether.spawn, 5)).failed


@operation(ValueError)
def options_that_make_no_sense(token: Token) -> Step:
    assert (yield functools.partial(tether.options, at_exit="never")).failed


@operation(tether.OwnershipError)
def spawn_with_the_guard_of_somebody_else(token: Token) -> Step:
    theirs = tether.spawn(give, None, token)
    thief = tether.spawn(list, map(functools.partial(tether.spawn, give, None), [theirs]))
    assert (yield thief.join).failed
    assert theirs.join() is token


# ---- join and its relatives ----------------------------------------------------------------------------------------


def joined(out: Outcome, guard: tether.JoinGuard[Any], result: object) -> None:
    """A join that failed has taken nothing."""
    assert (guard.join() if out.failed else out.value) is result


@operation()
def join_in_place(token: Token) -> Step:
    guard = tether.spawn(give, None, token)
    joined((yield guard.join), guard, token)


@operation()
def join_of_an_ended_task(token: Token) -> Step:
    guard = finished(give, None, token)
    joined((yield guard.join), guard, token)


@operation()
def join_elsewhere(token: Token) -> Step:
    guard = tether.spawn(give, None, token)
    joined((yield functools.partial(guard.join, timeout=60)), guard, token)


@operation(KeyError)
def join_of_a_failed_task(token: Token) -> Step:
    guard = finished(fail, token)
    out = yield guard.join
    if isinstance(out.exception, MemoryError):
        with pytest.raises(KeyError):
            guard.join()
    else:
        assert out.exception.args == (token,)


@operation(KeyError)
def join_in_place_of_a_failing_task(token: Token) -> Step:
    guard = tether.spawn(fail, 1)
    assert (yield guard.join).failed  # the task itself may fail for want of memory
    with pytest.raises(tether.ReapedError):
        guard.join()


@operation(tether.TaskKilled)
def join_of_a_cancelled_task(token: Token) -> Step:
    guard = tether.spawn(give, None, token)
    assert guard.cancel("not wanted")
    out = yield guard.join
    if isinstance(out.exception, MemoryError):
        with pytest.raises(tether.TaskKilled, match="not wanted"):
            guard.join()
    else:
        assert isinstance(out.exception, tether.TaskKilled)


@operation(TimeoutError)
def join_that_times_out(token: Token) -> Step:
    guard, go = running(token)
    out = yield functools.partial(guard.join, 0)
    assert out.failed
    go.set()
    assert guard.join() == (token,)


@operation(tether.ReapedError)
def join_again(token: Token) -> Step:
    guard = tether.spawn(give, None, token)
    guard.join()
    assert (yield guard.join).failed


@operation(tether.OwnershipError)
def join_by_somebody_else(token: Token) -> Step:
    guard = tether.spawn(give, None, token)
    intruder = tether.spawn(
        list, map(operator.methodcaller("join"), [guard])
    )  # map: the capture walk does not look inside
    assert (yield intruder.join).failed
    assert guard.join() is token


@operation()
def exit_value_of_a_completed_task(token: Token) -> Step:
    guard = finished(give, None, token)
    out = yield guard.exit_value
    assert (guard.exit_value() if out.failed else out.value).value is token


@operation()
def exit_value_of_a_failed_task(token: Token) -> Step:
    guard = finished(fail, token)
    out = yield guard.exit_value
    end = guard.exit_value() if out.failed else out.value
    assert end.exception.args == (token,)


@operation()
def exit_value_of_a_cancelled_task(token: Token) -> Step:
    guard = tether.spawn(give, None, token)
    guard.cancel()
    out = yield guard.exit_value
    assert (guard.exit_value() if out.failed else out.value) == tether.Killed(tether.KillReason.REQUESTED)


@operation()
def join_that_receives_guards(token: Token) -> Step:
    with tether.scope() as s:
        handle = s.options(dedicated=True).spawn(lambda: [tether.spawn(give, None, token)])
        poll(handle.done)
        out = yield handle.join
        assert (handle.join() if out.failed else out.value)[0].join() is token


@operation()
def with_a_guard(token: Token) -> Step:
    guard = tether.spawn(give, None, token)
    out = yield functools.partial(guard.__exit__, None, None, None)
    if out.failed:
        assert guard.join() is token


@operation(KeyError)
def with_a_guard_of_a_failed_task(token: Token) -> Step:
    guard = finished(fail, token)
    out = yield functools.partial(guard.__exit__, None, None, None)
    if not isinstance(out.exception, KeyError):
        with pytest.raises(KeyError):
            guard.join()


@operation()
def with_a_guard_and_a_failing_body(token: Token) -> Step:
    guard = polite()
    error = KeyError(token)
    out = yield functools.partial(guard.__exit__, KeyError, error, None)
    assert out.failed or out.value is False
    if not out.failed:
        assert guard.done()
    else:
        guard.__exit__(KeyError, error, None)


# ---- other things to do with a guard -------------------------------------------------------------------------------


@operation()
def done(token: Token) -> Step:
    guard = tether.spawn(give, None, token)
    assert (yield guard.done).value is False
    assert guard.join() is token


@operation()
def cancel_with_a_reason(token: Token) -> Step:
    guard = tether.spawn(give, None, token)
    out = yield functools.partial(guard.cancel, "a reason")
    if out.failed:
        guard.cancel()
    with pytest.raises(tether.TaskKilled):
        guard.join()


@operation()
def cancel_of_a_sleeping_task(token: Token) -> Step:
    guard = polite()
    out = yield guard.cancel
    if out.failed:
        guard.cancel()
    with pytest.raises(tether.TaskKilled):
        guard.join()


@operation()
def kill_of_a_running_task(token: Token) -> Step:
    guard = polite()
    out = yield guard.kill
    if out.failed:
        guard.kill()
    with pytest.raises(tether.TaskKilled):
        guard.join()


@operation()
def send_to_a_task(token: Token) -> Step:
    to, go = running()
    guard = tether.spawn(give, None, token)
    ref = to.task
    out = yield functools.partial(guard.send, ref)
    go.set()
    to.join()
    assert guard.join() is token  # what the task owned when it ended came back to us
    assert not out.failed or isinstance(out.exception, MemoryError)


@operation()
def send_to_a_scope(token: Token) -> Step:
    guard = tether.spawn(give, None, token)
    with tether.scope() as s:
        yield functools.partial(guard.send, s)
    assert guard.join() is token


@operation()
def detach_of_a_waiting_task(token: Token) -> Step:
    guard = tether.spawn(give, None, token)
    out = yield guard.detach
    if out.failed:
        assert guard.join() is token
    else:
        poll(lambda: not out.value.is_alive())


@operation(tether.OwnershipError)
def detach_of_a_scopes_task(token: Token) -> Step:
    with tether.scope() as s:
        assert (yield s.spawn(give, None, token).detach).failed


@contextlib.contextmanager
def unraisables() -> Iterator[list[Any]]:
    """Collects what reaches sys.unraisablehook. The hook is C code, as all that runs while memory is scarce; what it
    cannot append goes to standard error."""
    reports: list[Any] = []
    before, sys.unraisablehook = sys.unraisablehook, reports.append
    try:
        yield reports
    finally:
        sys.unraisablehook = before
        reports.clear()


def gone(ref: tether.TaskRef) -> None:
    """G1: the drop did not return before the task had ended."""
    assert not ref.is_alive()


@operation()
def drop_of_a_waiting_task(token: Token) -> Step:
    box = [tether.spawn(give, None, token)]
    ref = box[0].task
    with unraisables():
        yield box.clear
    gone(ref)


@operation()
def drop_of_a_failing_task(token: Token) -> Step:
    box = [tether.spawn(fail, 1)]
    ref = box[0].task
    with unraisables():
        yield box.clear
    gone(ref)


@operation()
def drop_of_a_running_task(token: Token) -> Step:
    guard, go = running(token)
    box = [guard]
    ref = guard.task
    del guard
    timer = threading.Timer(0.002, go.set)
    timer.start()
    yield box.clear
    gone(ref)
    timer.join()


@operation()
def drop_of_an_ended_task(token: Token) -> Step:
    box = [finished(give, None, token)]
    ref = box[0].task
    yield box.clear
    gone(ref)


@operation()
def drop_of_an_ended_task_that_failed(token: Token) -> Step:
    box = [finished(fail, 1)]
    ref = box[0].task
    with unraisables() as seen:
        out = yield box.clear
        assert seen or out.failures  # G6; what failed may have been the report
    gone(ref)


@operation()
def drop_of_a_guard_that_must_be_joined(token: Token) -> Step:
    box = [tether.options(must_join=True).spawn(give, None, token)]
    ref = box[0].task
    with unraisables():
        yield box.clear
    gone(ref)


@operation(TypeError)
def copy_of_a_guard(token: Token) -> Step:
    guard = tether.spawn(give, None, token)
    assert (yield guard.__copy__).failed
    assert guard.join() is token


@operation(TypeError, pickle.PicklingError)
def pickle_of_a_guard(token: Token) -> Step:
    guard = tether.spawn(give, None, token)
    assert (yield functools.partial(guard.__reduce_ex__, 2)).failed
    assert guard.join() is token


# ---- looking around ------------------------------------------------------------------------------------------------


@operation()
def reprs(token: Token) -> Step:
    guard, go = running(token)
    scope = tether.scope(name="name")
    things = [guard, guard.task, tether.current(), scope, tether.Completed(1), tether.TaskState.NEW]
    out = yield lambda: [repr(thing) for thing in things]
    assert out.failed or len(out.value) == len(things)
    go.set()
    guard.join()


@operation()
def properties_of_a_reference(token: Token) -> Step:
    guard, go = running(token)
    ref = guard.task

    def look() -> tuple[object, ...]:
        return (guard.task, guard.is_static, ref.id, ref.name, ref.state, ref.parent, ref.spawned_at, ref.native_id,
                ref.is_alive(), ref == guard.task, hash(ref))  # fmt: skip

    out = yield look
    assert out.failed or out.value[-3] is True
    go.set()
    guard.join()


@operation()
def tasks(token: Token) -> Step:
    guard, go = running(token)
    out = yield tether.tasks
    assert out.failed or guard.task in out.value
    go.set()
    guard.join()


@operation()
def tasks_of_a_scope(token: Token) -> Step:
    with tether.scope() as s:
        s.spawn(give, None, token)
        out = yield s.tasks
        assert out.failed or len(out.value) == 1


@operation(SystemError)
def dump(token: Token) -> Step:
    guard, go = running(token)
    text = io.StringIO()
    out = yield functools.partial(tether.dump, text)
    assert out.failed or "RUNNING" in text.getvalue()
    go.set()
    guard.join()


@operation()
def statistics(token: Token) -> Step:
    out = yield tether.statistics
    assert out.failed or out.value.tasks_live == 0


@operation()
def current(token: Token) -> Step:
    out = yield tether.current
    assert out.failed or out.value.id == 0


@operation()
def checkpoint(token: Token) -> Step:
    assert not (yield tether.checkpoint).failed


@operation()
def sleep(token: Token) -> Step:
    yield functools.partial(tether.sleep, 0.0001)


@operation()
def configure(token: Token) -> Step:
    yield functools.partial(tether.configure, check="warn")


@operation(tether.Cancelled)
def checkpoint_in_a_cancelled_scope(token: Token) -> Step:
    outs: list[Outcome] = []
    with tether.scope() as s:
        s.cancel()
        outs.append((yield tether.checkpoint))
    assert outs[0].failed


# ---- scopes --------------------------------------------------------------------------------------------------------


@operation()
def opening_a_scope(token: Token) -> Step:
    scope = tether.scope(name="name", timeout=60, on_error="wait")
    out = yield scope.__enter__
    if out.failed:
        scope.__enter__()  # as before: it was not entered
    assert scope.__exit__(None, None, None) is False


@operation()
def making_a_scope(token: Token) -> Step:
    out = yield functools.partial(tether.scope, name="name", timeout=60, on_error="wait")
    assert out.failed or out.value.timeout == 60


@operation()
def leaving_a_scope_with_waiting_tasks(token: Token) -> Step:
    scope = tether.scope()
    scope.__enter__()
    refs = [scope.spawn(give, None, token).task for _ in range(3)]
    out = yield functools.partial(scope.__exit__, None, None, None)
    assert not out.failed or isinstance(out.exception, MemoryError)
    for ref in refs:
        gone(ref)


@operation()
def leaving_a_scope_with_running_tasks(token: Token) -> Step:
    scope = tether.scope()
    go = threading.Event()
    refs = [scope.__enter__().options(dedicated=True).spawn(await_event, go).task]
    timer = threading.Timer(0.002, go.set)
    timer.start()
    yield functools.partial(scope.__exit__, None, None, None)
    for ref in refs:
        gone(ref)
    timer.join()


SETTLED = (BaseExceptionGroup, SystemError)
"""What to raise is chosen by Python code (tether/_settle.py); SystemError is the interpreter's own, see above."""


@operation(*SETTLED)
def leaving_a_scope_with_failures(token: Token) -> Step:
    scope = tether.scope(on_error="wait")
    scope.__enter__()
    handles = [scope.options(dedicated=True).spawn(fail, n) for n in range(2)]
    for handle in handles:
        poll(handle.done)
    refs = [handle.task for handle in handles]
    with unraisables() as seen:
        out = yield functools.partial(scope.__exit__, None, None, None)
        assert out.failed  # G2: never silently
        if isinstance(out.exception, BaseExceptionGroup):
            assert len(out.exception.exceptions) == 2
        else:
            assert len(seen) >= 2 or out.failures > 1  # G6: not lost, if anything could be said at all
    for ref in refs:
        gone(ref)


@operation(*SETTLED)
def a_scope_whose_task_and_body_fail(token: Token) -> Step:
    scope = tether.scope(name="name", on_error="wait")
    ref = scope.__enter__().options(dedicated=True).spawn(fail, token).task
    with unraisables():
        out = yield functools.partial(scope.__exit__, KeyError, KeyError(token), None)
    assert out.failed
    gone(ref)


@operation(SystemExit, SystemError)
def a_scope_whose_task_exits(token: Token) -> Step:
    scope = tether.scope()
    handle = scope.__enter__().options(dedicated=True).spawn(sys.exit, 3)
    poll(handle.done)
    with unraisables():
        out = yield functools.partial(scope.__exit__, None, None, None)
    assert out.failed


@operation(TimeoutError, *SETTLED)
def a_scope_that_times_out(token: Token) -> Step:
    scope = tether.scope(timeout=0.0005)
    ref = scope.__enter__().spawn(tether.sleep, 1000).task
    out = yield functools.partial(scope.__exit__, None, None, None)
    assert out.failed
    gone(ref)


@operation(tether.Cancelled, SystemError)
def a_scope_that_is_cancelled(token: Token) -> Step:
    scope = tether.scope()
    ref = scope.__enter__().options(dedicated=True).spawn(tether.sleep, 1000).task
    scope.cancel()
    out = yield functools.partial(scope.__exit__, tether.Cancelled, tether.Cancelled(), None)
    assert out.failed or out.value is True
    gone(ref)


@operation(tether.Cancelled)
def leaving_a_scope_inside_a_cancelled_one(token: Token) -> Step:
    # G2: that the leaver is cancelled, and that this cannot be said, is no reason to leave early.
    outer = tether.scope()
    outer.__enter__()
    inner = tether.scope()
    go = threading.Event()
    ref = inner.__enter__().options(dedicated=True).spawn(await_event, go).task
    outer.cancel()

    def release() -> None:
        poll(lambda: inner.cancelled, "the leaver to notice")
        go.set()

    releaser = threading.Thread(target=release)
    releaser.start()
    out = yield functools.partial(inner.__exit__, None, None, None)
    gone(ref)
    releaser.join()
    assert out.failed
    outer.__exit__(tether.Cancelled, tether.Cancelled(), None)


@operation()
def drop_of_a_scope_that_was_never_left(token: Token) -> Step:
    box = [tether.scope()]
    ref = box[0].__enter__().spawn(give, None, token).task
    with unraisables():
        yield box.clear
    poll(lambda: not ref.is_alive())


@operation(*SETTLED)
def scoped(token: Token) -> Step:
    out = yield functools.partial(tether.scoped, lambda s: s.spawn(give, None, token).join())
    assert out.failed or out.value is token


@operation(tether.DeadlockError)
def a_wait_that_can_never_end(token: Token) -> Step:
    # The child of a scope joins its own handle, if it finds it there already.
    box: list[Any] = []
    with tether.scope(on_error="wait") as s:
        handle = s.spawn(list, map(operator.methodcaller("join"), box))
        box.append(handle)
        out = yield handle.join
        assert out.failed or out.value == []
        box.clear()


# ---- C functions and memory ----------------------------------------------------------------------------------------

_isdigit = ctypes.cast(ctypes.CDLL(None).isdigit, ctypes.c_void_p).value
FUNCTION = tether.native.NativeFunction(_isdigit, "int (intptr_t, intptr_t, void *)")
"""A C function that answers 0 for parts that begin before 48, which is the code of "0"."""


@operation()
def a_loop(token: Token) -> Step:
    yield functools.partial(tether.native.parallel_for, FUNCTION, 40, threads=3)


@operation()
def a_prepared_function(token: Token) -> Step:
    out = yield functools.partial(tether.native.NativeFunction, FUNCTION)
    assert out.failed or out.value.address == FUNCTION.address


def large_region() -> tether.Region:
    """Large enough for a loop."""
    region = tether.Region(1_000_000)
    tether.native.fill(region, 3)
    return region


@operation()
def join_of_a_running_task_while_something_is_borrowed(token: Token) -> Step:
    region = tether.Region(4096)
    with region.share():
        guard = dedicated(tether.sleep, 0.002)
        out = yield guard.join
        if out.failed:
            guard.join()
    region.close()


@operation()
def fill_of_a_region(token: Token) -> Step:
    with large_region() as region:
        out = yield functools.partial(_core._fill, region, 7, "B")
        assert out.failed or tether.native.min(region) == 7
        region.borrow_mut().release()


@operation()
def copy_of_a_region(token: Token) -> Step:
    with large_region() as region, tether.Region(1_000_000) as other:
        out = yield functools.partial(_core._copy, other, region)
        assert tether.native.sum(other) == (0 if out.failed else 3_000_000)
        other.borrow_mut().release()
        region.borrow_mut().release()


@operation()
def sum_of_a_region(token: Token) -> Step:
    with large_region() as region:
        out = yield functools.partial(_core._reduce, 0, region, "B")
        assert out.failed or out.value == 3_000_000
        region.borrow_mut().release()


SWEEPS = [(fn, kind) for fn in OPERATIONS for kind in KINDS if fn not in PYTHON or kind not in KINDS[:2]]


@pytest.mark.timeout(900)  # a collection after each step, of all that the session has imported
@pytest.mark.parametrize(("operation", "inject"), SWEEPS, ids=lambda part: part.__name__)
def test_sweep(operation: Operation, inject: Callable[[Callable[[], Any], int], Outcome]) -> None:
    # fault 13, fault 14; G1, G2, G3, G9
    sweep(operation, inject)
