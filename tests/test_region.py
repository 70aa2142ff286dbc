"""Regions: mapped memory with one owner (G15), what they take, refuse, and leave behind."""

from __future__ import annotations

import copy
import fcntl
import gc
import mmap
import os
import pickle
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import tether
from conftest import RunPython
from support import await_event, dedicated, descriptors, run_dedicated
from tether import _core

PAGE = mmap.PAGESIZE
HUGE = 2 << 20


def counters() -> tuple[int, int, int]:
    stats = tether.statistics()
    return stats.regions, stats.borrows, stats.bytes_mapped


# ---- making ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [tether.Region, tether.Region.shared])
def test_a_new_region_is_zeroed_and_counted_until_it_is_closed(make: type[tether.Region]) -> None:
    assert counters() == (0, 0, 0)
    r = make(PAGE + 1, name="frame")  # G15
    assert (r.nbytes, len(r), r.name, r.mode, r.closed) == (PAGE + 1, PAGE + 1, "frame", "rw", False)
    assert counters() == (1, 0, 2 * PAGE)
    with r.share() as s:
        assert bytes(s) == bytes(PAGE + 1)
        assert counters() == (1, 1, 2 * PAGE)
    r.close()
    assert r.closed
    assert counters() == (0, 0, 0)


@pytest.mark.parametrize("make", [tether.Region, tether.Region.shared])
@pytest.mark.parametrize("size", [0, -1, -(2**80), 2**63, 2**80])
def test_a_size_that_no_region_has_is_a_value_error(make: type[tether.Region], size: int) -> None:
    with pytest.raises(ValueError, match="size of a region"):  # fault 24
        make(size)
    assert counters() == (0, 0, 0)


@pytest.mark.parametrize("size", [2**62, 2**63 - 2, 2**48])
def test_a_size_that_is_not_to_be_had_is_refused_by_the_system(size: int) -> None:
    with pytest.raises((MemoryError, OSError)):  # fault 15
        tether.Region(size)
    with pytest.raises((MemoryError, OSError)):
        tether.Region(size, huge_pages=True)
    with pytest.raises((MemoryError, OSError)):
        tether.Region.shared(size)
    assert counters() == (0, 0, 0)


@pytest.mark.parametrize("bad", ["1", 1.0, None, [1], object()])
def test_a_size_that_is_no_integer_is_a_type_error(bad: object) -> None:
    with pytest.raises(TypeError):
        tether.Region(bad)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        tether.Region.shared(bad)  # type: ignore[arg-type]


def test_arguments_of_a_region_are_checked_before_anything_is_mapped() -> None:
    with pytest.raises(TypeError, match="name must be a str"):
        tether.Region(1, name=b"bytes")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        tether.Region()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        tether.Region(1, "frame")  # type: ignore[misc]
    with pytest.raises(TypeError):
        tether.Region(1, colour="red")  # type: ignore[call-arg]
    with pytest.raises(UnicodeEncodeError):
        tether.Region.shared(1, name="\udcff")
    assert counters() == (0, 0, 0)


def test_anything_with_an_index_is_a_size() -> None:
    class Two:
        def __index__(self) -> int:
            return 2

    assert tether.Region(Two()).nbytes == 2
    assert tether.Region(True).nbytes == 1


def test_huge_pages_are_mapped_whole_and_aligned() -> None:
    r = tether.Region(HUGE + 1, huge_pages=True)
    assert r.nbytes == HUGE + 1
    assert tether.statistics().bytes_mapped == 2 * HUGE
    with r.borrow_mut() as m:
        m[0] = m[-1] = 1
        numpy = pytest.importorskip("numpy", reason="the address is told by NumPy")
        assert numpy.frombuffer(m, "u1").ctypes.data % HUGE == 0
    with pytest.raises(ValueError, match="boundary"):
        r.split_at(PAGE)
    left, right = r.split_at(HUGE)
    assert (left.nbytes, right.nbytes) == (HUGE, 1)


@pytest.mark.thread_unsafe(reason="counts the descriptors of the process")
def test_shared_memory_is_a_sealed_memory_file() -> None:
    r = tether.Region.shared(PAGE, name="across")
    found = [fd for fd in os.listdir("/proc/self/fd") if "memfd:across" in _target(fd)]
    assert len(found) == 1
    fd = int(found[0])
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 0)
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 2 * PAGE)
    assert fcntl.fcntl(fd, 1034) == 0x1 | 0x2 | 0x4  # F_GET_SEALS: seal, shrink, grow
    with r.borrow_mut() as m:
        m[:2] = b"hi"
    assert os.pread(fd, 2, 0) == b"hi"
    r.close()
    assert not any("memfd:across" in _target(other) for other in os.listdir("/proc/self/fd"))


