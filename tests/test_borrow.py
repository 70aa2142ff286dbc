"""Borrow guards of regions: shared XOR exclusive (G13), their ends (G14), and the buffer protocol."""

from __future__ import annotations

import array
import copy
import ctypes
import gc
import hashlib
import io
import pickle
import re
import socket
import struct
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tether
from support import Held, Token, here, poll

N = 4096


@pytest.fixture
def r() -> Iterator[tether.Region]:
    region = tether.Region(N, name="frame")
    yield region
    if borrows():
        gc.collect()  # classes and closures of the test
    region.close()  # nothing is lent any more


def borrows() -> int:
    return tether.statistics().borrows


# ---- the rule -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "conflict"),
    [
        ((0, 10), (10, 20), False),
        ((10, 20), (0, 10), False),
        ((0, 10), (9, 10), True),
        ((0, 10), (5, 5), False),
        ((5, 5), (0, 10), False),
        ((0, N), (N - 1, N), True),
        ((3, 7), (0, N), True),
        ((N, N), (0, N), False),
    ],
)
@pytest.mark.parametrize("kinds", ["ss", "sx", "xs", "xx"])
def test_overlapping_ranges_are_all_shared_or_refused(
    r: tether.Region, first: tuple[int, int], second: tuple[int, int], conflict: bool, kinds: str
) -> None:
    lend = {"s": r.share, "x": r.borrow_mut}
    with lend[kinds[0]](*first) as a:  # G13
        if conflict and kinds != "ss":
            with pytest.raises(tether.BorrowError) as caught:  # fault 21
                lend[kinds[1]](*second)
            assert caught.value.range == first == a.range
        else:
            with lend[kinds[1]](*second) as b:
                assert b.range == second
    lend[kinds[1]](*second).release()
    assert borrows() == 0


@pytest.mark.parametrize(
    ("arguments", "keywords"),
    [
        ((-1,), {}),
        ((0, N + 1), {}),
        ((N + 1,), {}),
        ((5, 4), {}),
        ((), {"stop": -1}),
        ((2**63,), {}),
        ((0, -(2**80)), {}),
    ],
)
def test_a_range_outside_of_the_region_is_a_value_error(r: tether.Region, arguments: Any, keywords: Any) -> None:
    for lend in (r.share, r.borrow_mut):
        with pytest.raises(ValueError):  # fault 24
            lend(*arguments, **keywords)
        with pytest.raises(ValueError):
            lend(*arguments, **keywords, timeout=1)
    assert borrows() == 0


def test_arguments_of_a_borrow_are_checked(r: tether.Region) -> None:
    for lend in (r.share, r.borrow_mut):
        with pytest.raises(TypeError, match="at most 2"):
            lend(0, 1, 0)
        for arguments, keywords in (
            (("0",), {}),
            ((0.0,), {}),
            ((0,), {"start": 0}),
            ((), {"colour": 1}),
            ((), {"timeout": "1"}),
        ):
            with pytest.raises(TypeError):
                lend(*arguments, **keywords)
        for timeout in (-1, -0.5, float("nan")):
            with pytest.raises(ValueError, match="timeout"):
                lend(timeout=timeout)
        with lend(None, None) as b:
            assert b.range == (0, N)
        with lend(start=4, stop=8, timeout=None) as b:
            assert b.range == (4, 8)
    assert borrows() == 0


def test_a_conflict_names_holder_place_and_range(r: tether.Region) -> None:
    with r.borrow_mut(8, 16) as m:
        where = here().rsplit(":", 1)[0]
        with pytest.raises(tether.BorrowError) as caught:  # G13, fault 21
            r.share(0, 9)
        error = caught.value
        assert (error.holder, error.range) == (None, (8, 16))
        assert error.site is not None
        assert where in error.site
        assert re.search(
            r"cannot share region 'frame' \(bytes 0 to 9\): bytes 8 to 16 .* exclusively to the program", str(error)
        )
        assert m.range == (8, 16)

    def hold(m: tether.Exclusive[Any], inside: threading.Event, release: threading.Event) -> None:
        inside.set()
        release.wait(60)

    inside, release = threading.Event(), threading.Event()
    task = tether.options(name="writer", dedicated=True).spawn(hold, r.borrow_mut(0, 4), inside, release)
    inside.wait(60)
    with pytest.raises(tether.BorrowError, match="task 'writer'") as caught:
        r.share()
    assert caught.value.holder == task.task
    assert caught.value.range == (0, 4)
    release.set()
    task.join()


