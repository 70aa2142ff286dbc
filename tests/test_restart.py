"""Restartable tasks: options(restart=Restart(...))."""

from __future__ import annotations

import contextlib
import contextvars
import copy
import functools
import gc
import io
import math
import os
import pickle
import queue
import socket
import sys
import threading
import types
import weakref
from collections.abc import Callable
from traceback import walk_tb
from typing import Any

import pytest

import tether
from support import (
    PLACES,
    WAIT,
    ThreadFailures,
    Token,
    Unraisables,
    await_event,
    dedicated,
    poll,
    resident_bytes,
)
from tether import Completed, Killed, KillReason, Restart, SendError
from tether import _restart as module
from tether._copies import Arguments

AT_ONCE = Restart(backoff=0)
EVER = Restart(max_restarts=10**9, backoff=0)
HOUR = Restart(backoff=3600.0)


def restarted(
    fn: Callable[..., Any], /, *args: Any, policy: Restart = AT_ONCE, **options: Any
) -> tether.JoinGuard[Any]:
    return tether.options(restart=policy, **options).spawn(fn, *args)


def run_lazy(fn: Callable[..., Any], policy: Restart = AT_ONCE) -> Any:
    return restarted(fn, policy=policy).join()


def run_elsewhere(fn: Callable[..., Any], policy: Restart = AT_ONCE) -> Any:
    return restarted(fn, policy=policy).join(timeout=WAIT)


def run_dedicated(fn: Callable[..., Any], policy: Restart = AT_ONCE) -> Any:
    return restarted(fn, policy=policy, dedicated=True).join()


RUNS = {"lazy": run_lazy, "elsewhere": run_elsewhere, "dedicated": run_dedicated}
everywhere = pytest.mark.parametrize("run", [pytest.param(RUNS[name], id=name) for name in PLACES])


class Failing:
    """Fails `times` times, then returns 42; counts its calls. Shared between attempts: it is the function."""

    def __init__(self, times: float, error: Callable[[int], BaseException] = lambda n: ValueError(f"no {n}")) -> None:
        self.times = times
        self.error = error
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        if self.calls <= self.times:
            raise self.error(self.calls)
        return 42


def earlier(failure: BaseException) -> list[str]:
    """Notes about earlier attempts."""
    return [note for note in failure.__notes__ if note.startswith("attempt ")]


class FakeClock:
    """Stands in for the module `time` in tether._restart."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    fake = FakeClock()
    monkeypatch.setattr(module, "time", fake)
    return fake


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The back-offs; nobody waits."""
    seconds: list[float] = []
    fake = types.SimpleNamespace(sleep=seconds.append, checkpoint=tether.checkpoint)
    monkeypatch.setattr(module, "_core", fake)
    return seconds


# ---- attempts and their count ---------------------------------------------------------------------------------------


@everywhere
def test_value_of_the_attempt_that_completes(run: Callable[..., Any]):
    fn = Failing(3)
    assert run(fn) == 42
    assert fn.calls == 4


@everywhere
def test_last_failure_tells_of_the_earlier_ones_in_order(run: Callable[..., Any]):
    def fail() -> None:
        calls.append(1)
        raise (KeyError if len(calls) == 1 else OSError)(f"number {len(calls)}")

    calls: list[int] = []
    with pytest.raises(OSError, match="number 3") as caught:
        run(fail, Restart(max_restarts=2, backoff=0))
    first, second = earlier(caught.value)
    line = fail.__code__.co_firstlineno + 2
    assert first == f"attempt 1 failed: KeyError: 'number 1' ({__file__}:{line})"
    assert second == f"attempt 2 failed: OSError: number 2 ({__file__}:{line})"
    notes = caught.value.__notes__
    assert notes[0].startswith("in task 'fail-")
    assert "test_restart.py" in notes[0]
    assert notes[-1] == "not run again: 2 restarts within 60 s are allowed"


@pytest.mark.parametrize("most", [0, 1, 2, 7])
def test_n_restarts_are_n_and_one_attempts(most: int):
    fn = Failing(math.inf)
    with pytest.raises(ValueError, match=f"^no {most + 1}\n"):
        run_lazy(fn, Restart(max_restarts=most, backoff=0))
    assert fn.calls == most + 1


def test_only_the_last_ten_failures_are_noted():
    fn = Failing(math.inf)
    with pytest.raises(ValueError) as caught:
        run_lazy(fn, Restart(max_restarts=25, backoff=0))
    assert [note.split()[1] for note in earlier(caught.value)] == [str(n) for n in range(16, 26)]


def test_long_and_broken_messages_make_short_notes():
    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    errors = [ValueError("x" * 1_000_000), ValueError("two\nlines"), Broken(), ValueError()]
    assert (outcome := restarted(Failing(3, lambda n: errors[n - 1])).exit_value()).value == 42
    assert all(len(note) < 1000 for note in outcome.notes)
    assert "ValueError: two (" in outcome.notes[1]
    assert "Broken (" in outcome.notes[2]


