"""tether.Guard and tether.callback: release is called exactly once, by the owner, at the latest at exit."""

from __future__ import annotations

import copy
import ctypes
import gc
import pickle
import threading
from typing import Any

import pytest

import tether
from conftest import RunPython
from support import PLACES, Unraisables, await_event, dedicated, forked, poll, status_of


class Noting(tether.Guard):
    def __init__(self, log: list[str], name: str = "guard") -> None:
        self.log, self.name = log, name

    def release(self) -> None:
        self.log.append(f"{self.name} by {tether.current().name}")


def ends(log: list[str], *expected: str) -> None:
    poll(lambda: len(log) >= len(expected), "the release")
    assert log == list(expected)


# ---- once -----------------------------------------------------------------------------------------------------------


def test_release_is_called_once_however_often_it_is_asked_for() -> None:
    log: list[str] = []
    with Noting(log) as g:
        assert not g.released
        g.release()
        assert g.released
        g.release()
    del g
    ends(log, "guard by root")


def test_a_dropped_guard_is_released_at_once() -> None:
    log: list[str] = []
    Noting(log)
    ends(log, "guard by root")


def test_a_block_that_raises_releases() -> None:
    log: list[str] = []
    with pytest.raises(KeyError), Noting(log):
        raise KeyError
    ends(log, "guard by root")


def test_a_cycle_is_released_by_a_task_of_its_own() -> None:
    log: list[str] = []
    g = Noting(log)
    g.me = g  # type: ignore[attr-defined]
    del g
    gc.collect()
    poll(lambda: log, "the release")
    assert len(log) == 1  # G5


@pytest.mark.thread_unsafe(reason="sys.unraisablehook is of the whole process")
def test_a_release_that_raises_has_happened() -> None:
    class Failing(tether.Guard):
        calls = 0

        def release(self) -> None:
            Failing.calls += 1
            raise KeyError("release")

    g = Failing()
    with pytest.raises(KeyError):
        g.release()
    g.release()
    with pytest.raises(KeyError), Failing():
        pass
    with Unraisables() as reports:
        Failing()
    assert reports.types == [KeyError]
    assert Failing.calls == 3


def test_a_release_calls_its_base_classes_once_each() -> None:
    log: list[str] = []

    class Left(Noting):
        def release(self) -> None:
            log.append("left")
            super().release()

    class Right(Noting):
        def release(self) -> None:
            log.append("right")
            super().release()

    class Both(Left, Right):
        def release(self) -> None:
            log.append("both")
            super().release()
            self.release()  # no second time

    Both(log).release()
    assert log == ["both", "left", "right", "guard by root"]


def test_a_release_that_is_asked_for_while_it_runs_is_not_run_again() -> None:
    log: list[str] = []

    class Nested(Noting):
        def release(self) -> None:
            with self:
                log.append("inside")
            super().release()
            super().release()

    Nested(log).release()
    assert log == ["inside", "guard by root"]


def test_a_release_that_comes_from_another_class_counts() -> None:
    log: list[str] = []

    class Mixin:
        def release(self) -> None:
            log.append("mixin")

    class Mixed(Mixin, tether.Guard):
        pass

    with Mixed() as g:
        g.release()
    del g
    gc.collect()
    assert log == ["mixin"]


def test_a_guard_without_a_release_of_its_own_is_released_too() -> None:
    g = tether.Guard()
    with g:
        pass
    assert g.released


def test_many_threads_release_once() -> None:
    for _ in range(50):
        log: list[str] = []
        begin = threading.Barrier(4)

        class Two(Noting):
            def release(self) -> None:
                super().release()

        g = Two(log)

        def release(g: Any = g, begin: threading.Barrier = begin) -> None:
            begin.wait()
            g.release()
            g.release()

        threads = [threading.Thread(target=release) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert log == ["guard by root"]  # G20


def test_guards_made_by_many_threads_are_all_released_at_exit(run_python: RunPython) -> None:
    out = run_python(
        """
        import threading, tether
        class G(tether.Guard):
            def release(self):
                print("x", end="")
        kept = []
        def make():
            for _ in range(250):
                kept.append(G())
        threads = [threading.Thread(target=make) for _ in range(4)]
        for t in threads: t.start()
        for t in threads: t.join()
        import builtins
        builtins.kept = kept
        """,
        check=True,
    ).out
    assert out == "x" * 1000


def test_a_guard_is_neither_copied_nor_pickled() -> None:
    with Noting([]) as g:
        for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="exactly one owner"):
                duplicate(g)


def test_a_guard_whose_init_fails_is_released_as_a_dropped_one() -> None:
    log: list[str] = []

    class Half(Noting):
        def __init__(self) -> None:
            super().__init__(log)
            raise KeyError

    with pytest.raises(KeyError):
        Half()
    gc.collect()
    poll(lambda: log, "the release")
    assert len(log) == 1


