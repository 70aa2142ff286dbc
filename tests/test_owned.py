"""Owned: a Python value with one owner, lent by the rules of borrows (G13), moving with tasks."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import weakref
from typing import Any

import pytest

import tether
from support import PLACES, WAIT, Token, await_event, dedicated, forked, here, poll, status_of


def test_a_value_is_lent_to_readers_or_to_one_writer() -> None:
    o = tether.Owned([1])
    with o.share() as a, o.share() as b:  # G13
        assert a.value is b.value
        assert (a.range, a.expired, a.source) == (None, False, o)
        where = here()
        with pytest.raises(tether.BorrowError, match="an owned list is lent shared to the program") as caught:
            o.borrow_mut()
        assert (caught.value.holder, caught.value.range) == (None, None)
        assert caught.value.site is not None
        assert caught.value.site.rsplit(":", 1)[0].endswith(where.rsplit(":", 1)[0])
        with pytest.raises(AttributeError):
            a.value = []  # type: ignore[misc]
    with o.borrow_mut() as m:
        for other in (o.share, o.borrow_mut, o.take, lambda: o.replace([])):
            with pytest.raises(tether.BorrowError):
                other()
        m.value.append(2)
        m.value = [*m.value, 3]
        with pytest.raises(AttributeError):
            del m.value
    for ended in (a, m):
        assert ended.expired
        with pytest.raises(tether.BorrowError, match="has ended"):
            ended.value  # noqa: B018
    assert o.take() == [1, 2, 3]
    assert tether.statistics().borrows == 0


def test_take_and_replace_move_the_value() -> None:
    o: tether.Owned[Any] = tether.Owned("a")
    assert o.replace("b") == "a"
    assert o.take() == "b"
    for use in (o.take, o.share, o.borrow_mut):
        with pytest.raises(tether.MovedError, match="taken"):
            use()
    assert "taken" in repr(o)
    assert o.replace("c") is None
    with o.share() as s:
        assert s.value == "c"


def test_none_is_a_value() -> None:
    o = tether.Owned(None)
    with o.share() as s:
        assert s.value is None
    assert o.take() is None


def test_arguments_are_checked() -> None:
    for arguments, keywords in (((), {}), ((1, 2), {}), ((), {"value": 1})):
        with pytest.raises(TypeError):
            tether.Owned(*arguments, **keywords)
    o = tether.Owned(1)
    for lend in (o.share, o.borrow_mut):
        with pytest.raises(TypeError):
            lend(0)  # type: ignore[call-arg]
        with pytest.raises(TypeError):
            lend(timeout="1")  # type: ignore[arg-type]
        with pytest.raises(ValueError):
            lend(timeout=-1)
    assert tether.statistics().borrows == 0


def test_an_owned_value_is_neither_copied_nor_pickled_nor_subclassed() -> None:
    o = tether.Owned([1])
    for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="exactly one owner"):
            duplicate(o)
    with o.borrow_mut() as m, pytest.raises(TypeError):
        copy.copy(m)
    with pytest.raises(TypeError):
        type("Mine", (tether.Owned,), {})
    assert tether.Owned[int]
    assert repr(o) == "<tether.Owned: an owned list>"
    with o.share() as s:
        assert repr(s) == "<tether.Shared of an owned list, live>"


def test_a_borrow_of_a_value_is_no_memory() -> None:
    o = tether.Owned(bytearray(4))
    with o.borrow_mut() as m:
        for use in (
            lambda: memoryview(m),
            lambda: m[0],
            lambda: len(m),
            lambda: m.view("B"),
            lambda: bytes(m),
            lambda: iter(m),
        ):
            with pytest.raises(TypeError, match="value"):
                use()
        with pytest.raises(TypeError):
            m.split_at(0)
        with pytest.raises(TypeError):
            m.chunks(2)


def test_a_value_is_lent_further_downgraded_and_cloned() -> None:
    o = tether.Owned([1])
    m = o.borrow_mut()
    with m.lend() as part:
        part.value.append(2)
        with pytest.raises(tether.BorrowError, match="lent further"):
            m.value  # noqa: B018
    s = m.downgrade()
    with s.clone() as c:
        assert c.value == s.value == [1, 2]
    s.release()
    assert o.take() == [1, 2]


@pytest.mark.parametrize("place", PLACES)
def test_an_owned_value_moves_to_the_task_and_back_with_it(place: str) -> None:
    def work(o: tether.Owned[list[int]]) -> tether.Owned[list[int]]:
        with o.borrow_mut() as m:
            m.value.append(2)
        return o

    o = tether.Owned([1])
    assert PLACES[place](work, o) is o
    assert o.take() == [1, 2]  # what a task owned is its owner's when it has ended


def test_the_giver_has_it_no_more_while_the_task_runs() -> None:
    inside, go = threading.Event(), threading.Event()

    def hold(o: tether.Owned[int]) -> None:
        inside.set()
        await_event(go)

    o = tether.Owned(5)
    guard = tether.options(name="keeper", dedicated=True).spawn(hold, o)
    await_event(inside)
    for use in (o.share, o.borrow_mut, o.take, lambda: o.replace(1), lambda: tether.spawn(hold, o)):
        with pytest.raises(tether.MovedError, match="moved to keeper"):
            use()
    go.set()
    guard.join()
    assert o.take() == 5


def test_a_value_that_is_lent_is_not_given_away() -> None:
    o, other = tether.Owned(5), tether.Owned(6)
    with o.share():
        with pytest.raises(tether.BorrowError, match="give away"):
            tether.spawn(lambda *_: None, other, o)
        assert other.replace(7) == 6  # all or none
    tether.spawn(lambda *_: None, other, o).join()


def test_a_borrow_of_a_value_moves_and_ends_with_its_task() -> None:
    def add(m: tether.Exclusive[list[int]], n: int) -> None:
        m.value.append(n)

    o: tether.Owned[list[int]] = tether.Owned([])
    m = o.borrow_mut()
    tether.spawn(add, m, 7).join()
    with pytest.raises(tether.MovedError):
        m.value  # noqa: B018
    with pytest.raises(ZeroDivisionError):
        dedicated(lambda s: s.value and 1 / 0, o.share()).join()
    assert o.take() == [7]


def test_waiting_for_a_value() -> None:
    o = tether.Owned([0])
    with o.share():
        with pytest.raises(TimeoutError):
            o.borrow_mut(timeout=0.01)
        with pytest.raises(tether.BorrowError):
            o.borrow_mut(timeout=0)
        with pytest.raises(tether.DeadlockError):
            dedicated(waits_for_itself, tether.Owned(1)).join()

    def write(m: tether.Exclusive[list[int]]) -> None:
        m.value[0] += 1

    guard = dedicated(write, o.borrow_mut())
    with o.share(timeout=WAIT) as s:
        assert s.value == [1]
    guard.join()


def waits_for_itself(o: tether.Owned[int]) -> None:
    with o.share():
        o.borrow_mut(timeout=None)


@pytest.mark.parametrize("act", ["share", "borrow_mut"])
def test_a_value_that_goes_just_before_it_is_lent_is_not_lent(act: str) -> None:
    class Taking:
        def __float__(self) -> float:
            taken.append(o.take())
            return 1.0

    class Giving:
        def __float__(self) -> float:
            given.append(tether.spawn(lambda m: m.take(), o))
            return 1.0

    taken: list[str] = []
    given: list[tether.JoinGuard[str]] = []
    for timeout in (Taking(), Giving()):
        o = tether.Owned("value")
        with pytest.raises(tether.MovedError):  # fault 23: it is another's, or nobody's
            getattr(o, act)(timeout=timeout)
        assert tether.statistics().borrows == 0
    assert taken == [given.pop().join()] == ["value"]


def test_a_cycle_through_a_value_is_collected() -> None:
    token = Token()
    token.owned = tether.Owned([token])  # type: ignore[attr-defined]
    token.borrow = token.owned.borrow_mut()  # type: ignore[attr-defined]
    token.view = token.borrow.lend()  # type: ignore[attr-defined]
    watch = weakref.ref(token)
    owned = weakref.ref(token.owned)  # type: ignore[attr-defined]
    del token
    gc.collect()
    poll(lambda: gc.collect() is not None and watch() is None and owned() is None, "the cycle to be collected")
    assert tether.statistics().borrows == 0


@pytest.mark.parametrize("wrap", [lambda o: o, lambda o: o.share(), lambda o: [o.borrow_mut()]])
def test_values_in_values_go_on_a_short_stack(wrap: Any) -> None:
    outermost = tether.Owned(None)
    for _ in range(100_000):
        outermost = tether.Owned(wrap(outermost))
    del outermost
    gc.collect()
    assert tether.statistics().borrows == 0


def test_a_destructor_that_uses_the_handle_again_is_served() -> None:
    seen: list[Any] = []

    class Old:
        def __del__(self) -> None:
            seen.append(m.value)
            with pytest.raises(tether.BorrowError):
                o.take()

    o: tether.Owned[Any] = tether.Owned(Old())
    with o.borrow_mut() as m:
        m.value = "new"  # fault 23
        poll(lambda: seen, "the destructor")
    assert seen == ["new"]
    assert o.take() == "new"


def test_a_destructor_that_finds_the_value_gone_is_served() -> None:
    seen: list[str] = []

    class Old:
        def __del__(self) -> None:
            try:
                o.share()
            except tether.MovedError:
                seen.append("taken")

    o: tether.Owned[Any] = tether.Owned(Old())
    o.take()  # fault 23
    poll(lambda: seen, "the destructor")


def test_a_forked_child_does_not_touch_the_value() -> None:
    o = tether.Owned([1])
    s = o.share()

    def child() -> None:
        for use in (o.share, o.borrow_mut, o.take, lambda: o.replace([]), lambda: s.value):
            with pytest.raises(tether.ForkedError):
                use()
        assert tether.Owned(1).take() == 1

    assert status_of(forked(child)) == 0
    s.release()
    assert o.take() == [1]


def test_many_threads_add_to_one_value() -> None:
    o = tether.Owned([0])  # G13, G20
    begin = threading.Barrier(4)

    def work() -> None:
        begin.wait()
        for i in range(100):
            with o.borrow_mut(timeout=WAIT) as m:
                m.value[0] += 1
            with o.share(timeout=WAIT) as s:
                assert s.value[0] > i

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert o.take() == [400]


def test_an_owned_value_that_goes_from_task_to_task_is_named_by_others_safely() -> None:
    o, done = tether.Owned(0), threading.Event()  # G20: its owner changes while somebody asks who that is

    class Opaque:
        owned = o

    def look(box: Any) -> int:
        refused = 0
        while not done.is_set():
            try:
                box.owned.share().release()
            except (tether.MovedError, tether.BorrowError):
                refused += 1
        return refused

    looker = dedicated(look, Opaque())
    poll(lambda: looker.task.state is tether.TaskState.RUNNING, "the looker")
    for _ in range(300):
        tether.spawn(lambda o: tether.spawn(lambda o: o, o).join() and None, o).join()
    done.set()
    looker.join()
    assert o.take() == 0


# ---- drain ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [list, bytearray])
@pytest.mark.parametrize(
    ("arguments", "taken", "left"),
    [
        ((), [0, 1, 2, 3], []),
        ((1,), [1, 2, 3], [0]),
        ((1, 3), [1, 2], [0, 3]),
        ((-2,), [2, 3], [0, 1]),
        ((3, 1), [], [0, 1, 2, 3]),
        ((0, 99), [0, 1, 2, 3], []),
    ],
)
def test_drain_takes_a_range_out(kind: Any, arguments: tuple[int, ...], taken: list[int], left: list[int]) -> None:
    o = tether.Owned(kind(range(4)))
    assert list(o.drain(*arguments)) == taken
    gc.collect()
    assert list(o.take()) == left


@pytest.mark.parametrize("end", ["block", "release", "drop", "raise", "cycle"])
def test_however_a_drain_goes_the_gap_is_closed(end: str) -> None:
    o = tether.Owned(list(range(6)))
    d = o.drain(1, 4)
    assert next(d) == 1
    with pytest.raises(tether.BorrowError):
        o.share()
    if end == "block":
        with d:
            pass
    elif end == "release":
        d.release()
        d.release()
    elif end == "raise":
        with pytest.raises(KeyError), d:
            raise KeyError
    elif end == "cycle":
        d.me = d  # type: ignore[attr-defined]
    assert end in ("drop", "cycle") or next(d, None) is None
    del d
    gc.collect()
    poll(lambda: tether.statistics().borrows == 0, "the drain to be released")
    assert o.take() == [0, 4, 5]


def test_what_cannot_be_drained_is_refused_and_stays_free() -> None:
    for value in (5, "text", (1, 2), {1: 2}):
        o: Any = tether.Owned(value)
        with pytest.raises(TypeError, match="list or bytearray") as caught:
            o.drain()
        assert o.take() == value
        assert caught.value is not None
    o = tether.Owned([1])
    with pytest.raises(TypeError):
        o.drain("a")
    with o.share(), pytest.raises(tether.BorrowError):
        o.drain()
    assert o.take() == [1]
    with pytest.raises(tether.MovedError):
        o.drain()


def test_a_drain_moves_to_a_task_with_its_borrow() -> None:
    o = tether.Owned([1, 2, 3])

    def use(d: Any) -> list[int]:
        with d:
            return [next(d)]

    assert tether.spawn(use, o.drain(0, 2)).join() == [1]
    assert o.take() == [3]


def test_a_drain_that_outlives_the_task_that_had_it_corrupts_nothing() -> None:
    o = tether.Owned([1, 2, 3])
    d = tether.spawn(lambda o: o.drain(0, 2), o).join()
    with pytest.raises(tether.BorrowError):
        next(d)
    with o.share() as s:
        with pytest.raises(tether.BorrowError):
            d.release()
        assert s.value == [1, 2, 3]
    o.replace([9, 9])
    del d
    d = tether.spawn(lambda o: o.drain(0, 1), o).join()
    d.release()
    assert o.take() == [9]