def test_a_class_that_refuses_notes_is_raised_all_the_same():
    class Silent(Exception):
        def add_note(self, note: str) -> None:
            raise TypeError("no notes")

    with pytest.raises(Silent):
        run_lazy(Failing(math.inf, lambda n: Silent()))


def test_window_slides(clock: FakeClock):
    fn = Failing(math.inf)

    def fail() -> None:
        clock.now += 4.0
        fn()

    # Every failure finds two restarts within the last ten seconds, and three are allowed.
    guard = restarted(fail, policy=Restart(max_restarts=3, within=10.0, backoff=0))
    poll(lambda: fn.calls > 200, "many restarts")
    guard.cancel()
    assert isinstance(guard.exit_value(), Killed)


@pytest.mark.parametrize(("step", "calls"), [(5.0, 3), (5.01, None)])
def test_window_ends_after_within(clock: FakeClock, step: float, calls: int | None):
    fn = Failing(100 if calls is None else math.inf)

    def fail() -> int:
        clock.now += step
        return fn()

    policy = Restart(max_restarts=2, within=10.0, backoff=0)  # the third failure comes two steps after the first
    if calls is None:
        assert run_lazy(fail, policy) == 42
    else:
        with pytest.raises(ValueError, match="no 3"):
            run_lazy(fail, policy)


def test_backoff_doubles_while_the_window_lasts(clock: FakeClock, slept: list[float]):
    def fail() -> int:
        clock.now += 100.0 if fn.calls == 4 else 0.0
        return fn()

    fn = Failing(6)
    assert run_lazy(fail, Restart(max_restarts=9, within=60.0, backoff=0.5)) == 42
    assert slept == [0.5, 1.0, 2.0, 4.0, 0.5, 1.0]


def test_backoff_does_not_overflow(clock: FakeClock, slept: list[float]):
    assert run_lazy(Failing(2000), Restart(max_restarts=10**6, backoff=1e300)) == 42
    assert max(slept) <= 3.0e9


def test_no_backoff_does_not_sleep(slept: list[float]):
    assert run_lazy(Failing(3)) == 42
    assert slept == []


@everywhere
def test_real_backoff(run: Callable[..., Any]):
    assert run(Failing(3), Restart(backoff=0.001)) == 42


@pytest.mark.parametrize(
    ("on", "error", "calls"),
    [
        (OSError, OSError, 2),
        (OSError, FileNotFoundError, 2),
        (OSError, ValueError, 1),
        ((OSError, ValueError), ValueError, 2),
        ((), ValueError, 1),
        (Exception, SystemExit, 1),
        (Exception, GeneratorExit, 1),
        (Exception, KeyboardInterrupt, 1),
        (BaseException, SystemExit, 2),
        (BaseException, GeneratorExit, 2),
        (BaseException, KeyboardInterrupt, 1),
        (KeyboardInterrupt, KeyboardInterrupt, 1),
        (BaseException, tether.Cancelled, 1),
        (BaseException, tether.KilledTask, 1),
    ],
)
def test_what_is_restarted_after(on: Any, error: type[BaseException], calls: int):
    # fault 29
    fn = Failing(1, lambda n: error())
    outcome = restarted(fn, policy=Restart(backoff=0, on=on)).exit_value()
    assert fn.calls == calls
    assert isinstance(outcome, Completed if calls == 2 else Killed)


def test_a_recursion_error_is_restarted():
    # G18: every attempt has a full recursion budget
    def deep(n: int) -> int:
        return n and 1 + deep(n - 1)

    def fail() -> int:
        calls.append(1)
        return deep(10**9) if len(calls) < 3 else deep(sys.getrecursionlimit() // 2)

    calls: list[int] = []
    assert run_lazy(fail) == sys.getrecursionlimit() // 2
    assert len(calls) == 3


# ---- the policy -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"max_restarts": -1}, ValueError),
        ({"max_restarts": 1.0}, TypeError),
        ({"max_restarts": True}, TypeError),
        ({"within": 0}, ValueError),
        ({"within": -1.0}, ValueError),
        ({"within": math.nan}, ValueError),
        ({"within": 10**400}, ValueError),
        ({"within": "1"}, TypeError),
        ({"backoff": -0.1}, ValueError),
        ({"backoff": math.inf}, ValueError),
        ({"backoff": math.nan}, ValueError),
        ({"backoff": 10**400}, ValueError),
        ({"backoff": None}, TypeError),
        ({"on": "ValueError"}, TypeError),
        ({"on": int}, TypeError),
        ({"on": [ValueError]}, TypeError),
        ({"on": (ValueError, 3)}, TypeError),
    ],
)
def test_bad_policies(given: dict[str, Any], error: type[Exception]):
    with pytest.raises(error):
        Restart(**given)