# ---- owners ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
def test_a_guard_moves_to_the_task_that_it_is_given_to(place: str) -> None:
    log: list[str] = []

    def use(g: Noting) -> None:
        g.release()

    PLACES[place](use, Noting(log, "mine"))
    assert len(log) == 1
    assert log[0].startswith("mine by use")  # G3


def test_only_the_owner_releases() -> None:
    log: list[str] = []
    inside, go = threading.Event(), threading.Event()

    def hold(g: Noting) -> None:
        inside.set()
        await_event(go)
        g.release()

    g = Noting(log)
    guard = tether.options(name="holder", dedicated=True).spawn(hold, g)
    await_event(inside)
    with pytest.raises(tether.OwnershipError, match="holder"):
        g.release()  # G3
    with tether.scope() as s, pytest.raises(tether.OwnershipError):
        g.bind(s)
    with pytest.raises(tether.OwnershipError):
        tether.spawn(hold, g)
    assert not g.released
    go.set()
    guard.join()
    assert log == ["guard by holder"]


def test_a_guard_that_a_task_returns_is_the_joiners() -> None:
    log: list[str] = []
    g = tether.spawn(lambda: Noting(log)).join()
    assert log == []
    g.release()
    assert log == ["guard by root"]


def test_a_guard_dropped_by_somebody_else_is_released_all_the_same() -> None:
    log: list[str] = []

    class Opaque:
        def __init__(self) -> None:
            self.g: Noting | None = Noting(log)

    box = Opaque()

    def drop(box: Opaque) -> None:
        box.g = None

    dedicated(drop, box).join()
    poll(lambda: log, "the release")
    assert len(log) == 1


def test_what_a_guard_holds_goes_with_it() -> None:
    r = tether.Region(16)

    class Using(tether.Guard):
        def __init__(self, m: Any) -> None:
            self.m = m

        def release(self) -> None:
            self.m[0] = 7
            self.m.release()

    def use(g: Using) -> None:
        with g:
            g.m[1] = 8

    tether.spawn(use, Using(r.borrow_mut())).join()
    with r.share() as s:
        assert s[:2] == b"\7\x08"


# ---- scopes ---------------------------------------------------------------------------------------------------------


def test_a_scope_releases_what_is_bound_to_it_after_its_tasks_last_first() -> None:
    log: list[str] = []

    def work() -> None:
        tether.sleep(0.001)
        log.append("task")

    with tether.scope() as s:
        assert isinstance(Noting(log, "a").bind(s), Noting)
        Noting(log, "b").bind(s)
        s.spawn(work)
    assert log == ["task", "b by root", "a by root"]
    with pytest.raises(tether.ScopeClosedError):
        Noting(log).bind(s)
    with pytest.raises(TypeError):
        s._bind(5)  # type: ignore[arg-type]
    assert len(log) == 4  # the one that was refused was dropped


def test_a_bound_guard_that_fails_is_a_failure_of_the_scope() -> None:
    class Failing(Noting):
        def release(self) -> None:
            super().release()
            raise KeyError

    log: list[str] = []
    with pytest.raises(ExceptionGroup) as caught, tether.scope() as s:
        Noting(log, "first").bind(s)
        Failing(log, "second").bind(s)
        raise ValueError
    assert sorted(type(e).__name__ for e in caught.value.exceptions) == ["KeyError", "ValueError"]
    assert log == ["second by root", "first by root"]


def test_a_bound_guard_that_was_released_is_not_released_again() -> None:
    log: list[str] = []
    with tether.scope() as s:
        Noting(log).bind(s).release()
    assert log == ["guard by root"]


def test_a_task_of_the_scope_may_bind_its_guard() -> None:
    log: list[str] = []

    def work(s: tether.Scope) -> None:
        Noting(log).bind(s)

    with tether.scope() as s:
        s.spawn(work, s).join()
        assert log == []
    assert log == ["guard by root"]


# ---- exit, fork -----------------------------------------------------------------------------------------------------


def test_guards_that_are_left_are_released_at_exit_the_newest_first(run_python: RunPython) -> None:
    out = run_python(
        """
        import gc, sys, tether
        gc.disable()
        class G(tether.Guard):
            def __init__(self, name): self.name = name
            def release(self):
                print(self.name)
                if self.name == "exits": raise SystemExit(3)
        def generator():
            with G("suspended"):
                yield
        kept = [G("global")]
        cycle = G("cycle"); cycle.me = cycle; del cycle
        suspended = generator(); next(suspended)
        sys.kept = G("exits")
        tether.options(at_exit="join").spawn(tether.sleep, 0.01).detach()
        sys.last = G("last")
        """
    )
    assert out.out.split() == ["last", "exits", "suspended", "cycle", "global"]
    assert out.rc == 0
    assert "SystemExit" in out.err