def _target(fd: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""


def test_a_long_name_is_kept_and_shortened_for_the_system() -> None:
    name = "é" * 200
    assert tether.Region.shared(1, name=name).name == name


# ---- being one thing with one owner ---------------------------------------------------------------------------------


def test_a_region_is_neither_copied_nor_pickled_nor_subclassed() -> None:
    r = tether.Region(1)
    for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="owns its pages"):
            duplicate(r)
    with pytest.raises(TypeError):
        type("Mine", (tether.Region,), {})
    with pytest.raises(AttributeError):
        r.colour = "red"  # type: ignore[attr-defined]


def test_a_region_that_is_dropped_gives_its_pages_back() -> None:
    r = tether.Region(1)
    watch = weakref.ref(r)
    del r
    gc.collect()
    assert watch() is None
    assert counters() == (0, 0, 0)


def test_a_borrow_keeps_a_dropped_region_mapped() -> None:
    s = tether.Region(PAGE).share()  # G15
    gc.collect()
    assert counters() == (1, 1, PAGE)
    assert bytes(s) == bytes(PAGE)
    view = memoryview(s)
    del s
    gc.collect()
    assert bytes(view) == bytes(PAGE)
    assert counters() == (1, 1, PAGE)
    del view
    assert counters() == (0, 0, 0)


def test_repr_says_name_size_mode_and_end() -> None:
    r = tether.Region(5, name="frame")
    assert repr(r) == "<tether.Region 'frame', 5 bytes, mode 'rw'>"
    r.protect("r")
    assert repr(r) == "<tether.Region 'frame', 5 bytes, mode 'r'>"
    r.close()
    assert repr(r).endswith(", closed>")
    r = tether.Region(2 * PAGE)
    r.split_at(PAGE)
    assert repr(r) == f"<tether.Region of {2 * PAGE} bytes, mode 'rw', consumed>"


def test_the_block_closes_the_region() -> None:
    with tether.Region(1) as r:
        assert not r.closed
    assert r.closed
    r.close()  # again: nothing
    for use in (r.share, r.borrow_mut, r.flush, r.__enter__, lambda: r.chunks(1), lambda: r.chunks_mut(1)):
        with pytest.raises(ValueError, match="is closed"):
            use()
    for change in (lambda: r.protect("r"), lambda: r.split_at(1), lambda: r.advise("random")):
        with pytest.raises(ValueError, match="is closed"):
            change()


def test_leaving_the_block_while_something_is_lent_is_an_error() -> None:
    r = tether.Region(1, name="frame")
    with pytest.raises(tether.BorrowError, match="frame"), r:  # fault 18
        s = r.share()
    assert not r.closed
    assert s[0] == 0
    with pytest.raises(KeyError), r:  # the block's own exception matters more
        raise KeyError
    s.release()
    with r:
        pass
    assert r.closed


# ---- as a whole -----------------------------------------------------------------------------------------------------


def test_nothing_happens_to_a_region_while_some_of_it_is_lent() -> None:
    r = tether.Region(4 * PAGE, name="frame")
    left, right = tether.Region(2 * PAGE).split_at(PAGE)
    with r.borrow_mut(0, 1) as m, right.share(0, 1):
        m[0] = 7
        for change in (r.close, lambda: r.split_at(PAGE), lambda: r.protect("r")):  # fault 18
            with pytest.raises(tether.BorrowError, match="frame") as caught:
                change()
            assert caught.value.range == (0, 1)
            assert caught.value.holder is None
            assert caught.value.site is not None
            assert "test_region.py:" in caught.value.site
        with pytest.raises(tether.BorrowError):
            left.merge(right)
        with pytest.raises(tether.BorrowError):
            right.merge(left)
        assert m[0] == 7
        assert not r.closed
    whole = left.merge(right)  # the left one was given back each time
    assert whole.nbytes == 2 * PAGE