@pytest.mark.parametrize("restart", [3, True, Restart, "one_for_one", Failing(1)])
def test_restart_must_be_a_policy(restart: Any):
    with pytest.raises(TypeError, match=r"restart must be a tether\.Restart"):
        tether.options(restart=restart)


def test_a_policy_is_a_value():
    policy = Restart(5, 10.0, 0.5, (OSError, ValueError))
    same = Restart(max_restarts=5, within=10.0, backoff=0.5, on=(OSError, ValueError))
    assert policy == same
    assert hash(policy) == hash(same)
    assert policy != Restart()
    assert policy != (5, 10.0, 0.5, (OSError, ValueError))
    assert repr(policy) == "Restart(max_restarts=5, within=10.0, backoff=0.5, on=(OSError, ValueError))"
    assert repr(Restart()) == "Restart(max_restarts=3, within=60.0, backoff=0.1, on=Exception)"
    assert pickle.loads(pickle.dumps(policy)) == policy
    assert copy.deepcopy(policy) == policy
    for name in ("max_restarts", "within", "backoff", "on"):
        with pytest.raises(AttributeError, match="immutable"):
            setattr(policy, name, 1)
        with pytest.raises(AttributeError, match="immutable"):
            delattr(policy, name)
    with pytest.raises(AttributeError):
        policy.other = 1  # type: ignore[attr-defined]


def test_one_policy_serves_many_tasks():
    options = tether.options(restart=Restart(max_restarts=2, backoff=0))
    fns = [Failing(2) for _ in range(20)]
    assert [guard.join() for guard in [options.spawn(fn) for fn in fns]] == [42] * 20


# ---- arguments ------------------------------------------------------------------------------------------------------


@everywhere
def test_each_attempt_has_pristine_arguments(run: Callable[..., Any]):
    given = [1, {"two": [3]}]
    seen = []

    def fail(value: list[Any]) -> None:
        seen.append(copy.deepcopy(value))
        value[1]["two"].append(4)
        value.append(5)
        if len(seen) < 3:
            raise ValueError

    run_on = {run_lazy: {}, run_elsewhere: {}, run_dedicated: {"dedicated": True}}[run]
    guard = tether.options(restart=AT_ONCE, **run_on).spawn(fail, given)
    guard.join(timeout=WAIT if run is run_elsewhere else None)
    assert seen == [[1, {"two": [3]}]] * 3
    assert given == [1, {"two": [3]}]


def test_what_the_caller_does_after_the_spawn_is_not_seen():
    given = {"a": [1]}
    guard = restarted(lambda value: value, given)
    given["a"].append(2)
    given["b"] = []
    assert guard.join() == {"a": [1]}


def test_immutable_arguments_are_given_themselves():
    given = ("text" * 100, 10**30, frozenset({1}), (b"x" * 99, None), 2.5, len, int, Failing.__call__)
    got = tether.options(restart=AT_ONCE).spawn(lambda *args: args, *given).join()
    assert all(a is b for a, b in zip(given, got, strict=True))
    given = tuple(value for value in given if type(value) is not frozenset)
    beside_a_list = tether.options(restart=AT_ONCE).spawn(lambda *args: args, *given, [1]).join()
    assert all(a is b for a, b in zip(given, beside_a_list, strict=False))


SHARED: list[Callable[[], Any]] = [
    threading.Lock,
    threading.RLock,
    threading.Event,
    threading.Condition,
    threading.Semaphore,
    threading.BoundedSemaphore,
    functools.partial(threading.Barrier, 2),
    queue.Queue,
    queue.LifoQueue,
    queue.SimpleQueue,
    contextvars.copy_context,
    tether.scope,
    lambda: sys,
]


@pytest.mark.parametrize("make", SHARED)
def test_what_is_made_for_sharing_is_shared(make: Callable[[], Any]):
    thing = make()

    def look(plain: Any, in_list: list[Any], in_dict: dict[str, Any], in_tuple: Any, *, named: Any) -> list[bool]:
        return [part is thing for part in (plain, in_list[0][1], in_dict["x"], in_tuple[1], named)]

    given = thing, [[1, thing]], {"x": thing}, (set(), thing)
    assert tether.options(restart=AT_ONCE).spawn(look, *given, named=thing).join() == [True] * 5


def test_a_lock_as_a_key_is_shared():
    lock = threading.Lock()
    assert restarted(lambda table: next(iter(table)) is lock, {lock: []}).join()


def test_a_task_ref_may_be_given():
    with tether.scope() as s:
        ref = s.spawn(int).task
        assert restarted(lambda refs: refs[0] == ref, [ref]).join()