@pytest.mark.parametrize("timeout", [0, 0.0, False])
def test_a_timeout_of_zero_does_not_wait(r: tether.Region, timeout: float) -> None:
    with r.share(), pytest.raises((tether.BorrowError, TimeoutError)) as caught:
        r.borrow_mut(timeout=timeout)
    if timeout is not False:
        assert caught.type is tether.BorrowError


# ---- handles --------------------------------------------------------------------------------------------------------


def test_a_handle_ends_with_its_block_and_refuses_use(r: tether.Region) -> None:
    with r.share() as s, pytest.raises(TypeError):
        s[0] = 1  # type: ignore[index]
    with r.borrow_mut() as m:
        assert not m.expired
        m[0] = 1
    assert s.expired
    assert m.expired
    uses = [
        lambda: s[0],
        lambda: m[0],
        lambda: bytes(s),
        lambda: memoryview(m),
        lambda: m.__setitem__(0, 1),
        lambda: s.view("B"),
        s.clone,
        m.lend,
        m.downgrade,
        lambda: m.split_at(1),
        lambda: m.chunks(1),
        s.__enter__,
        m.__enter__,
    ]
    for use in uses:
        with pytest.raises(tether.BorrowError, match=r"frame.*has ended"):  # G14
            use()
    m.release()
    s.release()
    assert s.range == m.range == (0, N)
    assert len(s) == N
    assert m.source is r


def test_a_dropped_handle_ends_its_borrow(r: tether.Region) -> None:
    m = r.borrow_mut()
    watch = weakref.ref(m)
    assert borrows() == 1
    del m
    assert watch() is None
    assert borrows() == 0


def test_the_block_ends_the_borrow_when_it_raises(r: tether.Region) -> None:
    with pytest.raises(KeyError), r.borrow_mut():
        raise KeyError
    assert borrows() == 0


def test_handles_are_made_by_lending_alone(r: tether.Region) -> None:
    with r.share() as s, r.borrow_mut(0, 0) as m:
        for borrow in (s, m):
            for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
                with pytest.raises(TypeError, match="copied"):
                    duplicate(borrow)
            with pytest.raises(TypeError):
                type(borrow)()
            with pytest.raises(TypeError):
                type("Mine", (type(borrow),), {})
            with pytest.raises(AttributeError):
                borrow.value  # noqa: B018
        with pytest.raises(AttributeError):
            m.value = 1
        assert repr(s) == f"<tether.Shared of region 'frame', bytes 0 to {N}, live>"
        assert repr(m) == "<tether.Exclusive of region 'frame', bytes 0 to 0, live>"
        with m.lend():
            assert "lent further" in repr(m)
    assert "ended" in repr(s)
    assert tether.Shared[int]
    assert tether.Exclusive[int]


def test_an_empty_borrow_is_empty_and_outlives_nothing(r: tether.Region) -> None:
    with r.borrow_mut(7, 7) as m, r.borrow_mut(0, N):
        assert (len(m), bytes(m), m[:]) == (0, b"", b"")
        with pytest.raises(IndexError):
            m[0]
        assert m.chunks(3)[2].range == (7, 7)
    empty = memoryview(r.share(3, 3))
    r.close()
    assert bytes(empty) == b""
    assert hashlib.sha256(empty).digest() == hashlib.sha256().digest()


def test_chunks_of_nothing_by_size_are_none_and_suspend_nothing(r: tether.Region) -> None:
    with r.borrow_mut(7, 7) as m:
        assert m.chunks(size=4) == []
        assert bytes(m) == b""


# ---- bytes ----------------------------------------------------------------------------------------------------------


