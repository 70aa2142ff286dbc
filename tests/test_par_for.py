"""par_for: indices and parts of regions, each once, and all ended when it returns (G2, G8, G13)."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tether
from support import await_event, run_elsewhere


class Boom(Exception):
    pass


@settings(max_examples=50, deadline=None)
@given(st.integers(-5, 200), st.integers(-5, 200), st.integers(1, 5), st.sampled_from([None, 1, 10]))
def test_every_index_once(start, stop, step, grain):
    # G2
    seen = []
    tether.par_for(range(start, stop, step), seen.append, grain=grain)
    assert sorted(seen) == list(range(start, stop, step))


def test_number_is_a_range_from_zero():
    seen = []
    tether.par_for(1000, seen.append)
    assert sorted(seen) == list(range(1000))
    tether.par_for(0, seen.append)
    tether.par_for(range(5, 0, -1), seen.append)
    assert len(seen) == 1005


def test_waiting_bodies_run_at_the_same_time():
    # G8
    barrier = threading.Barrier(6)
    tether.par_for(6, lambda i: barrier.wait(60))


@pytest.mark.parametrize("grain", [None, 1, 100])
def test_failure_names_the_index_and_all_have_ended(grain):
    # G2
    def body(i):
        if i in (40, 41):
            raise Boom(i)

    with pytest.raises(Boom, match="40") as caught:
        tether.par_for(range(0, 100, 2), body, grain=grain)
    assert any("item 20: 40" in note for note in caught.value.__notes__)
    assert tether.tasks() == []
    del caught


def test_failure_cancels_what_is_behind_it():
    # G12
    begun = threading.Event()

    def body(i):
        if i == 0:
            await_event(begun)
            raise Boom
        begun.set()
        tether.sleep(3600)

    with pytest.raises(Boom):
        tether.par_for(8, body, grain=1)


def test_stop_iteration_of_the_body_is_a_failure():
    def body(i):
        raise StopIteration

    with pytest.raises(RuntimeError, match="StopIteration"):
        tether.par_for(1, body)


@pytest.mark.parametrize("grain", [None, 1000, 5000])
def test_parts_of_a_region_are_disjoint_and_cover_it(grain):
    # G13
    def add(part):
        part[:] = bytes(byte + 1 for byte in bytes(part))

    with tether.Region(9000) as region:
        tether.par_for(region, add, grain=grain)
        with region.share() as whole:
            assert bytes(whole) == b"\x01" * 9000


def test_grain_of_a_region_is_in_bytes():
    lengths = []
    with tether.Region(10_000) as region:
        tether.par_for(region, lambda part: lengths.append(len(part)), grain=4096)
    assert sorted(lengths) == [1808, 4096, 4096]


def test_parts_of_a_borrow_leave_it_with_the_caller():
    # G13
    def fill(part):
        part[:] = b"x" * len(part)

    with tether.Region(4096) as region, region.borrow_mut(100, 200) as part:
        tether.par_for(part, fill, grain=30)
        assert part[:] == b"x" * 100


def test_failed_body_gives_every_part_back():
    # G14, fault 22
    def body(part):
        view = memoryview(part)
        view[0] = 1
        raise Boom

    with tether.Region(4096) as region:
        with pytest.raises(Boom) as caught:
            tether.par_for(region, body, grain=1)
        region.borrow_mut().release()
        del caught


def test_region_that_is_lent_is_refused():
    # fault 21
    with tether.Region(4096) as region, region.share(0, 10), pytest.raises(tether.BorrowError):
        tether.par_for(region, len)


def test_nested():
    # G8
    lock, count = threading.Lock(), 0

    def body(i):
        nonlocal count
        with lock:
            count += 1

    tether.par_for(20, lambda i: tether.par_for(20, body))
    assert count == 400


def test_cancelled_caller():
    # G12
    begun = threading.Event()

    def work():
        tether.par_for(4, lambda i: (begun.set(), tether.sleep(3600)))

    guard = tether.options(dedicated=True).spawn(work)
    await_event(begun)
    guard.cancel()
    with pytest.raises(tether.TaskKilled):
        guard.join()
    assert tether.tasks() == []


def test_inside_a_task():
    seen = []
    run_elsewhere(tether.par_for, 100, seen.append)
    assert sorted(seen) == list(range(100))


def test_any_integer_will_do():
    class Two:
        def __index__(self):
            return 2

    seen = []
    tether.par_for(Two(), seen.append, grain=2**70)
    assert sorted(seen) == [0, 1]
    sizes = []
    tether.par_for(tether.Region(4096), lambda part: sizes.append(len(part)), grain=2**70)
    assert sizes == [4096]


def test_wrong_arguments_are_refused_before_anything_starts():
    with pytest.raises(TypeError, match="callable"):
        tether.par_for(5, None)
    with pytest.raises(TypeError, match="a number, a range or a region"):
        tether.par_for([1, 2], print)
    with pytest.raises(TypeError, match="a number, a range or a region"):
        tether.par_for(True, print)
    with pytest.raises(ValueError, match="grain"):
        tether.par_for(5, print, grain=0)


def test_interrupt_ends_it(run_python):
    # fault 5
    code = """
        import os, signal, tether

        def body(i):
            if i == 3:
                os.kill(os.getpid(), signal.SIGINT)
            tether.sleep(3600)

        try:
            tether.par_for(4, body, grain=1)
        except KeyboardInterrupt:
            assert tether.tasks() == [], tether.tasks()
            print("interrupted")
    """
    assert run_python(code, check=True).out == "interrupted\n"