def test_arguments_that_share_go_on_sharing():
    part = [1]
    aliased = restarted(lambda a, b: (a is b["a"], a is not part), part, {"a": part}).join()
    assert aliased == (True, True)


def test_arguments_that_contain_themselves():
    loop: list[Any] = [1]
    loop.append(loop)
    fn = Failing(2)

    def look(value: list[Any]) -> bool:
        fn()
        return value[1] is value and value is not loop

    assert restarted(look, loop).join()


def test_keyword_arguments_are_copied_too():
    seen = []

    def fail(*, values: list[int], n: int) -> None:
        seen.append((list(values), n))
        values.append(n)
        if len(seen) < 2:
            raise ValueError

    tether.options(restart=AT_ONCE).spawn(fail, values=[1], n=7).join()
    assert seen == [([1], 7)] * 2


class NoCopy:
    def __deepcopy__(self, memo: object) -> None:
        raise RuntimeError("not me")


def generator() -> Any:
    yield 1


def open_file() -> Any:
    return open(os.devnull)


def coroutine() -> Any:
    async def nothing() -> None: ...

    made = nothing()
    made.close()
    return made


@pytest.mark.parametrize("make", [generator, coroutine, NoCopy, open_file, socket.socket, threading.local])
def test_what_cannot_be_had_twice_is_refused(make: Callable[[], Any]):
    value = make()
    never = []
    before = tether.statistics().tasks_live
    for args, kwargs, path in (
        ((value,), {}, "args[0]"),
        ((1, {"items": [0, value]}), {}, "args[1]['items'][1]"),
        ((), {"key": (value,)}, "kwargs['key'][0]"),
    ):
        with pytest.raises(SendError) as caught:
            tether.options(restart=AT_ONCE).spawn(lambda *a, **k: never.append(1), *args, **kwargs)
        error = caught.value
        assert isinstance(error, (TypeError, tether.TetherError))
        assert error.path == path
        assert error.value_type is type(value)
        assert error.hint
        assert error.path in str(error)
        assert error.hint in str(error)
    assert never == []
    assert tether.statistics().tasks_live == before
    if hasattr(value, "close"):
        value.close()


def test_paths_run_no_code_of_keys():
    class Key:
        def __repr__(self) -> str:
            raise RuntimeError("not called")

    with pytest.raises(SendError) as caught:
        restarted(print, {Key(): [generator()]})
    assert caught.value.path == "args[0][<Key>][0]"


def test_no_memory_for_the_copy_is_no_send_error():
    # fault 14
    class Large:
        def __deepcopy__(self, memo: object) -> None:
            raise MemoryError

    with pytest.raises(MemoryError):
        restarted(print, [Large()])


@pytest.mark.parametrize("how", ["argument", "nested", "closure", "partial", "default", "keyword"])
def test_guards_are_refused_and_stay_the_callers(how: str):
    # G3, G16
    guard = tether.spawn(int, 5)
    options = tether.options(restart=AT_ONCE)
    with pytest.raises(SendError) as caught:
        if how == "argument":
            options.spawn(lambda g: None, guard)
        elif how == "nested":
            options.spawn(lambda g: None, [{"g": guard}])
        elif how == "closure":
            options.spawn(lambda: guard)
        elif how == "partial":
            options.spawn(functools.partial(print, guard))
        elif how == "default":
            options.spawn(lambda g=guard: None)
        else:
            options.spawn(lambda g: None, g=guard)
    place = {"argument": "args[0]", "nested": "args[0][0]['g']", "keyword": "kwargs['g']"}
    expected = place.get(how, "the function")
    assert caught.value.path == ("args[0][0]['g']" if how == "nested" else expected)
    assert guard.join() == 5


def test_a_copy_that_fails_later_is_a_failed_attempt():
    class Once:
        copies = 0

        def __deepcopy__(self, memo: object) -> Once:
            Once.copies += 1
            if Once.copies == 2:
                raise OSError("busy")
            return Once()

    outcome = restarted(lambda thing: type(thing), Once()).exit_value()
    assert outcome.value is Once
    assert "OSError: busy" in outcome.notes[0]


# ---- what an attempt sees -------------------------------------------------------------------------------------------

variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)


@everywhere
@pytest.mark.parametrize("empty", [True, False])
def test_each_attempt_has_the_context_of_the_spawn(run: Callable[..., Any], empty: bool):
    # G18
    seen = []

    def fail() -> None:
        seen.append(variable.get())
        variable.set(99)
        if len(seen) < 3:
            raise ValueError

    def spawner() -> None:
        if not empty:
            variable.set(7)
        run(fail)
        assert variable.get() == (0 if empty else 7)

    contextvars.Context().run(spawner)
    assert seen == [0 if empty else 7] * 3