def test_bytes_are_indexed_and_sliced(r: tether.Region) -> None:
    with r.borrow_mut(0, 10) as m:
        m[:5] = b"hello"
        m[-1] = 255
        m[5:9:2] = bytearray(b"ab")
        assert (m[0], m[-1], m[1:3], m[::-1][:1], m[5:9]) == (ord("h"), 255, b"el", b"\xff", b"a\0b\0")
        assert isinstance(m[1:3], bytes)
        for key in (10, -11):
            with pytest.raises(IndexError):
                m[key]
            with pytest.raises(IndexError):
                m[key] = 1
        with pytest.raises(ValueError):
            m[0] = 256
        with pytest.raises(ValueError):
            m[:2] = b"longer"
        with pytest.raises(TypeError):
            m["a"]  # type: ignore[call-overload]
        with pytest.raises(TypeError):
            m[0] = "a"  # type: ignore[call-overload]
        with pytest.raises(TypeError, match="deleted"):
            del m[0]  # type: ignore[attr-defined]
        assert m[:5] == b"hello"
        m.release()  # no view was left behind by any of these


def test_a_shared_borrow_is_read_only_for_real(r: tether.Region, tmp_path: Path) -> None:
    s = r.share()
    view = memoryview(s)  # fault 20
    assert view.readonly
    with pytest.raises(TypeError):
        view[0] = 1
    with pytest.raises(TypeError):
        ctypes.c_char.from_buffer(s)
    with pytest.raises(TypeError):
        struct.pack_into("B", s, 0, 1)
    with pytest.raises(TypeError):
        io.BytesIO(b"x").readinto(s)
    a, b = socket.socketpair()
    with a, b, pytest.raises(TypeError):
        b.recv_into(s)
    with pytest.raises((BufferError, TypeError)):
        memoryview(s).cast("B").__setitem__(0, 1)
    assert bytes(s) == bytes(N)