def test_split_consumes_and_the_halves_are_the_pages() -> None:
    r = tether.Region(4 * PAGE + 10, name="frame")
    with r.borrow_mut() as m:
        m[PAGE - 1], m[PAGE], m[-1] = 1, 2, 3
    left, right = r.split_at(PAGE)
    assert (left.nbytes, right.nbytes, left.name, right.name) == (PAGE, 3 * PAGE + 10, "frame", "frame")
    assert counters() == (2, 0, 5 * PAGE)
    with left.share() as a, right.share() as b:
        assert (a[-1], b[0], b[-1]) == (1, 2, 3)
    assert r.closed
    r.close()
    for use in (r.share, r.borrow_mut, lambda: r.split_at(PAGE), lambda: r.merge(left), lambda: left.merge(r)):
        with pytest.raises(tether.MovedError, match="consumed"):
            use()
    left.close()
    with right.share() as b:
        assert b[0] == 2
    right.close()
    assert counters() == (0, 0, 0)


@pytest.mark.parametrize("offset", [0, 1, PAGE - 1, PAGE + 1, 2 * PAGE, 3 * PAGE, -PAGE, -1])
def test_a_region_is_split_inside_of_it_on_a_page(offset: int) -> None:
    r = tether.Region(2 * PAGE)
    with pytest.raises(ValueError, match="boundary"):
        r.split_at(offset)
    with pytest.raises(ValueError):
        r.split_at(2**63)
    r.share().release()


def test_merge_takes_the_right_hand_neighbour_alone() -> None:
    a, rest = tether.Region(3 * PAGE).split_at(PAGE)
    b, c = rest.split_at(PAGE)
    stranger = tether.Region(PAGE)
    for left, right in ((b, a), (a, c), (c, a), (a, stranger), (stranger, a)):
        with pytest.raises(ValueError, match="neighbour"):
            left.merge(right)
    with pytest.raises(ValueError, match="itself"):
        a.merge(a)
    with pytest.raises(TypeError):
        a.merge(b"bytes")  # type: ignore[arg-type]
    b.protect("r")
    with pytest.raises(ValueError, match="same"):
        a.merge(b)
    b.protect("rw")
    whole = a.merge(b).merge(c)
    assert whole.nbytes == 3 * PAGE
    assert a.closed
    assert b.closed
    with pytest.raises(tether.MovedError):
        b.share()
    with whole.borrow_mut() as m:
        m[:] = b"x" * len(m)


@pytest.mark.thread_unsafe(reason="counts the descriptors of the process")
def test_halves_of_shared_memory_are_one_file_that_goes_with_the_last() -> None:
    before = descriptors()
    left, right = tether.Region.shared(2 * PAGE).split_at(PAGE)
    assert descriptors() == before + 1
    left.close()
    assert descriptors() == before + 1
    right.close()
    assert descriptors() == before


def test_protect_takes_the_right_to_write_and_gives_it_back() -> None:
    r = tether.Region(1, name="frame")
    r.protect("r")
    assert r.mode == "r"
    with pytest.raises(tether.BorrowError, match=r"frame.*protected"):  # fault 20
        r.borrow_mut()
    with pytest.raises(tether.BorrowError):
        r.chunks_mut(1)
    r.share().release()
    r.protect("rw")
    assert r.mode == "rw"
    r.borrow_mut().release()
    for bad in ("w", "", 1, None):
        with pytest.raises(ValueError, match="protect"):
            r.protect(bad)  # type: ignore[arg-type]


def test_the_halves_of_a_protected_region_are_protected() -> None:
    r = tether.Region(2 * PAGE)
    r.protect("r")
    for half in r.split_at(PAGE):
        with pytest.raises(tether.BorrowError):
            half.borrow_mut()


def test_flush_and_advise_work_beside_readers_and_not_beside_a_writer() -> None:
    r = tether.Region(PAGE)
    with r.share():
        r.flush()
        for advice in ("normal", "sequential", "random", "willneed"):
            r.advise(advice)  # type: ignore[arg-type]
    with r.borrow_mut():
        for work in (r.flush, lambda: r.advise("random")):
            with pytest.raises(tether.BorrowError):
                work()
    for bad in ("dontneed", "", 1, None):
        with pytest.raises(ValueError, match="advise"):
            r.advise(bad)  # type: ignore[arg-type]
    assert counters() == (1, 0, PAGE)


def test_anybody_may_borrow_from_a_region_by_its_reference() -> None:
    r = tether.Region(PAGE)

    def work() -> int:
        with r.borrow_mut() as m:
            m[0] += 1
            return m[0]

    assert [tether.spawn(work).join(), run_dedicated(work)] == [1, 2]