def test_a_context_of_ones_own_is_entered_each_time():
    context = contextvars.Context()
    seen = []

    def fail() -> None:
        seen.append(variable.get())
        variable.set(len(seen))
        if len(seen) < 3:
            raise ValueError

    restarted(fail, context=context).join()
    assert seen == [0, 1, 2]
    assert context[variable] == 3


@everywhere
def test_each_attempt_has_its_own_thread_locals(run: Callable[..., Any]):
    # G18
    local, seen = threading.local(), []
    local.x = "the caller's"

    def fail() -> None:
        seen.append(getattr(local, "x", None))
        local.x = Token()
        refs.append(weakref.ref(local.x))
        assert [ref() is None for ref in refs] == [True] * (len(refs) - 1) + [False]
        if len(seen) < 3:
            raise ValueError

    refs: list[weakref.ref[Token]] = []
    run(fail)
    assert seen == [None] * 3
    assert local.x == "the caller's"


@everywhere
def test_nothing_is_left_of_an_attempt_when_the_next_begins(run: Callable[..., Any]):
    # G9
    refs: list[weakref.ref[Any]] = []

    class Failure(Exception):
        pass

    def fail() -> None:
        assert [ref() for ref in refs] == [None] * len(refs)
        local, error = Token(), Failure()
        refs.extend((weakref.ref(local), weakref.ref(error)))
        if len(refs) < 6:
            raise error

    run(fail, Restart(backoff=0.001))
    assert len(refs) == 6


@everywhere
def test_no_exception_is_being_handled_in_an_attempt(run: Callable[..., Any]):
    # G18, fault 32
    def fail() -> None:
        assert sys.exc_info() == (None, None, None)
        fn()

    fn = Failing(3)
    try:
        raise KeyError
    except KeyError:
        run(fail)


def test_trace_hooks_are_set_for_each_attempt():
    # G18
    lines = []

    def trace(frame: types.FrameType, event: str, arg: object) -> Any:
        if frame.f_code is Failing.__call__.__code__ and event == "call":
            lines.append(event)
        return trace

    saved, own = threading.gettrace(), sys.gettrace()
    threading.settrace(trace)
    try:
        assert run_lazy(Failing(2)) == 42
    finally:
        threading.settrace(saved)  # type: ignore[arg-type]
    assert lines == ["call"] * 3
    assert sys.gettrace() is own


def test_a_guard_in_the_frame_of_a_failed_attempt_is_joined_before_the_next():
    # G1
    ended = []

    def slow(n: int, go: threading.Event) -> None:
        await_event(go)
        ended.append(n)

    def fail() -> None:
        assert ended == list(range(len(ended)))
        n = len(ended)
        go = threading.Event()
        guard = dedicated(slow, n, go)
        setter = dedicated(go.set)
        if n < 3:
            raise ValueError
        guard.join()
        setter.join()

    restarted(fail).join()
    assert ended == [0, 1, 2, 3]


@pytest.mark.parametrize("backoff", [0, 0.001])
def test_a_scope_left_open_by_an_attempt_does_not_cancel_the_next(backoff: float):
    # a generator keeps it open; it was cancelled
    def held() -> Any:
        with tether.scope() as s:
            s.cancel()
            yield

    kept = []

    def fail() -> int:
        gen = held()
        kept.append(gen)
        if len(kept) < 3:
            next(gen)
            raise ValueError
        tether.checkpoint()
        return len(kept)

    assert restarted(fail, policy=Restart(backoff=backoff)).join() == 3
    for gen in kept:
        gen.close()


def test_stack_size_holds_for_each_attempt():
    threads = []

    def fail() -> int:
        threads.append(threading.get_ident())
        return fn()

    fn = Failing(2)
    assert restarted(fail, stack_size=1 << 20).join() == 42
    assert len(set(threads)) == 1
    assert threads[0] != threading.get_ident()


# ---- owners, exit values, reports -----------------------------------------------------------------------------------


def test_it_stays_one_task_with_one_guard():
    refs = []

    def fail() -> int:
        refs.append(tether.current())
        return fn()

    fn = Failing(3)
    guard = restarted(fail, name="loader")
    ref = guard.task
    assert guard.join() == 42
    assert refs == [ref] * 4
    assert ref.name == "loader"


def test_name_is_the_functions():
    guard = restarted(test_name_is_the_functions.__class__, *(test_name_is_the_functions.__code__, {}))
    assert guard.task.name.startswith("function-")
    guard.join()


def test_completed_tells_of_earlier_attempts():
    assert restarted(Failing(0)).exit_value().notes == ()
    outcome = restarted(Failing(2)).exit_value()
    assert outcome == Completed(42)
    assert [note.split(" (")[0] for note in outcome.notes] == [
        "attempt 1 failed: ValueError: no 1",
        "attempt 2 failed: ValueError: no 2",
    ]
    assert "notes=('attempt 1" in repr(outcome)


