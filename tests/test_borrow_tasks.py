"""Borrows and tasks: they move with what a task is given, and end with it (G2, G11, G14); waits and deadlocks."""

from __future__ import annotations

import contextlib
import functools
import gc
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import tether
from support import PLACES, WAIT, Token, await_event, dedicated, forked, poll, status_of

N = 4096
Run = Callable[..., Any]


@pytest.fixture
def r() -> Iterator[tether.Region]:
    region = tether.Region(N, name="frame")
    yield region
    if borrows():
        gc.collect()  # classes and closures of the test
    region.close()


@pytest.fixture(params=PLACES)
def run(request: pytest.FixtureRequest) -> Run:
    """Spawn and join, in each of the places where a task can run."""
    place: Run = PLACES[request.param]
    return place


def borrows() -> int:
    return tether.statistics().borrows


def fill(part: tether.Exclusive[Any], value: int) -> int:
    part[:] = bytes([value]) * len(part)
    return len(part)


# ---- moving in ------------------------------------------------------------------------------------------------------


class Filler:
    def __init__(self, part: Any) -> None:
        self.part = part

    def fill(self) -> int:
        return fill(self.part, 1)

    def __call__(self) -> int:
        return fill(self.part, 1)


class SlottedFiller:
    __slots__ = ("part",)

    def __init__(self, part: Any) -> None:
        self.part = part

    def fill(self) -> int:
        return fill(self.part, 1)


def closure(part: Any) -> Callable[[], int]:
    return lambda: fill(part, 1)


def default(part: Any) -> Callable[[], int]:
    return lambda part=part: fill(part, 1)


def keyword_default(part: Any) -> Callable[[], int]:
    def call(*, part: Any = part) -> int:
        return fill(part, 1)

    return call