# ---- chunks ---------------------------------------------------------------------------------------------------------


def sizes(parts: list[tether.Shared[object]]) -> list[int]:
    return [len(part) for part in parts]


@pytest.mark.parametrize(
    ("nbytes", "n", "unit"),
    [
        (10, 3, 1),
        (3, 5, 1),
        (1, 1, 1),
        (1000, 7, 1),
        (PAGE * 128 + 5, 2, PAGE),
        (PAGE * 127, 2, 1),
        (PAGE * 195 + 1, 3, PAGE),
    ],
)
def test_n_chunks_differ_by_at_most_one_unit_and_the_last_takes_the_rest(nbytes: int, n: int, unit: int) -> None:
    r = tether.Region(nbytes)
    parts = r.chunks(n)
    assert len(parts) == n
    bounds = [part.range for part in parts]
    assert [b[0] for b in bounds[1:]] == [b[1] for b in bounds[:-1]]  # type: ignore[index]
    assert (bounds[0][0], bounds[-1][1]) == (0, nbytes)  # type: ignore[index]
    units = [size // unit for size in sizes(parts)]
    assert max(units) - min(units) <= 1
    assert all(size % unit == 0 for size in sizes(parts)[:-1])


@pytest.mark.parametrize(("nbytes", "size"), [(10, 3), (10, 5), (10, 10), (10, 11), (1, 1), (10, 2**62)])
def test_chunks_of_a_size_have_that_size_but_for_the_last(nbytes: int, size: int) -> None:
    expected = [min(size, nbytes - at) for at in range(0, nbytes, size)]
    r = tether.Region(nbytes)
    assert sizes(r.chunks(size=size)) == expected
    parts = r.chunks_mut(size=size)
    assert [len(part) for part in parts] == expected
    assert sum(len(part) for m in [parts.pop()] for part in m.chunks(size=1)) == expected[-1]


def test_arguments_of_chunks_are_checked() -> None:
    r = tether.Region(10)
    with r.borrow_mut() as m:
        for chunks in (r.chunks, r.chunks_mut, m.chunks):
            for bad in (0, -1, 2**63):
                with pytest.raises(ValueError):
                    chunks(bad)
                with pytest.raises(ValueError):
                    chunks(size=bad)
            for arguments in ((), ("2",), (1.5,), (1, 2)):
                with pytest.raises(TypeError):
                    chunks(*arguments)
            with pytest.raises(TypeError):
                chunks(2, size=5)
            with pytest.raises(MemoryError):
                chunks(2**62)
    assert counters()[1] == 0


def test_chunks_are_lent_all_or_none() -> None:
    r = tether.Region(100)
    with r.share(50, 51):
        with pytest.raises(tether.BorrowError) as caught:
            r.chunks_mut(4)
        assert caught.value.range == (50, 51)
        assert counters()[1] == 1
        assert len(r.chunks(4)) == 4
    parts = r.chunks_mut(4)
    with pytest.raises(tether.BorrowError):
        r.chunks(1)
    assert counters()[1] == 4
    del parts
    assert counters()[1] == 0


# ---- scarcity -------------------------------------------------------------------------------------------------------


@contextmanager
def failing_pages(nth: int) -> Iterator[None]:
    """The nth change of pages fails."""
    _core._fail_nth("pages", nth)
    try:
        yield
    finally:
        left = _core._fail_nth("pages", 0)
    assert left == 0, "it did not get so far"


def test_a_mapping_that_fails_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 10)
    before = descriptors()
    makers = (
        lambda: tether.Region(1),
        lambda: tether.Region(1, huge_pages=True),
        lambda: tether.Region.shared(1),
        lambda: tether.Region.open(path),
    )
    for make in makers:
        with failing_pages(1), pytest.raises((MemoryError, OSError)):  # fault 15
            make()
    for make in (lambda: tether.Region(1, protect=True), lambda: tether.Region.shared(1, protect=True)):
        with failing_pages(2), pytest.raises((MemoryError, OSError)):
            make()
    gc.collect()
    assert counters() == (0, 0, 0)
    assert descriptors() == before


@pytest.mark.thread_unsafe(reason="the next mapping call of the process fails")
def test_a_protection_that_fails_changes_nothing() -> None:
    r = tether.Region(2 * PAGE)
    with failing_pages(1), pytest.raises((MemoryError, OSError)):  # fault 15
        r.protect("r")
    assert r.mode == "rw"
    with r.borrow_mut() as m:
        m[0] = 1
    r.protect("r")
    with failing_pages(1), pytest.raises((MemoryError, OSError)):
        r.protect("rw")
    assert r.mode == "r"
    with pytest.raises(tether.BorrowError):
        r.borrow_mut()