def test_killed_tells_of_earlier_attempts():
    match restarted(Failing(math.inf)).exit_value():
        case Killed(KillReason.EXCEPTION, ValueError()) as outcome:
            assert len([note for note in outcome.notes if note.startswith("attempt")]) == 3
        case other:
            pytest.fail(f"unexpected {other}")


def test_in_a_scope():
    # G2
    with tether.scope() as s:
        handle = s.options(restart=AT_ONCE).spawn(Failing(3))
    assert handle.join() == 42
    with pytest.raises(ExceptionGroup) as caught, tether.scope() as s:
        s.options(restart=AT_ONCE).spawn(Failing(math.inf))
    (failure,) = caught.value.exceptions
    assert len(earlier(failure)) == 3


def test_failures_before_the_last_cancel_no_siblings():
    # G2
    stop = threading.Event()

    def sibling() -> bool:
        await_event(stop)
        tether.checkpoint()
        return True

    def fail() -> int:
        if fn.calls == 3:
            stop.set()
        return fn()

    fn = Failing(3)
    with tether.scope() as s:
        other = s.options(dedicated=True).spawn(sibling)
        s.options(restart=AT_ONCE).spawn(fail)
    assert other.join()


def test_detached_tells_the_excepthook_of_the_last_failure_alone():
    # G6
    with ThreadFailures() as failures:
        restarted(Failing(math.inf), dedicated=True).detach()
        poll(lambda: failures.types, "the report")
        poll(lambda: not tether.tasks(), "the end of the task")
    assert failures.types == [ValueError]
    assert "no 4" in failures.texts[0]
    assert "attempt 3 failed: ValueError: no 3" in failures.texts[0]


def test_dropped_guard_reports_the_last_failure_alone():
    # G1, G6
    started = threading.Event()

    def fail() -> None:
        started.set()
        fn()

    fn = Failing(math.inf)
    with Unraisables() as reports:
        guard = restarted(fail, dedicated=True)
        await_event(started)
        del guard
    assert fn.calls == 4
    assert reports.types == [ValueError]
    assert "attempt 3 failed: ValueError: no 3" in reports.texts[0]


def test_must_join_warns_and_the_task_is_restarted():
    fn = Failing(2)
    guard = restarted(fn, dedicated=True, must_join=True)
    poll(guard.done, "the end")
    with pytest.warns(ResourceWarning, match="must_join"):
        del guard
    assert fn.calls == 3


def test_timeout_of_a_join_during_backoff_leaves_the_guard_armed():
    # G1
    fn = Failing(1)
    guard = restarted(fn, policy=HOUR)
    with pytest.raises(TimeoutError):
        guard.join(timeout=0)
    poll(lambda: guard.task.state is tether.TaskState.BLOCKED, "the back-off")
    with pytest.raises(TimeoutError):
        guard.join(timeout=0)
    assert not guard.done()
    guard.cancel()
    with pytest.raises(tether.TaskKilled):
        guard.join()
    assert fn.calls == 1


def test_dump_shows_restarts():
    def fail() -> None:
        fn()
        started.set()
        await_event(go)

    fn, started, go = Failing(2), threading.Event(), threading.Event()
    guard = restarted(fail, dedicated=True)
    await_event(started)
    out = io.StringIO()
    tether.dump(out)
    go.set()
    guard.join()
    assert "restarted 2 times, attempt 2 failed: ValueError: no 2" in out.getvalue()


def test_dump_of_tasks_that_end_meanwhile():
    # the run is asked for while the task lets it go
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            tether.dump(io.StringIO())

    watcher = dedicated(watch)
    for _ in range(100):
        guards = [restarted(Failing(2)) for _ in range(5)]
        assert [guard.join(timeout=WAIT) for guard in guards] == [42] * 5
    stop.set()
    watcher.join()


# ---- cancel and kill ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["cancel", "kill"])
def test_before_the_start_it_never_runs(how: str):
    # G7, G12, fault 28
    never = 0
    for _ in range(100):
        fn = Failing(math.inf)
        guard = restarted(fn)
        getattr(guard, how)()
        match guard.exit_value():
            case Killed(KillReason.REQUESTED, _):
                never += fn.calls == 0
            case Killed(KillReason.EXCEPTION, ValueError()):
                assert fn.calls
    assert never > 0


@pytest.mark.parametrize("how", ["cancel", "kill"])
def test_during_an_attempt_there_is_no_other(how: str):
    # G12
    started, calls = threading.Event(), []

    def entry() -> None:
        calls.append(1)
        if len(calls) < 3:
            raise ValueError
        started.set()
        tether.sleep(3600)

    guard = restarted(entry, dedicated=True)
    await_event(started)
    assert getattr(guard, how)() is True
    with pytest.raises(tether.TaskKilled):
        guard.join()
    assert len(calls) == 3