def test_a_guard_dropped_while_the_interpreter_ends_is_released(run_python: RunPython) -> None:
    out = run_python(
        """
        import atexit, tether
        @atexit.register
        def late():
            G()
            g = G(); g.me = g
        class G(tether.Guard):
            def release(self): print("released")
        """,
        check=True,
    ).out
    assert out == "released\n" * 2


def test_a_forked_child_releases_nothing_of_its_parent() -> None:
    log: list[str] = []
    g = Noting(log)
    kept: list[Any] = [Noting(log, "dropped in the child")]

    def child() -> None:
        with Unraisables() as reports:
            kept.clear()
            gc.collect()
            with pytest.raises(tether.ForkedError):
                g.release()
        assert (log, reports.types) == ([], [])
        with Noting(log, "own"):
            pass
        assert log == ["own by root"]

    assert status_of(forked(child)) == 0
    kept.clear()
    g.release()
    assert len(log) == 2


def test_a_forked_child_that_exits_is_silent_about_its_parents_guards(run_python: RunPython) -> None:
    out = run_python(
        """
        import os, sys, warnings, tether
        warnings.simplefilter("ignore")
        class G(tether.Guard):
            def release(self): print("released", flush=True)
        g = sys.kept = G()
        pid = os.fork()
        if pid == 0:
            sys.exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        """,
        check=True,
    ).out
    assert out == "released\n"


# ---- callbacks ------------------------------------------------------------------------------------------------------


def test_a_callback_is_unregistered_before_it_goes() -> None:
    listeners: list[Any] = []

    def listener() -> int:
        return 1

    g = tether.callback(listeners.append, listeners.remove, listener)
    assert listeners == [listener]
    g.release()
    g.release()
    assert listeners == []
    with tether.callback(listeners.append, listeners.remove, listener):
        assert listeners == [listener]
    assert listeners == []


def test_unregister_gets_the_token_that_register_gave() -> None:
    calls: list[Any] = []

    def register(fn: Any) -> int:
        calls.append(fn)
        return 42

    with tether.callback(register, calls.append, print):
        pass
    assert calls == [print, 42]


def test_a_registration_that_fails_unregisters_nothing() -> None:
    calls: list[Any] = []

    def register(fn: Any) -> None:
        raise KeyError

    with pytest.raises(KeyError):
        tether.callback(register, calls.append, print)
    gc.collect()
    assert calls == []


def test_a_native_library_calls_back_until_the_guard_is_gone() -> None:
    libc = ctypes.CDLL(None)
    prototype = ctypes.CFUNCTYPE(None, ctypes.c_int)
    libc.signal.restype = ctypes.c_void_p
    libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    number, calls = 34, []  # a real-time signal that nobody else uses: raised on this thread, handled inside raise()

    def register(fn: Any) -> int:
        return libc.signal(number, ctypes.cast(fn, ctypes.c_void_p).value) or 0

    g = tether.callback(register, lambda before: libc.signal(number, 1), prototype(calls.append))  # 1: SIG_IGN
    libc["raise"](number)
    assert calls == [number]
    del g
    gc.collect()
    libc["raise"](number)
    assert calls == [number]
    libc.signal(number, 0)


def test_a_comparison_called_by_qsort_works_on_lent_memory() -> None:
    libc = ctypes.CDLL(None)
    compare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_uint8), ctypes.POINTER(ctypes.c_uint8))
    r = tether.Region(64)

    def work(m: Any) -> None:
        m[:] = bytes(range(63, -1, -1))
        array = (ctypes.c_uint8 * 64).from_buffer(m)
        libc.qsort(array, ctypes.c_size_t(64), ctypes.c_size_t(1), compare(lambda a, b: a[0] - b[0]))
        del array

    dedicated(work, r.borrow_mut()).join()
    gc.collect()
    with r.share() as s:
        assert bytes(s) == bytes(range(64))


def test_a_callback_that_is_bound_to_a_scope_outlives_its_tasks() -> None:
    listeners: list[Any] = []
    with tether.scope() as s:
        tether.callback(listeners.append, listeners.remove, print).bind(s)
        assert s.spawn(lambda: len(listeners)).join() == 1
    assert listeners == []


def test_collector_does_not_release_before_anything_was_spawned(run_python):
    # G5: the first guard of a program, in a cycle
    code = """
        import gc, tether
        from support import poll

        class Noted(tether.Guard):
            def __init__(self):
                self.itself = self

            def release(self):
                names.append(tether.current().name)

        names = []
        Noted()
        gc.collect()
        poll(lambda: names)
        print(names[0] != "root")
    """
    assert run_python(code, check=True).out == "True\n"