def test_a_guarded_borrow_that_fails_is_not_lent() -> None:
    r = tether.Region(4 * PAGE, protect=True)
    for borrow in (r.share, r.borrow_mut, lambda: r.chunks_mut(4), lambda: r.borrow_mut(0, 1, timeout=5)):
        with failing_pages(1), pytest.raises(MemoryError):  # fault 15
            borrow()
        assert counters() == (1, 0, 4 * PAGE)
    with r.borrow_mut() as m:
        m[:] = b"y" * len(m)
    with failing_pages(1), pytest.raises((MemoryError, OSError)):
        r.split_at(PAGE)
    with r.share() as s:
        assert s[-1] == ord("y")
    left, right = r.split_at(PAGE)
    for nth in (1, 2, 3):
        with failing_pages(nth), pytest.raises((MemoryError, OSError)):
            left.merge(right)
    with left.merge(right).share() as s:
        assert bytes(s) == b"y" * 4 * PAGE


def test_address_space_that_is_used_up_is_an_error(run_python: RunPython) -> None:
    run_python(  # fault 15
        """
        import resource, tether
        r = tether.Region(1 << 20)
        tether.statistics()  # imports nothing later
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), resource.RLIM_INFINITY))
        kept = []
        try:
            while len(kept) < 100:
                kept.append(tether.Region(4 << 20))
        except (MemoryError, OSError):
            pass
        kept.pop()
        assert 0 < len(kept) < 100, len(kept)
        assert tether.statistics().regions == 1 + len(kept)
        with r.borrow_mut() as m:
            m[-1] = 1
        kept.append(tether.Region(4 << 20))
        """,
        check=True,
    )


def test_descriptors_that_are_used_up_are_an_os_error(run_python: RunPython) -> None:
    run_python(  # fault 16
        """
        import errno, os, resource, tether
        r = tether.Region.shared(1)
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1, 4096))
        for make in (lambda: tether.Region.shared(1), lambda: tether.Region.open("/proc/self/exe")):
            for _ in range(100):
                try:
                    make()
                except OSError as e:
                    assert e.errno == errno.EMFILE, e
                else:
                    raise AssertionError("made")
        tether.Region(1).close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, 4096))
        for _ in range(300):
            tether.Region.shared(1).close()
            tether.Region.open("/proc/self/exe").close()
        assert tether.statistics().regions == 1
        """,
        check=True,
    )


def test_too_many_maps_are_an_error_and_none_is_lost(run_python: RunPython) -> None:
    run_python(  # fault 15
        """
        import mmap, tether
        most = int(open("/proc/sys/vm/max_map_count").read())
        if most > 200_000:
            raise SystemExit  # more than a test should make
        page = mmap.PAGESIZE
        tether.statistics()  # imports nothing later
        r = tether.Region(2 * most * page, protect=True)
        kept = []
        try:
            for at in range(most):
                kept.append(r.borrow_mut(2 * at * page, 2 * at * page + 1))  # each a mapping of its own
        except (MemoryError, OSError):
            pass
        assert 1000 < len(kept) < most, len(kept)
        assert tether.statistics().borrows == len(kept)
        for m in kept[::1000]:
            m[0] = 1
        del m
        kept.clear()
        with r.share(0, 1) as s:
            assert s[0] == 1
        r.close()
        assert tether.statistics().bytes_mapped == 0
        """,
        check=True,
    )


# ---- the memory unit guards what is lent ----------------------------------------------------------------------------


def stray(run_python: RunPython, setup: str, act: str) -> int:
    """Run it with the address of the region at hand; return the exit code."""
    code = f"""
import ctypes, mmap, resource, tether
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
page = mmap.PAGESIZE
r = tether.Region(4 * page, protect=True)
m = r.borrow_mut()
address = ctypes.addressof(ctypes.c_char.from_buffer(m))
import gc; gc.collect()
m.release()
peek = lambda at: ctypes.string_at(address + at, 1)
poke = lambda at: ctypes.memset(address + at, 1, 1)
{setup}
print("ready", flush=True)
{act}
print("done", flush=True)
"""
    ran = run_python(code)
    assert ran.out.startswith("ready"), ran.err
    assert ("done" in ran.out) == (ran.rc == 0)
    return ran.rc