@pytest.mark.parametrize("how", ["cancel", "kill"])
def test_in_the_backoff_it_ends_at_once_and_tells_of_the_failures(how: str):
    # G12
    fn = Failing(math.inf)
    guard = restarted(fn, dedicated=True, policy=HOUR)
    poll(lambda: guard.task.state is tether.TaskState.BLOCKED, "the back-off")
    assert getattr(guard, how)() is True
    match guard.exit_value():
        case Killed(KillReason.REQUESTED, exception) as outcome:
            assert isinstance(exception, tether.Cancelled if how == "cancel" else tether.KilledTask)
            assert any("attempt 1 failed: ValueError: no 1" in note for note in outcome.notes)
        case other:
            pytest.fail(f"unexpected {other}")
    assert fn.calls == 1


@pytest.mark.parametrize("how", ["cancel", "kill"])
def test_a_task_that_fails_when_it_is_asked_to_end_has_failed(how: str):
    # as any task; there is no other attempt
    started, calls = threading.Event(), []

    def entry() -> None:
        calls.append(1)
        try:
            started.set()
            tether.sleep(3600)
        except (tether.Cancelled, tether.KilledTask):
            raise OSError("while cleaning up") from None

    for policy in (HOUR, AT_ONCE):
        calls.clear()
        started.clear()
        guard = restarted(entry, dedicated=True, policy=policy)
        await_event(started)
        getattr(guard, how)()
        with pytest.raises(OSError, match="cleaning up"):
            guard.join()
        assert calls == [1]


def test_a_kill_lands_in_an_attempt_or_nowhere():
    # fault 33: what keeps the books is not the user's code
    with Unraisables() as reports:
        for n in range(150):
            fn = Failing(math.inf)
            guard = restarted(fn, dedicated=True, policy=EVER)
            poll(lambda fn=fn, n=n: fn.calls > n % 7, "some attempts")
            guard.kill()
            match guard.exit_value():
                case Killed(KillReason.REQUESTED, exception):
                    frames = (
                        [] if exception is None else [frame.f_code for frame, _ in walk_tb(exception.__traceback__)]
                    )
                    names = [code.co_name for code in frames if code.co_filename == module.__file__]
                    assert names in ([], ["__call__"], ["ended", "leave"]), names
                case Killed(KillReason.EXCEPTION, exception):
                    assert type(exception) is ValueError  # killed when it had failed
                case other:
                    pytest.fail(f"unexpected {other}")
    assert reports.texts == []


def test_cancel_races_the_end_of_attempts():
    # G12: never lost, and nobody else's
    for n in range(150):
        fn = Failing(math.inf)
        guard = restarted(fn, dedicated=True, policy=EVER if n % 2 else Restart(10**9, backoff=1e-9))
        poll(lambda fn=fn, n=n: fn.calls > n % 5, "some attempts")
        assert guard.cancel()
        assert isinstance(guard.exit_value(timeout=WAIT), Killed)
        assert restarted(Failing(1)).join() == 42


def test_kill_races_the_value():
    for n in range(150):
        go = threading.Event()

        def entry(go=go, n=n) -> int:
            if not go.is_set():
                go.set()
                raise ValueError
            return sum(range(n * 10))

        guard = restarted(entry, dedicated=True)
        await_event(go)
        guard.kill()
        match guard.exit_value():
            case Completed(value):
                assert value == sum(range(n * 10))
            case Killed(KillReason.REQUESTED, _):
                pass
            case Killed(KillReason.EXCEPTION, error):
                assert type(error) is ValueError


def test_cancelled_scope_ends_the_backoff():
    # G2, G12
    fn = Failing(math.inf)
    with tether.scope() as s:
        handle = s.options(restart=HOUR, dedicated=True).spawn(fn)
        poll(lambda: handle.task.state is tether.TaskState.BLOCKED, "the back-off")
        s.cancel()
    assert fn.calls == 1


def test_timeout_of_a_scope_ends_the_backoff():
    fn = Failing(math.inf)
    with pytest.raises(TimeoutError), tether.scope(timeout=0.02) as s:
        s.options(restart=HOUR).spawn(fn)
    assert fn.calls <= 1


# ---- the process ----------------------------------------------------------------------------------------------------


def test_interrupt_in_place_ends_it(run_python):
    # G12
    run_python(
        """
        import signal, threading, tether
        from support import poll

        calls = []

        def fail():
            calls.append(1)
            if len(calls) == 3:
                signal.raise_signal(signal.SIGINT)
                while True:
                    pass
            raise ValueError

        guard = tether.options(restart=tether.Restart(backoff=0)).spawn(fail)
        try:
            guard.join()
        except KeyboardInterrupt:
            assert len(calls) == 3
        else:
            raise AssertionError
        """,
        env={"TETHER_PLACE": "inline"},
        check=True,
    )