WAYS: dict[str, Callable[[Any], tuple[Any, ...]]] = {
    "argument": lambda m: (fill, m, 1),
    "partial": lambda m: (functools.partial(fill, m), 1),
    "partial keyword": lambda m: (functools.partial(fill, part=m, value=1),),
    "closure": lambda m: (closure(m),),
    "default": lambda m: (default(m),),
    "keyword default": lambda m: (keyword_default(m),),
    "bound self": lambda m: (Filler(m).fill,),
    "bound slotted self": lambda m: (SlottedFiller(m).fill,),
    "callable instance": lambda m: (Filler(m),),
    "list": lambda m: (lambda box: fill(box[0], 1), [m]),
    "tuple": lambda m: (lambda box: fill(box[0][0], 1), ((m,),)),
    "dict": lambda m: (lambda box: fill(box["k"][0], 1), {"k": [m]}),
    "set": lambda m: (lambda box: fill(next(iter(box)), 1), {m}),
    "twice": lambda m: (lambda a, b: fill(a, 1), m, [m, m]),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_borrow_that_is_given_to_a_task_moves(r: tether.Region, way: str) -> None:
    m = r.borrow_mut(0, 64)
    guard = dedicated(*WAYS[way](m))
    for use in (lambda: m[0], m.release, m.lend, lambda: memoryview(m), lambda: tether.spawn(fill, m, 2)):
        with contextlib.suppress(tether.BorrowError):  # it may have ended with the task
            with pytest.raises(tether.MovedError):
                use()
                raise tether.BorrowError("release of an ended one does nothing")
    assert guard.join() == 64
    assert m.expired
    assert borrows() == 0
    with r.share() as s:
        assert s[:65] == b"\1" * 64 + b"\0"


def test_a_moved_handle_raises_moved_error_while_the_task_has_it(r: tether.Region) -> None:
    inside, go = threading.Event(), threading.Event()

    def hold(m: tether.Exclusive[Any]) -> None:
        inside.set()
        await_event(go)
        m[0] = 1

    m = r.borrow_mut(0, 8)
    guard = tether.options(name="holder", dedicated=True).spawn(hold, m=m)
    await_event(inside)
    assert not guard.is_static
    with pytest.raises(tether.OwnershipError, match="borrows"):
        guard.detach()  # G4
    uses = (
        lambda: m[0],
        m.release,
        m.lend,
        m.downgrade,
        lambda: m.split_at(1),
        m.__enter__,
        lambda: tether.spawn(fill, m, 1),
    )
    for use in uses:
        with pytest.raises(tether.MovedError, match="moved to holder"):
            use()
    m.__exit__(None, None, None)  # leaving the block in which it was given away
    assert not m.expired
    go.set()
    guard.join()
    assert m.expired
    with r.share() as s:
        assert s[0] == 1


def test_a_task_without_borrows_is_static(r: tether.Region) -> None:
    guard = tether.spawn(lambda: r.nbytes)
    assert guard.is_static
    guard.join()


@pytest.mark.parametrize("bad", ["viewed", "lent further", "moved"])
def test_a_spawn_that_fails_gives_all_back(r: tether.Region, bad: str) -> None:
    a, b, c = r.chunks_mut(3)
    keep: Any = None
    if bad == "viewed":
        keep = memoryview(b)
    elif bad == "lent further":
        keep = b.lend()
    else:
        keep = dedicated(lambda b, e: await_event(e), b, e := threading.Event())
    with pytest.raises(tether.MovedError if bad == "moved" else tether.BorrowError):  # all or none
        tether.spawn(lambda *_: None, a, [b], c)
    a[0] = c[0] = 1
    if bad == "moved":
        e.set()
        keep.join()
    del keep
    assert a.range is not None
    assert c.range is not None
    if bad != "moved":
        tether.spawn(lambda *_: None, a, b, c).join()
        assert borrows() == 0


def test_a_spawn_that_is_refused_for_its_arguments_gives_all_back(r: tether.Region) -> None:
    m = r.borrow_mut()
    with pytest.raises((ValueError, TypeError)):
        tether.options(stack_size=1).spawn(fill, m, 1)
    m[0] = 1
    with tether.scope() as s:
        pass
    with pytest.raises(tether.ScopeClosedError):
        s.spawn(fill, m, 1)
    m[0] = 2
    with pytest.raises(TypeError):
        tether.spawn(5, m)  # type: ignore[arg-type]
    assert m[0] == 2
    m.release()


def test_a_guard_that_may_not_go_keeps_the_borrow_here(r: tether.Region) -> None:
    class Smuggled:
        guard = tether.spawn(int)

    def task(box: Any) -> None:
        with r.borrow_mut(8, 16) as own:
            with pytest.raises(tether.OwnershipError):
                tether.spawn(lambda *_: None, own, box.guard)
            own[0] = 1

    tether.spawn(task, Smuggled()).join()
    Smuggled.guard.join()


def test_a_task_passes_its_borrow_on(r: tether.Region, run: Run) -> None:
    def outer(m: tether.Exclusive[Any]) -> int:
        m[0] = 1
        inner = tether.spawn(fill, m, 7)
        with pytest.raises(tether.MovedError), m:
            pass
        return inner.join()

    assert run(outer, r.borrow_mut(0, 16)) == 16  # lending further
    with r.share() as s:
        assert s[:17] == b"\7" * 16 + b"\0"


def test_a_task_lends_parts_of_its_borrow_and_uses_it_again(r: tether.Region, run: Run) -> None:
    def outer(m: tether.Exclusive[Any]) -> bytes:
        with tether.scope() as s:
            for number, part in enumerate(m.chunks(4)):
                s.spawn(fill, part, number)
            del part
        m[0] = 99
        return m[:]

    assert run(outer, r.borrow_mut(0, 8)) == b"\x63\0\1\1\2\2\3\3"


def test_a_lender_cannot_use_what_its_tasks_have(r: tether.Region) -> None:
    inside, go = threading.Event(), threading.Event()

    def hold(part: Any) -> None:
        inside.set()
        await_event(go)
        part[0] = 5

    with r.borrow_mut() as m:
        guard = dedicated(hold, m.lend())
        await_event(inside)
        with pytest.raises(tether.BorrowError, match="lent further"):
            m[0]
        with pytest.raises(tether.BorrowError):
            m.release()
        go.set()
        guard.join()
        assert m[0] == 5


def test_a_lender_that_ends_before_its_borrower_waits_for_it_in_its_scope(r: tether.Region) -> None:
    def lend_and_end(s: tether.Scope, m: tether.Exclusive[Any], go: threading.Event) -> None:
        s.options(dedicated=True).spawn(hold, m.lend(), go)

    def hold(part: tether.Exclusive[Any], go: threading.Event) -> None:
        await_event(go)
        part[0] = 8

    go = threading.Event()
    with tether.scope() as s:
        first = s.options(dedicated=True).spawn(lend_and_end, s, r.borrow_mut(), go)
        first.join()
        with pytest.raises(tether.BorrowError):
            r.share()  # the part lives, and the range with it
        go.set()
    with r.share() as shared:  # G2
        assert shared[0] == 8


def test_shared_borrows_go_to_many_tasks(r: tether.Region) -> None:
    with r.borrow_mut() as m:
        m[:] = bytes(range(256)) * (N // 256)
    with tether.scope() as s:
        with r.share() as mine:
            handles = [s.spawn(lambda b: sum(bytes(b)), mine.clone()) for _ in range(8)]
            results = {h.join() for h in handles}
    assert results == {sum(range(256)) * (N // 256)}
    r.borrow_mut().release()


def test_a_handle_used_in_the_wrong_task_is_refused(r: tether.Region, run: Run) -> None:
    kept = [r.borrow_mut(0, 8)]

    class Opaque:  # the walk does not look into instances that are arguments
        box = kept

    def use(o: Any) -> None:
        for act in (lambda: o.box[0][0], o.box[0].release, o.box[0].lend, lambda: memoryview(o.box[0])):
            with pytest.raises(tether.BorrowError, match="belongs to the program itself"):
                act()

    run(use, Opaque())
    kept[0][0] = 1
    kept.pop().release()


# ---- ends -----------------------------------------------------------------------------------------------------------


def test_a_borrow_ends_when_its_task_returns_though_the_handle_is_kept(r: tether.Region, run: Run) -> None:
    kept: list[Any] = []

    def keep(m: Any) -> None:
        kept.append(m)

    run(keep, r.borrow_mut())
    assert kept[0].expired  # G14
    assert borrows() == 0
    with pytest.raises(tether.MovedError):
        kept[0][0]


def test_a_borrow_ends_when_its_task_fails_though_the_traceback_is_kept(r: tether.Region, run: Run) -> None:
    def fail(m: Any) -> None:
        view = memoryview(m)
        numbers = _numpy_view(m)
        raise KeyError(len(view), numbers is None)

    with pytest.raises(KeyError) as caught:  # fault 22
        run(fail, r.borrow_mut())
    assert caught.value.__traceback__ is not None
    assert borrows() == 0
    r.borrow_mut().release()


def _numpy_view(m: Any) -> Any:
    if _has_numpy():
        import numpy

        return numpy.frombuffer(m, "u1")
    return memoryview(m)


def _has_numpy() -> bool:
    import importlib.util

    return importlib.util.find_spec("numpy") is not None and "numpy" in sys.modules


def test_views_in_the_frames_of_a_chained_failure_are_let_go(r: tether.Region, run: Run) -> None:
    def inner(m: Any) -> None:
        view = memoryview(m)
        raise ValueError(len(view))

    def fail(m: Any) -> None:
        try:
            inner(m)
        except ValueError as cause:
            raise KeyError from cause

    with pytest.raises(KeyError) as caught:  # fault 22
        run(fail, r.borrow_mut())
    assert caught.value.__cause__ is not None
    assert borrows() == 0


def test_views_in_the_frames_of_a_group_are_let_go(r: tether.Region, run: Run) -> None:
    def fail(m: Any) -> None:
        def inner() -> None:
            view = memoryview(m)
            raise ValueError(len(view))

        try:
            inner()
        except ValueError as error:
            failure = error
        raise ExceptionGroup("several", [failure])

    with pytest.raises(ExceptionGroup):  # fault 22
        run(fail, r.borrow_mut())
    assert borrows() == 0


def test_a_borrow_is_back_when_a_task_was_cancelled_before_it_started(r: tether.Region) -> None:
    guard = tether.spawn(fill, r.borrow_mut(), 1)
    if guard.cancel():
        with contextlib.suppress(tether.TaskKilled):
            guard.join()
    assert borrows() == 0
    r.borrow_mut().release()


@pytest.mark.parametrize("end", ["cancel", "kill"])
def test_a_borrow_is_back_when_a_task_was_cancelled_or_killed(r: tether.Region, end: str) -> None:
    inside = threading.Event()

    def hold(m: Any) -> None:
        with memoryview(m):
            inside.set()
            while True:
                tether.sleep(60)

    guard = dedicated(hold, r.borrow_mut())
    await_event(inside)
    getattr(guard, end)()
    with pytest.raises(tether.TaskKilled):
        guard.join()
    assert borrows() == 0
    r.borrow_mut().release()


def test_an_adopted_task_keeps_its_borrow_until_it_ends(r: tether.Region) -> None:
    inside, go = threading.Event(), threading.Event()

    def hold(m: Any) -> None:
        inside.set()
        await_event(go)

    token = Token()
    token.me, token.guard = token, dedicated(hold, r.borrow_mut())  # type: ignore[attr-defined]
    await_event(inside)
    del token
    gc.collect()  # G1: adopted
    with pytest.raises(tether.BorrowError):
        r.share()
    go.set()
    poll(lambda: borrows() == 0, "the end of the adopted task")


def test_borrows_are_back_when_a_scope_times_out(r: tether.Region) -> None:
    with pytest.raises(TimeoutError), tether.scope(timeout=0.01) as s:
        s.options(dedicated=True).spawn(lambda m: tether.sleep(60), r.borrow_mut())
    assert borrows() == 0  # G2


def test_borrows_are_back_when_a_sibling_fails(r: tether.Region) -> None:
    with pytest.raises(ExceptionGroup), tether.scope() as s:
        a, b = r.chunks_mut(2)
        s.options(dedicated=True).spawn(lambda m: tether.sleep(60), a)
        s.spawn(lambda m: 1 / 0, b)
    assert borrows() == 0


def test_a_borrow_taken_inside_ends_with_the_task(r: tether.Region, run: Run) -> None:
    kept: list[Any] = []
    run(lambda: kept.append(r.borrow_mut()))
    assert kept[0].expired
    assert borrows() == 0


def test_a_returned_borrow_has_ended(r: tether.Region, run: Run) -> None:
    m = run(lambda: r.borrow_mut())
    assert m.expired
    assert borrows() == 0


def test_a_region_lives_as_long_as_what_its_task_was_lent(run: Run) -> None:
    def use(m: Any) -> int:
        gc.collect()
        return fill(m, 3)

    assert run(use, tether.Region(N).borrow_mut()) == N  # G11
    assert tether.statistics().regions == 0


def test_a_forked_child_has_no_borrow_and_harms_none(r: tether.Region) -> None:
    m, view = r.borrow_mut(), memoryview(r.share(0, 0))

    def child() -> None:
        for use in (lambda: m[0], m.release, r.share, r.close, lambda: tether.spawn(fill, m, 1).join()):
            with pytest.raises(tether.ForkedError):
                use()
        assert m.expired
        with tether.Region(N).borrow_mut() as own:
            own[0] = 1
        view.release()

    assert status_of(forked(child)) == 0
    m[0] = 1
    m.release()
    view.release()


# ---- views that escape ----------------------------------------------------------------------------------------------


def test_a_view_that_a_task_returns_is_told_when_the_scope_ends(r: tether.Region) -> None:
    with pytest.raises(ExceptionGroup) as caught, tether.scope() as s:
        handle = s.options(name="leaky").spawn(lambda m: memoryview(m), r.borrow_mut(8, 16))
        view = handle.join()
    (error,) = caught.value.exceptions  # G14
    assert isinstance(error, tether.BorrowError)
    assert "leaky" in str(error)
    assert "frame" in str(error)
    assert error.range == (8, 16)
    assert error.holder is not None
    assert error.holder.name == "leaky"
    view[0] = 1
    with pytest.raises(tether.BorrowError, match="raw view"):
        r.share()
    r.share(16).release()
    del view
    r.share().release()


def test_a_view_in_a_global_is_told_and_nothing_dangles(r: tether.Region, run: Run) -> None:
    kept: list[memoryview] = []

    def leak(m: Any) -> None:
        kept.append(memoryview(m))

    with pytest.raises(ExceptionGroup) as caught, tether.scope() as s:
        s.spawn(leak, r.borrow_mut())
    assert caught.group_contains(tether.BorrowError, match="outlives")
    kept[0][5] = 5
    kept.clear()
    with r.share() as shared:
        assert shared[5] == 5
    run(leak, r.borrow_mut())  # outside of a scope: told where it conflicts
    with pytest.raises(tether.BorrowError, match="raw view"):
        r.close()
    kept.clear()


def test_a_view_is_gone_when_it_was_let_go_of_though_its_maker_sleeps(r: tether.Region, run: Run) -> None:
    # G14, G20: without a GIL its memory is its maker's
    kept: list[memoryview] = []

    def leak(m: Any) -> None:
        kept.append(memoryview(m))

    uses: list[Callable[[], object]] = [
        lambda: r.borrow_mut().release(),
        lambda: r.borrow_mut(timeout=0).release(),
        lambda: r.borrow_mut(timeout=0.001).release(),
        lambda: [part.release() for part in r.chunks_mut(4)],
        lambda: r.advise("random"),
        r.close,
    ]
    for use in uses:
        run(leak, r.borrow_mut())
        kept.clear()
        use()
    owned = tether.Owned(bytearray(8))
    run(lambda m: kept.append(memoryview(m.value)), owned.borrow_mut())
    kept.clear()
    assert owned.take() == bytearray(8)


@pytest.mark.parametrize("dedicated", [False, True])
def test_a_view_that_was_let_go_of_by_the_end_of_the_scope_is_not_told(r: tether.Region, dedicated: bool) -> None:
    kept: list[memoryview] = []
    with tether.scope() as s:
        s.options(dedicated=dedicated).spawn(lambda m: kept.append(memoryview(m)), r.borrow_mut()).join()
        kept.clear()
    assert borrows() == 0


def test_a_view_that_is_gone_by_the_end_of_the_scope_is_not_told(r: tether.Region) -> None:
    with tether.scope() as s:
        view = s.spawn(lambda m: memoryview(m), r.borrow_mut()).join()
        view[0] = 1
        del view
    assert borrows() == 0


def test_an_array_that_escapes_is_told(r: tether.Region) -> None:
    numpy = pytest.importorskip("numpy", reason="NumPy is not installed here")
    with pytest.raises(ExceptionGroup), tether.scope() as s:
        numbers = s.spawn(lambda m: numpy.frombuffer(m, "u1"), r.borrow_mut()).join()
    numbers[0] = 3
    del numbers
    with r.share() as shared:
        assert shared[0] == 3


def test_views_of_several_tasks_are_all_told_beside_other_failures(r: tether.Region) -> None:
    kept: list[memoryview] = []
    with pytest.raises(ExceptionGroup) as caught, tether.scope(on_error="wait") as s:
        for part in r.chunks_mut(3):
            s.spawn(lambda m: kept.append(memoryview(m)), part)
        s.spawn(lambda: 1 / 0)
        del part
    kinds = sorted(type(error).__name__ for error in caught.value.exceptions)
    assert kinds == ["BorrowError", "BorrowError", "BorrowError", "ZeroDivisionError"]
    kept.clear()
    gc.collect()  # free-threaded: a view that an idle thread made is freed when that thread, or the collector, comes by
    poll(lambda: borrows() == 0, "the views to be gone")


# ---- waiting --------------------------------------------------------------------------------------------------------


def blocked(guard: tether.JoinGuard[Any]) -> None:
    poll(lambda: guard.task.state is tether.TaskState.BLOCKED, "the task to wait")


def test_a_borrow_waits_until_its_turn(r: tether.Region) -> None:
    order: list[str] = []

    def take(name: str) -> None:
        with (r.share if name.startswith("r") else r.borrow_mut)(timeout=WAIT):
            order.append(name)

    waiting = []
    with r.borrow_mut():
        for name in ("w1", "r1", "r2", "w2"):
            waiting.append(dedicated(take, name))
            blocked(waiting[-1])
        assert order == []
    for guard in waiting:
        guard.join()
    assert order[0] == "w1"  # in turn: a late reader does not pass a writer
    assert set(order[1:3]) == {"r1", "r2"}
    assert order[3] == "w2"


def test_a_newcomer_does_not_pass_who_waits(r: tether.Region) -> None:
    def write() -> None:
        r.borrow_mut(timeout=None).release()

    with r.share():
        guard = tether.options(name="writer", dedicated=True).spawn(write)
        blocked(guard)
        with pytest.raises(tether.BorrowError, match=r"awaited.*'writer'"):
            r.share()
    guard.join()


def test_a_wait_ends_when_its_time_is_over(r: tether.Region) -> None:
    with r.share(3, 9), pytest.raises(TimeoutError) as caught:  # fault 21
        r.borrow_mut(timeout=0.01)
    cause = caught.value.__cause__
    assert isinstance(cause, tether.BorrowError)
    assert cause.range == (3, 9)
    assert borrows() == 0
    r.borrow_mut(timeout=0.01).release()


@pytest.mark.parametrize("end", ["cancel", "kill"])
def test_a_wait_ends_when_its_task_is_cancelled(r: tether.Region, end: str) -> None:
    with r.share():
        guard = dedicated(lambda: r.borrow_mut(timeout=None))  # G12
        blocked(guard)
        getattr(guard, end)()
        with pytest.raises(tether.TaskKilled):
            guard.join()
        r.share().release()  # nobody waits any more
    assert borrows() == 0


def test_a_wait_in_the_main_thread_ends_with_an_interrupt(r: tether.Region) -> None:
    main, inside, go = threading.main_thread().ident, threading.Event(), threading.Event()
    assert main is not None

    def hold(m: Any) -> None:
        inside.set()
        await_event(go)

    holder = dedicated(hold, r.borrow_mut())
    await_event(inside)
    timer = threading.Thread(target=lambda: signal.pthread_kill(main, signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):  # G12
        timer.start()
        while True:
            r.share(timeout=None)
    timer.join()
    assert borrows() == 1
    go.set()
    holder.join()


def test_a_region_that_is_closed_while_somebody_waits_is_told_as_closed() -> None:
    r = tether.Region(N)
    m = r.borrow_mut()
    guard = dedicated(lambda: r.share(timeout=None))
    blocked(guard)
    with pytest.raises(tether.BorrowError):
        r.close()
    m.release()
    guard.join()
    r.close()


def consumed(r: tether.Region, how: str) -> list[tether.Region]:
    if how == "close":
        r.close()
        return []
    left, right = r.split_at(N)
    return [left, right] if how == "split" else [left.merge(right)]


@pytest.mark.parametrize("how", ["close", "split", "merge"])
@pytest.mark.parametrize("act", ["share", "borrow_mut"])
def test_a_region_that_goes_just_before_somebody_waits_is_told(how: str, act: str) -> None:
    r, kept = tether.Region(2 * N), []

    class Late:
        def __float__(self) -> float:
            kept.extend(consumed(r, how))
            return 1e12

    expected = ValueError if how == "close" else tether.MovedError
    guard = dedicated(lambda: getattr(r, act)(timeout=Late()))  # fault 23: nobody will ever give it back
    with pytest.raises(expected):
        guard.join()
    kept.clear()  # local classes, and what they refer to, may be immortal on free-threaded builds
    assert borrows() == 0


def test_what_a_timeout_raises_is_raised_though_the_region_is_gone() -> None:
    r = tether.Region(N)

    class Failing:
        def __float__(self) -> float:
            r.close()
            raise LookupError("no number")

    with pytest.raises(LookupError):  # fault 23
        r.share(timeout=Failing())  # type: ignore[arg-type]


def test_a_region_protected_while_a_writer_waits_refuses_it() -> None:
    r = tether.Region(N)
    s = r.share()
    guard = dedicated(lambda: r.borrow_mut(timeout=None)[0])
    blocked(guard)
    s.release()
    assert guard.join() == 0
    r.protect("r")
    with pytest.raises(tether.BorrowError):
        r.borrow_mut(timeout=1)


def test_a_view_that_its_waiting_maker_did_not_drop_is_gone_all_the_same(r: tether.Region) -> None:
    kept: list[memoryview] = []

    def task() -> str:
        with r.share(0, 4) as s:
            kept.append(memoryview(s))
        r.borrow_mut(timeout=None).release()
        return "granted"

    guard = dedicated(task)
    blocked(guard)
    kept.clear()  # G14, G20: without a GIL it is freed by its maker, who sleeps, or by the collector
    assert guard.join() == "granted"


def test_a_handle_that_another_thread_drops_ends_at_once(r: tether.Region) -> None:
    kept: list[tether.Exclusive[Any]] = []
    made, go = threading.Event(), threading.Event()

    def make() -> None:
        kept.append(r.borrow_mut())
        made.set()
        await_event(go)

    maker = threading.Thread(target=make)
    maker.start()
    await_event(made)
    kept.clear()  # G14: its maker need not come by
    r.borrow_mut().release()
    go.set()
    maker.join()


# ---- deadlocks ------------------------------------------------------------------------------------------------------


def test_waiting_for_oneself_is_a_deadlock(r: tether.Region, run: Run) -> None:
    def task() -> None:
        with r.share():
            with pytest.raises(tether.DeadlockError):  # fault 21
                r.borrow_mut(timeout=None)
            with pytest.raises(TimeoutError):
                r.borrow_mut(timeout=0.001)

    run(task)
    assert borrows() == 0


def test_two_tasks_that_wait_for_each_other_are_told(r: tether.Region) -> None:
    barrier = threading.Barrier(2)

    def task(mine: tuple[int, int], other: tuple[int, int]) -> str:
        with r.borrow_mut(*mine):
            barrier.wait(WAIT)
            try:
                r.borrow_mut(*other, timeout=None).release()
            except tether.DeadlockError as error:
                return ",".join(sorted(str(getattr(t, "name", t)) for t in error.cycle))
        return "had both"

    with tether.scope() as s:  # fault 21
        options = s.options(dedicated=True)
        handles = [options.spawn(task, (0, 4), (4, 8)), options.spawn(task, (4, 8), (0, 4))]
        results = [h.join() for h in handles]
        names = ",".join(sorted(h.task.name for h in handles))
    assert sorted(results) == sorted([names, "had both"])


def test_joining_a_task_that_waits_for_our_borrow_is_a_deadlock(r: tether.Region) -> None:
    def outer() -> str:
        m = r.borrow_mut()
        inner = dedicated(lambda: r.share(timeout=None).release())
        blocked(inner)
        try:
            inner.join()
        except tether.DeadlockError:
            m.release()
            inner.join()
            return "told"
        return "joined"

    assert dedicated(outer).join() == "told"


def test_a_deadlock_that_a_release_resolves_is_none(r: tether.Region) -> None:
    for _ in range(20):
        with tether.scope() as s:
            for _ in range(4):
                s.options(dedicated=True).spawn(lambda: r.borrow_mut(timeout=None).release())
    assert borrows() == 0


def test_one_borrow_given_by_many_threads_at_once_goes_to_one_task():
    # G13: all threads of the program are one owner; every other one is told, and its task never was
    for _ in range(30):
        region = tether.Region(4096)
        part, start = region.borrow_mut(), threading.Barrier(4)
        given: list[tether.JoinGuard[int]] = []
        refused: list[BaseException] = []

        def give(part=part, start=start, given=given, refused=refused):
            start.wait()
            try:
                given.append(tether.spawn(len, part))
            except (tether.MovedError, tether.BorrowError) as error:
                refused.append(error)

        threads = [threading.Thread(target=give) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(given), len(refused)) == (1, 3)
        assert given.pop().join() == 4096
        del part, give
        region.close()
