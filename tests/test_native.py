"""tether.native.parallel_for: C functions over numbers and memory, however they are described."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import threading
import weakref

import pytest

import native
import tether
from native import BYTES_TEXT, RANGE, RANGE_TEXT, READS_TEXT, Fault, address, capsule, counters, library
from support import await_event, dedicated, forked, poll, status_of
from tether.native import NativeError, NativeFunction, parallel_for

N = 1000


@pytest.fixture(scope="module")
def lib():
    return library()


def as_ctypes(lib):
    return lib.visit


def as_capsule(lib):
    return capsule(lib.visit, RANGE_TEXT)


def as_function(lib):
    return NativeFunction(lib.visit)


def as_low_level_callable(lib):
    scipy = pytest.importorskip("scipy", reason="SciPy is not installed: it has no wheels for this build")
    assert scipy
    from scipy import LowLevelCallable

    return LowLevelCallable(lib.visit)


def as_cffi(lib):
    cffi = pytest.importorskip("cffi", reason="cffi is not installed: it has no wheels for this build")
    return cffi.FFI().cast("int (*)(intptr_t, intptr_t, void *)", address(lib.visit))


def as_cython_capsule(lib):
    return capsule(lib.visit, "int (Py_ssize_t, Py_ssize_t, void *)")


@pytest.mark.parametrize(
    "describe", [as_ctypes, as_capsule, as_function, as_low_level_callable, as_cffi, as_cython_capsule]
)
def test_every_description_of_a_function_reaches_every_number_once(lib, describe):
    counts = counters(N)
    parallel_for(describe(lib), N, counts)
    assert list(counts) == [1] * N


def test_numba_function_runs_over_numbers_and_memory():
    numba = pytest.importorskip("numba", reason="numba is not installed: it has no wheels for this build")
    from numba import carray, cfunc, types

    @cfunc(types.int32(types.intp, types.intp, types.CPointer(types.int64)))
    def visit(begin, end, user_data):
        counts = carray(user_data, (N,))
        for i in range(begin, end):
            counts[i] += 1
        return 0

    @cfunc(types.int32(types.CPointer(types.float64), types.intp, types.intp, types.voidptr))
    def halve(data, size, offset, user_data):
        numbers = carray(data, (size // 8,))
        for i in range(size // 8):
            numbers[i] /= 2
        return 0

    assert numba
    counts = counters(N)
    parallel_for(visit, N, counts)
    assert list(counts) == [1] * N
    with tether.Region(80_000) as region:
        tether.native.fill(region, 3.0, format="d")
        parallel_for(halve, region)
        assert tether.native.min(region, format="d") == tether.native.max(region, format="d") == 1.5


def test_address_needs_its_signature(lib):
    counts = counters(N)
    with pytest.raises(ValueError, match="signature="):
        parallel_for(address(lib.visit), N, counts)
    parallel_for(address(lib.visit), N, counts, signature=RANGE_TEXT)
    assert list(counts) == [1] * N


def test_ctypes_function_without_types_needs_its_signature():
    # An untyped function would be called on a guess.
    untyped = ctypes.CDLL(native.library()._name).visit
    counts = counters(N)
    with pytest.raises(ValueError, match="argtypes"):
        parallel_for(untyped, N, counts)
    parallel_for(untyped, N, counts, signature=RANGE_TEXT)
    assert list(counts) == [1] * N


@pytest.mark.parametrize("name", ["visit_quietly", "visit_long"])
def test_functions_that_answer_nothing_or_a_long(lib, name):
    counts = counters(N)
    parallel_for(getattr(lib, name), N, counts)
    assert list(counts) == [1] * N


FITTING = [
    "int(intptr_t,intptr_t,void*)",
    "  int  ( ssize_t begin , ssize_t end , void * data ) ",
    "int (*)(long, long, void *)",
    "int32_t (int64_t, int64_t, char *)",
    "int (size_t begin, size_t end, const double *x)",
    "int (long int, unsigned long, struct thing *)",
]
UNFITTING = [
    "",
    "int",
    "int ()",
    "int (void)",
    "int (int, int, void *)",
    "int (intptr_t, intptr_t)",
    "int (intptr_t, intptr_t, intptr_t)",
    "int (intptr_t, intptr_t, void *, void *)",
    "int (void *, int, size_t, void *)",
    "int (double, double, void *)",
    "double (intptr_t, intptr_t, void *)",
    "void * (intptr_t, intptr_t, void *)",
    "int (intptr_t, intptr_t, void *) nogil",
    "int (*(intptr_t, intptr_t, void *)",
    "int (intptr_t, intptr_t, void *, size_t, size_t)",
    "long double (intptr_t, intptr_t, void *)",
    "short int (intptr_t, intptr_t, void *)",
    "int (long double, intptr_t, void *)",
]


@pytest.mark.parametrize("signature", FITTING)
def test_signature_that_fits_is_understood(lib, signature):
    counts = counters(N)
    parallel_for(capsule(lib.visit, signature), N, counts)
    assert list(counts) == [1] * N


@pytest.mark.parametrize("signature", UNFITTING)
def test_signature_that_does_not_fit_is_refused_and_nothing_called(lib, signature):
    counts = counters(N)
    with pytest.raises(ValueError, match="signature"):
        parallel_for(capsule(lib.visit, signature), N, counts)
    assert list(counts) == [0] * N


def test_capsule_without_a_name_is_refused(lib):
    with pytest.raises(ValueError, match="no name"):
        parallel_for(capsule(lib.visit, None), N)


def test_ctypes_function_whose_types_are_not_of_ctypes_is_refused():
    class Converts:
        @classmethod
        def from_param(cls, value):
            return value

    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_ssize_t, ctypes.c_ssize_t, ctypes.c_void_p)
    func = kind(lambda begin, end, data: 0)
    func.argtypes = [ctypes.c_ssize_t, ctypes.c_ssize_t, Converts]
    with pytest.raises(ValueError, match="Converts"):
        parallel_for(func, N)
    func = kind(lambda begin, end, data: 0)
    func.restype = lambda answer: answer
    with pytest.raises(ValueError, match="signature"):
        parallel_for(func, N)


@pytest.mark.parametrize("func", [None, "visit", len, object(), (), (1, 2)])
def test_what_is_no_c_function_is_refused(func):
    with pytest.raises(TypeError, match="C function"):
        parallel_for(func, N)


def test_null_pointer_is_refused():
    with pytest.raises(ValueError, match="address 0"):
        parallel_for(0, N, signature=RANGE_TEXT)


# ---- numbers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["guided", "static"])
@pytest.mark.parametrize("grain", [None, 1, 7, 100, 10_000, 2**70])
@pytest.mark.parametrize("threads", [None, 1, 3])
def test_every_number_is_visited_once(lib, schedule, grain, threads):
    counts = counters(N)
    parallel_for(lib.visit, N, counts, grain, schedule=schedule, threads=threads)
    assert list(counts) == [1] * N


def test_parts_begin_at_multiples_of_the_grain(lib):
    notes = counters(1 + 2 * N)
    parallel_for(lib.note_parts, N, notes, 64)
    parts = sorted((notes[1 + 2 * i], notes[2 + 2 * i]) for i in range(notes[0]))
    assert [begin for begin, _ in parts] == [0, *[end for _, end in parts[:-1]]]
    assert parts[-1][1] == N
    assert [begin % 64 for begin, _ in parts] == [0] * len(parts)


def test_static_parts_are_equal_shares(lib):
    notes = counters(1 + 2 * N)
    parallel_for(lib.note_parts, N, notes, schedule="static", threads=3)
    parts = sorted((notes[1 + 2 * i], notes[2 + 2 * i]) for i in range(notes[0]))
    assert parts == [(0, 334), (334, 668), (668, 1000)]


def test_range_has_its_own_first_number(lib):
    counts = counters(N)
    parallel_for(lib.visit, range(100, 300), counts)
    assert list(counts) == [1 if 100 <= i < 300 else 0 for i in range(N)]
    notes = counters(1 + 2 * N)
    parallel_for(lib.note_parts, range(-5, 3), notes, grain=8)
    assert list(notes[:3]) == [1, -5, 3]


@pytest.mark.parametrize("nothing", [0, range(0), range(5, 3)])
def test_nothing_to_do_calls_nothing(nothing):
    parallel_for(native.address(ctypes.CDLL(None).abort), nothing, signature=RANGE_TEXT)


@pytest.mark.parametrize(
    ("kwargs", "error"),
    [
        ({"grain": 0}, ValueError),
        ({"grain": -1}, ValueError),
        ({"grain": "a"}, TypeError),
        ({"threads": 0}, ValueError),
        ({"schedule": "dynamic"}, ValueError),
        ({"schedule": None}, ValueError),
        ({"signature": 5}, TypeError),
        ({"user_data": 1.5}, TypeError),
        ({"user_data": "text"}, TypeError),
        ({"nonsense": 1}, TypeError),
    ],
)
def test_bad_arguments_are_refused(lib, kwargs, error):
    with pytest.raises(error):
        parallel_for(lib.visit, 1, **kwargs)


@pytest.mark.parametrize(
    ("what", "error"),
    [(-1, ValueError), (range(0, 10, 2), ValueError), (2**63, OverflowError), ("ab", TypeError), (1.5, TypeError)],
)
def test_bad_ranges_are_refused(lib, what, error):
    with pytest.raises(error):
        parallel_for(lib.visit, what)


# ---- user_data ------------------------------------------------------------------------------------------------------


def test_user_data_may_be_an_address_a_pointer_a_buffer_or_a_capsule(lib):
    for given in (
        ctypes.addressof,
        ctypes.pointer,
        ctypes.byref,
        lambda counts: ctypes.cast(counts, ctypes.c_void_p),
        lambda counts: capsule(counts, "longs"),
        lambda counts: counts,
        memoryview,
    ):
        counts = counters(N)
        if given is ctypes.byref:
            with pytest.raises(TypeError, match="user_data"):
                parallel_for(lib.visit, N, given(counts))
            continue
        parallel_for(lib.visit, N, given(counts))
        assert list(counts) == [1] * N


def test_user_data_may_be_a_borrow(lib):
    with tether.Region(8 * N) as region:
        with region.borrow_mut() as borrow:
            parallel_for(lib.visit, N, borrow)
        assert list(region.share().view("l")) == [1] * N


def test_user_data_of_the_callable_is_used_unless_other_is_given(lib):
    ours, others = counters(N), counters(N)
    func = capsule(lib.visit, RANGE_TEXT, ctypes.addressof(ours))
    parallel_for(func, N)
    parallel_for(func, N, others)
    assert list(ours) == list(others) == [1] * N


def test_cffi_data_is_taken_as_a_pointer(lib):
    cffi = pytest.importorskip("cffi", reason="cffi is not installed: it has no wheels for this build")
    counts = cffi.FFI().new("long[]", N)
    parallel_for(lib.visit, N, counts)
    assert list(counts) == [1] * N


# ---- memory ---------------------------------------------------------------------------------------------------------


def test_every_byte_of_a_region_is_in_one_part_and_knows_its_offset(lib):
    for size in (1, 4095, 4096, 4097, 50_000):
        offsets = counters(size)
        with tether.Region(size) as region:
            parallel_for(lib.raise_bytes, region, offsets, threads=3)
            assert bytes(region.share()) == b"\1" * size
        assert list(offsets) == [1] * size


def test_offset_counts_from_the_start_of_the_region(lib):
    offsets = counters(9000)
    with tether.Region(9000) as region:
        with region.borrow_mut(1000, 8500) as borrow:
            parallel_for(lib.raise_bytes, borrow, offsets, 512)
        assert bytes(region.share()) == b"\0" * 1000 + b"\1" * 7500 + b"\0" * 500
    assert [i for i, count in enumerate(offsets) if count] == list(range(1000, 8500))


def test_function_that_only_reads_shares(lib):
    # G13: readers beside readers.
    total = counters(1)
    reads = capsule(lib.sum_bytes, READS_TEXT)
    with tether.Region(100_000) as region:
        tether.native.fill(region, 3)
        with region.share() as shared:
            parallel_for(reads, region, total)
            parallel_for(reads, shared, total)
            parallel_for(lib.sum_bytes, shared, total, signature=READS_TEXT)
    assert total[0] == 3 * 300_000


def test_function_that_writes_does_not_get_a_shared(lib):
    # fault 20
    with tether.Region(100) as region, region.share() as shared:
        with pytest.raises(TypeError, match="const"):
            parallel_for(lib.raise_bytes, shared)
        assert bytes(shared) == b"\0" * 100


def test_region_that_is_lent_is_refused_with_its_holder(lib):
    # G13, fault 21
    with tether.Region(100, name="busy") as region, region.share(10, 20) as shared:
        with pytest.raises(tether.BorrowError, match="busy") as caught:
            parallel_for(lib.raise_bytes, region)
        assert caught.value.range == (10, 20)
        assert bytes(shared) == b"\0" * 10


def test_region_is_lent_exclusively_while_the_function_runs(lib):
    # G13: and it is back afterwards.
    inside, release = counters(2), threading.Event()
    inside[0] = 1
    region = tether.Region(100, name="held")
    refused = []

    @ctypes.CFUNCTYPE(ctypes.c_int, *native.BYTES)
    def hold(data, size, offset, user_data):
        for borrow in (region.share, region.borrow_mut, region.close):
            try:
                borrow()
            except tether.BorrowError:
                refused.append(borrow)
        release.set()
        return 0

    parallel_for(hold, region)
    await_event(release)
    assert len(refused) == 3
    region.close()


def test_exclusive_is_suspended_while_the_function_runs():
    with tether.Region(100) as region, region.borrow_mut() as borrow:
        seen = []

        @ctypes.CFUNCTYPE(ctypes.c_int, *native.BYTES)
        def look(data, size, offset, user_data):
            try:
                borrow[0]
            except tether.BorrowError as error:
                seen.append(str(error))
            return 0

        parallel_for(look, borrow)
        assert len(seen) == 1
        assert "lent further" in seen[0]
        borrow[0] = 1  # usable again


def test_borrow_is_back_after_a_failure(lib):
    with tether.Region(10_000) as region:
        with pytest.raises(NativeError):
            parallel_for(lib.fail_bytes, region)
        region.borrow_mut().release()


def test_read_only_region_is_refused_to_a_function_that_writes(lib, tmp_path):
    # G15
    path = tmp_path / "file"
    path.write_bytes(b"x" * 5000)
    with tether.Region.open(path) as region:
        with pytest.raises(tether.BorrowError, match="read-only"):
            parallel_for(lib.raise_bytes, region)
        total = counters(1)
        parallel_for(lib.sum_bytes, region, total, signature=READS_TEXT)
        assert total[0] == 5000 * ord("x")


def test_other_buffers_are_taken_as_they_are(lib):
    data = bytearray(10_000)
    parallel_for(lib.raise_bytes, data)
    assert data == b"\1" * 10_000
    with pytest.raises(TypeError, match="writable"):
        parallel_for(lib.raise_bytes, b"constant")
    with pytest.raises(TypeError, match="contiguous"):
        parallel_for(lib.raise_bytes, memoryview(data)[::2])


def test_numbers_and_memory_are_not_mistaken_for_each_other(lib):
    with tether.Region(100) as region:
        with pytest.raises(TypeError, match="range of numbers"):
            parallel_for(lib.visit, region)
    with pytest.raises(TypeError, match="memory"):
        parallel_for(lib.raise_bytes, 100)


# ---- failures -------------------------------------------------------------------------------------------------------


def test_failure_names_function_part_and_code(lib):
    fault = Fault(bad=500, code=42)
    with pytest.raises(NativeError, match=r"fail_at\(\) answered 42") as caught:
        parallel_for(lib.fail_at, N, fault, 10)
    assert caught.value.code == 42
    begin, end = caught.value.range
    assert begin <= 500 < end
    assert caught.value.function is lib.fail_at
    assert isinstance(caught.value, tether.TetherError)


def test_failure_over_memory_names_bytes_of_the_region(lib):
    with tether.Region(20_000) as region, region.borrow_mut(4096) as borrow:
        with pytest.raises(NativeError, match="answered -3 for bytes") as caught:
            parallel_for(lib.fail_bytes, borrow, grain=512)
    begin, end = caught.value.range
    assert begin <= 5000 < end


def test_after_a_failure_nothing_more_is_begun(lib):
    fault = Fault(bad=3, code=1)
    with pytest.raises(NativeError):
        parallel_for(lib.fail_at, N, fault, 1, schedule="static", threads=1)
    assert fault.begun == 4


def test_answer_that_no_int_can_hold_is_a_failure_nevertheless(lib):
    with pytest.raises(NativeError) as caught:
        parallel_for(lib.fail_beyond_int, N)
    assert caught.value.code == 1


# ---- the GIL, other tasks -------------------------------------------------------------------------------------------


def test_calls_run_at_the_same_time(lib):
    for threads in (2, 4):
        meeting = counters(2)
        meeting[0] = threads
        parallel_for(lib.meet, threads, meeting, schedule="static", threads=threads)
        assert meeting[1] == threads


def test_python_runs_meanwhile(lib):
    # The function goes on when Python has counted itself in.
    meeting = counters(2)
    meeting[0] = 2

    def come():
        poll(lambda: meeting[1], "the function to have begun")
        meeting[1] += 1

    other = threading.Thread(target=come)
    other.start()
    parallel_for(lib.meet, 1, meeting)
    other.join()


def test_helpers_make_no_python_threads(lib):
    # G18 is about threads that run Python; a helper has not even a thread state.
    before = threading.enumerate()
    meeting = counters(2)
    meeting[0] = 3
    parallel_for(lib.meet, 3, meeting, schedule="static", threads=3)
    assert [thread for thread in threading.enumerate() if thread not in before] == []


def test_functions_may_call_back_into_python():
    # With the GIL, which is what such a function has to take: it works, and in the caller's process alone.
    total = []

    @ctypes.CFUNCTYPE(ctypes.c_int, *RANGE)
    def collect(begin, end, user_data):
        total.extend(range(begin, end))
        return 0

    for _ in range(20):
        total.clear()
        parallel_for(collect, N, threads=3)
        assert sorted(total) == list(range(N))


def test_functions_may_use_tether_itself():
    # A task spawned and joined inside of a part, on whatever thread that is; and what waits there has let the GIL go.
    seen = []

    @ctypes.CFUNCTYPE(ctypes.c_int, *RANGE)
    def spawn(begin, end, user_data):
        for i in range(begin, end):
            seen.append(tether.spawn(pow, i, 2).join())
            seen.append(tether.options(dedicated=True).spawn(int).join())
        return 0

    parallel_for(spawn, 40, grain=1, threads=3)
    assert sorted(seen) == sorted([i * i for i in range(40)] + [0] * 40)


def test_loops_in_many_tasks_at_once(lib):
    def task():
        for _ in range(20):
            counts = counters(N)
            parallel_for(lib.visit, N, counts)
            assert list(counts) == [1] * N

    with tether.scope() as s:
        for _ in range(30):
            s.spawn(task)


def test_loop_in_a_task_of_another_loop(lib):
    counts = counters(N)

    @ctypes.CFUNCTYPE(ctypes.c_int, *RANGE)
    def inner(begin, end, user_data):
        parallel_for(lib.visit, range(begin, end), counts)
        return 0

    parallel_for(inner, N, threads=3)
    assert list(counts) == [1] * N


def test_tasks_start_while_all_helpers_are_busy(lib):
    # G8
    started = threading.Event()
    meeting = counters(2)
    meeting[0] = 3

    def release():
        meeting[1] += 10
        started.set()

    guard = dedicated(parallel_for, lib.meet, 2, meeting, schedule="static", threads=2)
    poll(lambda: meeting[1] == 2, "both parts to have begun")
    task = tether.spawn(release)
    await_event(started)
    task.join()
    guard.join()


# ---- lifetimes ------------------------------------------------------------------------------------------------------


def test_function_and_data_live_while_they_are_used():
    # G11: nobody else refers to any of them.
    class Longs(ctypes.Array):
        _length_, _type_ = N, ctypes.c_long

    gone = []
    longs = Longs()
    weakref.finalize(longs, gone.append, "data")
    alive = []

    def make(data):
        start = ctypes.addressof(data)

        def visit(begin, end, user_data):
            gc.collect()
            alive.append((list(gone), user_data == start))
            return 0

        func = ctypes.CFUNCTYPE(ctypes.c_int, *RANGE)(visit)
        weakref.finalize(func, gone.append, "function")
        return func

    arguments = [make(longs), 10, longs]
    del longs

    def call():
        func, n, data = arguments
        arguments.clear()
        guard = tether.spawn(parallel_for, func, n, data)
        del func, data
        guard.join()

    call()
    gc.collect()
    assert alive
    assert all(entry == ([], True) for entry in alive)
    assert sorted(gone) == ["data", "function"]


def test_prepared_function_keeps_its_source(lib):
    # G11
    func = capsule(lib.visit, RANGE_TEXT)
    prepared = NativeFunction(func)
    assert prepared.source is func
    assert prepared.address == address(lib.visit)
    assert "over numbers" in repr(prepared)
    assert "only reads" in repr(NativeFunction(lib.sum_bytes, READS_TEXT))
    again = NativeFunction(prepared)
    assert again.address == prepared.address
    with pytest.raises(ValueError, match="signature"):
        NativeFunction(capsule(lib.visit, "int (int)"))
    other = NativeFunction(lib.raise_bytes, signature=BYTES_TEXT)
    assert "over memory" in repr(other)


def test_prepared_function_in_a_cycle_is_collected(lib):
    class Holder:
        address = 0

    holder = Holder()
    holder.address = address(lib.visit)
    holder.prepared = NativeFunction(holder, RANGE_TEXT)
    gone = weakref.ref(holder)
    del holder
    gc.collect()
    assert gone() is None


# ---- interruption ---------------------------------------------------------------------------------------------------


def test_cancelled_task_stops_between_parts(lib):
    # G12
    fault = Fault()
    guard = dedicated(parallel_for, lib.dawdle, 600_000, fault)
    poll(lambda: fault.begun > 3, "the loop to have begun")
    guard.cancel()
    with pytest.raises(tether.TaskKilled):
        guard.join()
    assert fault.inside == 0
    assert fault.begun < 600_000


def test_failed_sibling_ends_a_loop(lib):
    # G2, G12
    fault = Fault()

    def fail():
        poll(lambda: fault.begun > 3, "the loop to have begun")
        raise LookupError

    with pytest.raises(ExceptionGroup) as caught:
        with tether.scope() as s:
            s.spawn(fail)
            parallel_for(lib.dawdle, 600_000, fault)
    assert [type(error) for error in caught.value.exceptions] == [LookupError]
    assert fault.inside == 0


def test_ctrl_c_ends_the_loop_when_all_calls_have_returned(lib):
    # G12, fault 5
    for threads in (1, 2, 3):
        fault = Fault()

        def interrupt(fault=fault):
            poll(lambda: fault.begun > 3, "the loop to have begun")
            os.kill(os.getpid(), signal.SIGINT)

        other = threading.Thread(target=interrupt)
        other.start()
        with pytest.raises(KeyboardInterrupt):
            parallel_for(lib.dawdle, 600_000, fault, threads=threads)
        assert fault.inside == 0
        other.join()


def test_ctrl_c_while_helpers_are_waited_for(lib):
    # G12: the loop's last part ends, then the exception is raised.
    meeting = counters(2)
    meeting[0] = 100

    def interrupt():
        poll(lambda: meeting[1] >= 1, "the loop to have begun")
        os.kill(os.getpid(), signal.SIGINT)
        meeting[0] = 0

    other = threading.Thread(target=interrupt)
    other.start()
    with pytest.raises(KeyboardInterrupt):
        parallel_for(lib.meet, 2, meeting, threads=2, schedule="static")
        tether.sleep(0)  # the signal may have come too late for the loop
        signal.pause()
    other.join()


def test_signal_handler_runs_while_the_loop_goes_on(lib):
    # fault 6: it spawns and joins.
    fault, seen = Fault(), []
    before = signal.signal(signal.SIGUSR1, lambda *_: seen.append(tether.spawn(pow, 2, 5).join()))
    try:

        def send():
            poll(lambda: fault.begun > 1, "the loop to have begun")
            os.kill(os.getpid(), signal.SIGUSR1)
            poll(lambda: seen, "the handler to have run")

        other = threading.Thread(target=send)
        other.start()
        parallel_for(lib.dawdle, 400, fault)
        other.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert seen == [32]


# ---- exit, fork, interpreters ---------------------------------------------------------------------------------------


SETUP = "import ctypes, os, threading, tether, native\nfrom tether.native import parallel_for\nlib = native.library()\n"


def test_exit_waits_for_tasks_that_loop(lib, run_python):
    code = """
        fault = native.Fault()
        guard = tether.spawn(parallel_for, lib.dawdle, 200, fault)
        import atexit
        atexit.register(lambda: print(fault.inside, guard.done()))
    """
    out = run_python(SETUP + "\n".join(line.strip() for line in code.splitlines()), check=True).out
    assert out == "0 True\n"


def test_exit_passes_the_loop_of_a_daemon_thread(lib, run_python):
    # It cannot be waited for; the process ends all the same, and says nothing.
    code = """
        fault = native.Fault()
        thread = threading.Thread(target=parallel_for, args=(lib.dawdle, 600_000, fault), daemon=True)
        thread.start()
        while fault.begun < 3: tether.sleep(0.001)
        print('over')
    """
    assert run_python(SETUP + "\n".join(line.strip() for line in code.splitlines()), check=True).out == "over\n"


def test_loop_at_the_very_end_of_the_interpreter_runs_without_helpers(lib, run_python):
    code = """
        import array
        counts = array.array("l", bytes(8000))
        visit = tether.native.NativeFunction(lib.visit)
        class Last:
            def __del__(self, parallel_for=parallel_for, visit=visit, counts=counts, print=print, sum=sum):
                parallel_for(visit, 1000, counts)
                print(sum(counts))
    """
    body = "\n".join(line[8:] for line in code.splitlines())
    out = run_python(SETUP + body + "\nimport builtins\nbuiltins.last = Last()\n", check=True).out
    assert out == "1000\n"


def test_forked_child_loops_on_its_own(lib):
    # fault 12
    counts = counters(N)
    parallel_for(lib.visit, N, counts, threads=3)

    def child():
        meeting = counters(2)
        meeting[0] = 2
        parallel_for(lib.meet, 2, meeting, threads=2, schedule="static")
        parallel_for(lib.visit, N, counts)
        assert list(counts) == [2] * N

    assert status_of(forked(child)) == 0
    assert list(counts) == [1] * N


def test_fork_in_a_signal_handler_during_a_loop(lib):
    # fault 12: the child has no helpers, and the loop is the parent's: it ends there with ForkedError.
    fault, children = Fault(), []

    def fork(*_):
        children.append(os.fork())

    before = signal.signal(signal.SIGUSR1, fork)
    try:

        def send():
            poll(lambda: fault.begun > 1, "the loop to have begun")
            os.kill(os.getpid(), signal.SIGUSR1)
            poll(lambda: children, "the handler to have run")

        other = threading.Thread(target=send)
        other.start()
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            try:
                parallel_for(lib.dawdle, 400, fault)
            except tether.ForkedError:
                os._exit(17 if children == [0] else 1)
            if children == [0]:
                os._exit(2)
        other.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert status_of(children[0]) == 17


@pytest.mark.skipif(sys.version_info < (3, 12), reason="interpreters with a GIL of their own came with 3.12")
def test_loops_in_a_sub_interpreter(lib, run_python):
    # G20
    code = """
        import sys
        sys.path[:0] = {path!r}
        import tether
        data = bytearray(1_000_000)
        tether.native.fill(data, 7)
        assert tether.native.sum(data) == 7_000_000
        tether.native.copy(data, bytes(1_000_000))
        assert tether.native.max(data) == 0
        assert tether.spawn(tether.native.sum, data).join() == 0
    """
    inner = "\n".join(line[8:] for line in code.format(path=sys.path).splitlines())
    outer = f"""
import importlib, threading
name = "_interpreters" if __import__("sys").version_info >= (3, 13) else "_xxsubinterpreters"
interpreters = importlib.import_module(name)
def run():
    own = interpreters.create()
    failed = interpreters.run_string(own, {inner!r})
    assert failed is None, failed
    interpreters.destroy(own)
threads = [threading.Thread(target=run) for _ in range(2)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""
    run_python(outer, check=True)