def test_interrupt_of_the_backoff_in_place_ends_it_and_tells_of_the_failures(run_python):
    # G12
    run_python(
        """
        import os, signal, threading, time, tether
        from support import poll

        def fail():
            threading.Thread(target=interrupt).start()
            raise ValueError("first")

        def interrupt():
            poll(lambda: guard.task.state is tether.TaskState.BLOCKED)
            os.kill(os.getpid(), signal.SIGINT)

        guard = tether.options(restart=tether.Restart(backoff=3600)).spawn(fail)
        try:
            guard.join()
        except KeyboardInterrupt as error:
            assert any("attempt 1 failed: ValueError: first" in note for note in error.__notes__), error.__notes__
        else:
            raise AssertionError
        """,
        env={"TETHER_PLACE": "inline"},
        check=True,
    )


def test_at_exit_it_is_restarted_and_joined(run_python):
    # G1, fault 10
    result = run_python(
        """
        import time, tether
        calls = []
        def fail():
            time.sleep(0.01)
            calls.append(1)
            if len(calls) < 3:
                raise ValueError
            print("done", len(calls))
        guard = tether.options(dedicated=True, restart=tether.Restart(backoff=0.01)).spawn(fail)
        """,
        check=True,
    )
    assert result.out == "done 3\n"


def test_at_exit_the_backoff_is_cancelled_where_asked(run_python):
    # fault 10
    run_python(
        """
        import tether
        from support import poll
        guard = tether.options(dedicated=True, at_exit="cancel", restart=tether.Restart(backoff=3600)).spawn(int, "x")
        poll(lambda: guard.task.state is tether.TaskState.BLOCKED)
        """,
        check=True,
    )


def test_fork_inside_an_attempt(run_python):
    # fault 12: the child goes on to its end and keeps no books; the parent restarts
    result = run_python(
        """
        import os, sys, tether
        calls = []
        def fail():
            calls.append(1)
            if len(calls) == 1:
                pid = os.fork()
                if pid == 0:
                    raise OSError("in the child")
                assert os.waitpid(pid, 0)[1] == 0
                raise ValueError
            return len(calls)
        parent = os.getpid()
        guard = tether.options(restart=tether.Restart(backoff=0)).spawn(fail)
        try:
            value = guard.join()
        except BaseException:
            if os.getpid() == parent:
                raise
            os._exit(0 if calls == [1] else 1)
        assert value == 2
        print("parent")
        """,
        args=("-W", "ignore"),
        env={"TETHER_PLACE": "inline"},
        check=True,
    )
    assert result.out == "parent\n"


def test_in_a_sub_interpreter(run_python):
    # G20
    if sys.version_info < (3, 13):
        pytest.skip("no _interpreters module")
    run_python(
        """
        import _interpreters
        code = '''if True:
            import tether
            calls = []
            def fail():
                calls.append(1)
                if len(calls) < 4:
                    raise ValueError
                return len(calls)
            assert tether.options(restart=tether.Restart(backoff=0)).spawn(fail).join() == 4
            calls.clear()
            assert tether.options(restart=tether.Restart(backoff=0.001), dedicated=True).spawn(fail).join() == 4
            calls.clear()
            with tether.supervisor("one_for_all") as s:
                handle = s.spawn(fail)
            assert handle.join() == 4
        '''
        interp = _interpreters.create()
        failure = _interpreters.exec(interp, code)
        assert failure is None, failure.errdisplay
        _interpreters.destroy(interp)
        """,
        check=True,
    )


def test_many_quick_restarts_keep_nothing():
    # G9; a warm-up first, then the memory stays
    fn = Failing(3_000)
    assert run_lazy(fn, EVER) == 42
    gc.collect()
    before = resident_bytes()
    fn = Failing(10_000)
    assert run_lazy(fn, EVER) == 42
    gc.collect()
    assert resident_bytes() - before < 4 << 20


def test_no_references_leak():
    # G9
    def rounds(n: int) -> None:
        for _ in range(n):
            assert restarted(Failing(2)).join() == 42
            restarted(Failing(9)).exit_value()
            restarted(lambda a: a, [1, {"k": (2,)}]).join()
            guard = restarted(Failing(9), policy=HOUR, dedicated=True)
            guard.cancel()
            guard.exit_value()
            del guard
            with contextlib.suppress(SendError):
                restarted(print, [generator()])

    rounds(50)
    gc.collect()
    kinds = (module._Alone, module.Limit, Arguments)
    assert [type(thing) for thing in gc.get_objects() if type(thing) in kinds] == []