@pytest.mark.parametrize(
    ("setup", "act", "rc"),
    [
        ("", "peek(0)", -11),
        ("", "poke(0)", -11),
        ("s = r.share()", "peek(0); peek(4 * page - 1)", 0),
        ("s = r.share()", "poke(0)", -11),
        ("s = r.share(page, 2 * page)", "peek(page)", 0),
        ("s = r.share(page, 2 * page)", "peek(page - 1)", -11),
        ("s = r.share(page, 2 * page)", "peek(2 * page)", -11),
        ("m = r.borrow_mut(page, page + 1)", "poke(page)", 0),
        ("m = r.borrow_mut(page, page + 1)", "peek(0)", -11),
        ("m = r.borrow_mut(); m.release()", "peek(0)", -11),
        ("s = r.share(0, 10); m = r.borrow_mut(10, 20)", "poke(10)", 0),  # neighbours on a page: the writer's rights
        ("s = r.share(0, 10); m = r.borrow_mut(10, 20); m.release()", "poke(10)", -11),
        ("s = r.share(0, 10); m = r.borrow_mut(10, 20); s.release()", "poke(10)", 0),
        ("a, b = r.split_at(page); s = a.share()", "peek(page - 1)", 0),
        ("a, b = r.split_at(page); s = a.share()", "peek(page)", -11),
        ("m = r.borrow_mut(); s = m.downgrade()", "peek(0)", 0),
        ("m = r.borrow_mut(); s = m.downgrade()", "poke(0)", -11),
        ("m = r.borrow_mut(); v = memoryview(m); m.__exit__(None, None, None)", "poke(0)", 0),  # G14: still viewed
    ],
)
def test_a_stray_access_crashes_at_the_spot(run_python: RunPython, setup: str, act: str, rc: int) -> None:
    assert stray(run_python, setup, act) == rc


def test_a_protected_region_cannot_be_written_by_native_code(run_python: RunPython) -> None:
    code = """
    import ctypes, resource, tether
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    r = tether.Region(10)
    m = r.borrow_mut()
    address = ctypes.addressof(ctypes.c_char.from_buffer(m))
    import gc; gc.collect()
    m.release()
    r.protect("r")
    assert ctypes.string_at(address, 1) == b"\\0"
    ctypes.memset(address, 1, 1)
    """
    assert run_python(code).rc == -11


# ---- many threads ---------------------------------------------------------------------------------------------------


def test_whole_region_changes_by_many_threads_are_one_after_another() -> None:
    r = tether.Region(2 * PAGE)  # G15, G20
    begin = threading.Barrier(4)
    errors: list[BaseException] = []

    def change(number: int) -> None:
        begin.wait()
        for i in range(300):
            try:
                if number == 0:
                    r.protect("r" if i % 2 else "rw")
                elif number == 1:
                    with r.share() as s:
                        assert s[0] == 0
                elif number == 2:
                    r.protect("rw")
                else:
                    r.flush()
            except tether.BorrowError:
                pass
            except BaseException as error:
                errors.append(error)

    threads = [threading.Thread(target=change, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    r.protect("rw")
    r.borrow_mut().release()
    assert counters() == (1, 0, 2 * PAGE)


def test_a_region_closed_by_many_threads_is_unmapped_once() -> None:
    for _ in range(100):
        r = tether.Region(PAGE)  # G15
        begin = threading.Barrier(4)
        errors: list[BaseException] = []

        def close(r: tether.Region = r, begin: threading.Barrier = begin, errors: list[BaseException] = errors) -> None:
            begin.wait()
            try:
                r.close()
            except tether.BorrowError:
                pass  # another one was about to
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=close) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert r.closed
        assert counters() == (0, 0, 0)


def test_a_view_released_while_another_thread_closes_is_never_left_dangling() -> None:
    for _ in range(100):
        r = tether.Region(PAGE)  # fault 19
        views = [memoryview(r.share())]
        begin = threading.Event()

        def close(r: tether.Region = r, begin: threading.Event = begin) -> None:
            begin.set()
            while not r.closed:
                with suppress(tether.BorrowError):
                    r.close()

        closer = dedicated(close)
        await_event(begin)
        assert bytes(views[0]) == bytes(PAGE)
        views.pop().release()
        closer.join()
        assert counters() == (0, 0, 0)