def test_standard_library_reads_and_writes_through_a_borrow(r: tether.Region, tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(bytes(range(256)))
    with r.borrow_mut() as m:
        with path.open("rb", buffering=0) as file:
            assert file.readinto(m) == 256
        struct.pack_into("<I", m, 256, 0xDEADBEEF)
        number = ctypes.c_uint32.from_buffer(m, 260)
        number.value = 77
        del number
        gc.collect()
        a, b = socket.socketpair()
        with a, b:
            assert a.send(memoryview(m)[:256]) == 256
            assert b.recv_into(memoryview(m)[512:768]) == 256
    with r.share() as s:
        assert s[:256] == s[512:768] == bytes(range(256))
        assert struct.unpack_from("<II", s, 256) == (0xDEADBEEF, 77)
        assert hashlib.sha256(s).digest() == hashlib.sha256(bytes(s)).digest()
        assert array.array("B", s)[255] == 255
        assert b"".join([s])[:4] == bytes(range(4))
        assert bytearray(s)[:4] == bytes(range(4))
        assert int.from_bytes(s[:2], "little") == 256
        with path.open("wb") as file:
            file.write(s)
    assert path.stat().st_size == N


def test_numpy_sees_the_memory_itself(r: tether.Region) -> None:
    numpy = pytest.importorskip("numpy", reason="NumPy is not installed here")
    with r.borrow_mut() as m:
        numbers = numpy.frombuffer(m, dtype="f8")
        numbers[:] = 1.5
        numbers[3] = 4
        with pytest.raises(tether.BorrowError, match="raw view"):  # fault 18
            m.release()
        with pytest.raises(tether.BorrowError):
            r.close()
        del numbers
    with r.share() as s:
        numbers = numpy.frombuffer(s)
        assert numbers.sum() == 1.5 * (N // 8 - 1) + 4
        with pytest.raises(ValueError, match="read-only"):
            numbers[0] = 1
        with pytest.raises(ValueError):
            numbers.setflags(write=True)
        assert numpy.asarray(s.view("d", [8, N // 64])).shape == (8, N // 64)
        del numbers


def test_a_view_has_format_and_shape(r: tether.Region) -> None:
    with r.borrow_mut(8, 8 + 96) as m:
        doubles = m.view("d")
        assert (doubles.format, len(doubles), doubles.itemsize) == ("d", 12, 8)
        doubles[11] = 2.5
        for shape in ((3, 4), [3, 4]):
            grid = m.view("d", shape)
            assert grid.shape == (3, 4)
            assert grid[2, 3] == 2.5
        assert m.view(format="i", shape=[24])[0] == 0
        for arguments in ((), (1,), ("d", 3)):
            with pytest.raises(TypeError):
                m.view(*arguments)
        for arguments in (("zz",), ("d", [5]), ("d", [-1])):
            with pytest.raises((ValueError, TypeError)):
                m.view(*arguments)
        del doubles, grid
        with pytest.raises(TypeError):
            m.lend().split_at(3)[1].view("d")
    with r.share(8, 8 + 96) as s:
        assert s.view("d").readonly
        assert s.view("d")[11] == 2.5


# ---- raw views ------------------------------------------------------------------------------------------------------


def test_a_view_that_outlives_its_block_keeps_the_range_lent(r: tether.Region) -> None:
    with r.borrow_mut(0, 8) as m:
        view = memoryview(m)
    assert m.expired
    view[0] = 9  # G14: nothing dangles
    with pytest.raises(tether.BorrowError, match="still seen by a raw view") as caught:
        r.share()
    assert caught.value.range == (0, 8)
    assert caught.value.site is not None
    r.share(8, 16).release()
    with pytest.raises(tether.BorrowError):
        r.close()  # fault 18
    with pytest.raises(tether.BorrowError):
        m[0]
    assert borrows() == 1
    del m
    gc.collect()
    assert view[0] == 9
    view.release()
    assert borrows() == 0
    with r.share() as s:
        assert s[0] == 9


def test_release_with_a_view_is_an_error_that_changes_nothing(r: tether.Region) -> None:
    m = r.borrow_mut()
    view = memoryview(m)
    for end in (m.release, m.downgrade, m.lend, lambda: m.split_at(1), lambda: m.chunks(2)):
        with pytest.raises(tether.BorrowError, match="raw view"):  # G14
            end()
    assert not m.expired
    view[0] = m[0] + 1
    view.release()
    m.release()
    assert m.expired


def test_a_conflict_over_a_view_says_it_is_a_view_even_in_a_wait(r: tether.Region) -> None:
    with r.share() as s:
        view = memoryview(s)
    with pytest.raises(TimeoutError, match="raw view") as caught:
        r.borrow_mut(timeout=0.001)
    assert isinstance(caught.value.__cause__, tether.BorrowError)
    view.release()
    r.borrow_mut(timeout=0.001).release()


def test_a_view_keeps_the_part_and_its_lender(r: tether.Region) -> None:
    m = r.borrow_mut()
    parts = m.split_at(100)
    view = memoryview(parts[0])
    del parts
    with pytest.raises(tether.BorrowError):
        m[0]
    with pytest.raises(tether.BorrowError, match="lent further"):
        m.release()
    view[0] = 3
    view.release()
    assert m[0] == 3
    m.release()


# ---- lending further ------------------------------------------------------------------------------------------------


def test_a_lender_is_suspended_until_the_loan_ends(r: tether.Region) -> None:
    m = r.borrow_mut(0, 100)
    with m.lend() as part:
        assert part.range == (0, 100)
        part[0] = 1
        for use in (lambda: m[0], lambda: memoryview(m), m.lend, m.downgrade, lambda: m.chunks(1)):
            with pytest.raises(tether.BorrowError, match="lent further"):
                use()
        with pytest.raises(tether.BorrowError) as caught:
            r.share(50, 51)
        assert caught.value.range == (0, 100)
        assert borrows() == 2
    assert m[0] == 1
    m.release()
    assert borrows() == 0


def test_parts_of_a_borrow_are_lent_and_come_back(r: tether.Region) -> None:
    m = r.borrow_mut(10, 20)
    left, right = m.split_at(4)
    assert (left.range, right.range) == ((10, 14), (14, 20))
    left[:] = b"left"
    with right as inner:
        a, b, c = inner.chunks(3)
        assert [part.range for part in (a, b, c)] == [(14, 16), (16, 18), (18, 20)]
        with pytest.raises(tether.BorrowError):
            right[0]
        del a, b, c
        right[:] = b"right!"
    left.release()
    assert m[:] == b"leftright!"
    for at in (0, 10):
        assert [len(part) for part in m.split_at(at)] == [at, 10 - at]
    for bad in (-1, 11, 2**63):
        with pytest.raises(ValueError):
            m.split_at(bad)
    with pytest.raises(TypeError):
        m.split_at("1")  # type: ignore[arg-type]
    m.release()


def test_a_lender_that_ends_first_leaves_its_parts_usable(r: tether.Region) -> None:
    with r.borrow_mut() as m:
        part = m.lend()
    assert m.expired
    assert not part.expired
    part[0] = 5
    with pytest.raises(tether.BorrowError):
        r.share()
    part.release()
    assert borrows() == 0
    r.share().release()


def test_a_lender_that_was_dropped_is_over_with_its_parts(r: tether.Region) -> None:
    left, right = r.borrow_mut(0, 8).split_at(4)  # G14: nobody has the lender any more
    left.release()
    with pytest.raises(tether.BorrowError, match="lent exclusively") as caught:
        r.share(0, 4)  # it is whole again or not at all
    assert caught.value.range == (0, 8)
    right.release()
    r.borrow_mut(0, 8).release()
    assert borrows() == 0
    parts = r.borrow_mut().chunks(2)
    with tether.scope() as s:
        for part in parts:
            s.spawn(len, part)
    r.borrow_mut().release()
    s1 = r.borrow_mut().lend().downgrade()
    s2 = s1.clone()
    s1.release()
    assert not s2.expired
    s2.release()
    r.borrow_mut().release()
    assert borrows() == 0


def test_a_view_of_a_part_keeps_what_its_dropped_lender_had(r: tether.Region) -> None:
    view = memoryview(r.borrow_mut(4, 8).lend())  # G14
    with pytest.raises(tether.BorrowError):
        r.share(4, 5)
    view.release()
    r.share(4, 5).release()
    assert borrows() == 0


def test_a_long_way_of_loans_ends_on_a_short_stack(r: tether.Region) -> None:
    innermost = r.borrow_mut()
    for _ in range(200_000):
        innermost = innermost.lend()
    assert borrows() == 200_001
    del innermost
    assert borrows() == 0


def test_a_downgrade_lets_nobody_in_between(r: tether.Region) -> None:
    m = r.borrow_mut()
    m[0] = 3
    s = m.downgrade()
    assert m.expired
    with r.share() as other, s.clone() as again:
        assert other[0] == s[0] == again[0] == 3
    with pytest.raises(tether.BorrowError):
        r.borrow_mut()
    s.release()
    r.borrow_mut().release()


def test_a_clone_is_independent(r: tether.Region) -> None:
    s = r.share(5, 9)
    c = s.clone()
    s.release()
    assert c.range == (5, 9)
    assert not c.expired
    with pytest.raises(tether.BorrowError):
        r.borrow_mut(8)
    c.release()
    r.borrow_mut(8).release()


# ---- code that enters again -----------------------------------------------------------------------------------------


def test_an_index_that_closes_the_region_is_noticed(r: tether.Region) -> None:
    class Closing:
        def __index__(self) -> int:
            r.close()
            return 0

    for use in (lambda: r.share(Closing()), lambda: r.chunks(n_of(Closing())), lambda: r.split_at(Closing())):
        with pytest.raises(ValueError):  # fault 23
            use()
    assert borrows() == 0


def n_of(index: Any) -> Any:
    class One:
        def __index__(self) -> int:
            index.__index__()
            return 1

    return One()


def test_an_index_that_borrows_meanwhile_is_noticed(r: tether.Region) -> None:
    kept = []

    class Borrowing:
        def __index__(self) -> int:
            kept.append(r.borrow_mut())
            return 1

    for use in (lambda: r.borrow_mut(Borrowing()), lambda: r.chunks_mut(Borrowing())):
        with pytest.raises(tether.BorrowError):  # fault 23
            use()
        kept.clear()
    m = r.borrow_mut()

    class Lending:
        def __index__(self) -> int:
            kept.append(m.lend())
            return 1

    for act in (lambda: m.split_at(Lending()), lambda: m.chunks(Lending()), lambda: m.chunks(size=Lending())):
        with pytest.raises(tether.BorrowError, match="lent further"):
            act()
        kept.clear()
    m.release()  # local classes, and what they refer to, may be immortal on free-threaded builds


def test_an_index_that_ends_the_borrow_while_it_is_used_is_refused(r: tether.Region) -> None:
    m = r.borrow_mut(0, 10)
    refused: list[BaseException] = []

    class Releasing:
        def __index__(self) -> int:
            for end in (m.release, r.close):
                with pytest.raises(tether.BorrowError) as caught:
                    end()
                refused.append(caught.value)
            return 1

    assert m[Releasing()] == 0  # fault 23
    m[Releasing()] = 7
    m[0] = Releasing()
    assert m[:2] == b"\1\7"
    assert len(refused) == 6
    m.release()


@pytest.mark.skipif("sys.version_info < (3, 12)", reason="classes have __buffer__ from 3.12 on")
def test_a_buffer_that_ends_the_borrow_while_it_is_written_is_refused(r: tether.Region) -> None:
    m = r.borrow_mut(0, 4)

    class Source:
        def __buffer__(self, flags: int) -> memoryview:
            with pytest.raises(tether.BorrowError):
                m.release()
            m.__exit__(None, None, None)  # ends it, and what is being written stays lent for as long
            with pytest.raises(tether.BorrowError):
                r.close()
            return memoryview(b"abcd")

    m[:] = Source()  # type: ignore[assignment]  # fault 23
    assert m.expired
    with r.share(0, 4) as s:
        assert bytes(s) == b"abcd"


def test_a_destructor_that_borrows_when_a_view_goes_finds_the_range_free(r: tether.Region) -> None:
    seen: list[bool] = []

    class Watcher:
        def __init__(self, view: memoryview) -> None:
            self.view: memoryview | None = view

        def __del__(self) -> None:
            self.view = None
            with r.borrow_mut():  # fault 23
                seen.append(True)

    w = Watcher(memoryview(r.share()))
    del w
    gc.collect()
    poll(lambda: seen, "the destructor")


def test_a_weak_reference_callback_may_borrow_what_has_ended(r: tether.Region) -> None:
    ended: list[bool] = []
    m = r.borrow_mut(0, 1)
    watch = weakref.ref(m, lambda _: ended.append(r.share(1).expired))
    del m
    assert ended == [False]
    assert watch() is None


# ---- many threads ---------------------------------------------------------------------------------------------------


def test_many_threads_never_share_and_write_at_once(r: tether.Region) -> None:
    begin, errors = threading.Barrier(4), []  # G13, G20

    def work(number: int) -> None:
        begin.wait()
        for i in range(400):
            start = (i * 7 + number * 13) % 64
            stop = start + 1 + i % 32
            try:
                if (i + number) % 3:
                    with r.share(start, stop) as s:
                        before = s[:]
                        if before != s[:] or bytes(memoryview(s)) != before:
                            errors.append("changed while shared")
                else:
                    with r.borrow_mut(start, stop) as m:
                        m[:] = bytes([number]) * (stop - start)
                        if set(m[:]) != {number}:
                            errors.append("written by two")
            except tether.BorrowError:
                pass

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert borrows() == 0
    r.borrow_mut().release()


def test_one_handle_used_by_many_threads_of_the_root_ends_once(r: tether.Region) -> None:
    for _ in range(50):
        m = r.borrow_mut()  # G14, G20: all plain threads are one owner
        begin = threading.Barrier(4)
        wrong: list[BaseException] = []

        def use(
            m: tether.Exclusive[Any] = m, begin: threading.Barrier = begin, wrong: list[BaseException] = wrong
        ) -> None:
            begin.wait()
            for act in (
                lambda: m[0],
                lambda: m.lend().release(),
                lambda: memoryview(m)[0],
                m.release,
                lambda: m.downgrade(),
            ):
                try:
                    act()
                except tether.BorrowError:
                    pass
                except BaseException as error:
                    wrong.append(error)
            m.__exit__(None, None, None)

        threads = [threading.Thread(target=use) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        del use, m
        r.borrow_mut().release()
    assert borrows() == 0


def test_a_borrow_dies_with_the_cycle_it_is_in(r: tether.Region) -> None:
    token = Token()
    token.me = token  # type: ignore[attr-defined]
    token.borrow = r.borrow_mut()  # type: ignore[attr-defined]
    del token
    gc.collect()
    assert borrows() == 0


def test_a_held_task_is_named_when_its_borrow_is_in_the_way(r: tether.Region) -> None:
    with Held(name="other"), r.share(0, 1):
        with pytest.raises(tether.BorrowError) as caught:
            r.borrow_mut()
        assert caught.value.holder is None  # not the task's: ours
