"""fill, copy, sum, min, max over memory that is full of numbers, against NumPy and plain Python."""

from __future__ import annotations

import array
import builtins
import math
import random
import struct
import threading
from fractions import Fraction

import pytest

import tether
from support import dedicated
from tether.native import copy, fill, max, min, sum

plain = builtins.sum

try:
    import numpy
except ImportError:
    numpy = None
needs_numpy = pytest.mark.skipif(numpy is None, reason="NumPy is not installed: it has no wheels for this machine")

FORMATS = "bBhHiIlLqQfd"
WHOLES = FORMATS[:-2]
SIZES = [1, 2, 15, 16, 17, 255, 257, 16383, 16384, 16385, 100_003]


def limits(format):
    """Return the least and the largest number of a format of integers."""
    bits = 8 * struct.calcsize(format)
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if format.islower() else (0, 2**bits - 1)


def numbers(format, n, seed=0):
    """Return n numbers, the extremes of the format among them."""
    rng = random.Random(seed)
    if format in "fd":
        made = [rng.uniform(-1e6, 1e6) for _ in range(n)]
        return struct.unpack(f"{n}{format}", struct.pack(f"{n}{format}", *made))
    least, most = limits(format)
    special = [least, most, 0, least + 1, most - 1]
    return tuple(special[i] if i < len(special) else rng.randint(least, most) for i in range(n))


@pytest.fixture
def filled():
    """Make regions with given numbers in them."""
    regions = []

    def make(format, values):
        region = tether.Region(struct.calcsize(format) * len(values))
        with region.borrow_mut() as borrow:
            borrow[:] = struct.pack(f"{len(values)}{format}", *values)
        regions.append(region)
        return region

    yield make
    for region in regions:
        region.close()


# ---- reductions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", WHOLES)
@pytest.mark.parametrize("n", SIZES)
def test_integers_are_exact(filled, format, n):
    values = numbers(format, n)
    region = filled(format, values)
    assert sum(region, format=format) == plain(values)
    assert min(region, format=format) == sorted(values)[0]
    assert max(region, format=format) == sorted(values)[-1]
    assert type(sum(region, format=format)) is type(min(region, format=format)) is int


@pytest.mark.parametrize("format", WHOLES)
def test_sums_beyond_64_bits_are_exact(filled, format):
    least, most = limits(format)
    for value in (least, most):
        region = filled(format, [value] * 50_000)
        assert sum(region, format=format) == 50_000 * value


@pytest.mark.parametrize("format", "fd")
@pytest.mark.parametrize("n", SIZES)
def test_float_sums_keep_their_bound(filled, format, n):
    values = numbers(format, n)
    region = filled(format, values)
    exact = Fraction(0)
    for value in values:
        exact += Fraction(value)
    bound = (math.log2(n) + 20) * Fraction(2) ** -53 * Fraction(math.fsum(map(abs, values)))
    assert abs(Fraction(sum(region, format=format)) - exact) <= bound
    assert min(region, format=format) == sorted(values)[0]
    assert max(region, format=format) == sorted(values)[-1]


@needs_numpy
@pytest.mark.parametrize("format", FORMATS)
def test_numpy_says_the_same(filled, format):
    values = numbers(format, 70_001, seed=5)
    region = filled(format, values)
    with region.share() as shared:
        ours = sum(shared, format=format), min(shared, format=format), max(shared, format=format)
        array = numpy.frombuffer(shared, format)
        if format in "fd":
            assert ours[0] == pytest.approx(float(array.sum(dtype="d")), rel=1e-9)
        elif struct.calcsize(format) < 8:
            assert ours[0] == int(array.sum(dtype="q"))
        assert ours[1:] == (array.min().item(), array.max().item())
        del array


@needs_numpy
@pytest.mark.parametrize("format", "fd")
@pytest.mark.parametrize("at", [0, 1, 7, 8, 15, 16, 40_000, 69_999])
def test_nan_propagates_as_in_numpy(filled, format, at):
    values = list(numbers(format, 70_000))
    values[at] = math.nan
    region = filled(format, values)
    with region.share() as shared:
        array = numpy.frombuffer(shared, format)
        assert math.isnan(array.min())
        assert math.isnan(array.max())
        del array
    assert math.isnan(min(region, format=format))
    assert math.isnan(max(region, format=format))
    assert math.isnan(sum(region, format=format))


@pytest.mark.parametrize("format", "fd")
def test_infinities(filled, format):
    region = filled(format, [1.0, math.inf, 2.0])
    assert (sum(region, format=format), min(region, format=format), max(region, format=format)) == (
        math.inf,
        1,
        math.inf,
    )
    region = filled(format, [1.0, math.inf, -math.inf])
    assert math.isnan(sum(region, format=format))
    assert (min(region, format=format), max(region, format=format)) == (-math.inf, math.inf)


def test_sum_is_the_same_in_every_run_and_beside_others(filled):
    values = numbers("d", 300_000, seed=3)
    region = filled("d", values)
    found = {sum(region, format="d") for _ in range(20)}
    with tether.scope() as s:
        handles = [s.options(dedicated=True).spawn(sum, region.share(), format="d") for _ in range(6)]
    found |= {handle.join() for handle in handles}
    assert len(found) == 1


def test_nothing_to_reduce():
    empty = array.array("d")
    assert sum(empty) == 0
    assert sum(b"") == 0
    for fold in (min, max):
        with pytest.raises(ValueError, match="no numbers"):
            fold(empty)
    with tether.Region(8) as region, region.share(4, 4) as none:
        assert sum(none, format="d") == 0
        with pytest.raises(ValueError, match="no numbers"):
            min(none, format="d")


# ---- formats --------------------------------------------------------------------------------------------------------


def test_default_is_what_the_buffer_says():
    with tether.Region(16) as region:
        fill(region, 258, format="h")
        assert sum(region) == 8 * 3
        with region.share() as shared:
            assert sum(shared) == 8 * 3
            assert sum(shared.view("h")) == 8 * 258
            assert sum(shared.view("h", (2, 4))) == 8 * 258
    assert sum(array.array("d", [1.5, 2.5])) == 4.0
    assert max(array.array("Q", [2**64 - 1])) == 2**64 - 1


@needs_numpy
def test_arrays_bring_their_format():
    assert sum(numpy.arange(10.0)) == 45.0
    assert sum(numpy.arange(10, dtype="i2").reshape(2, 5)) == 45
    with pytest.raises(ValueError, match="format"):
        sum(numpy.arange(3, dtype=">i4"))
    with pytest.raises(ValueError, match="format"):
        sum(numpy.array([1j]))
    with pytest.raises(TypeError):
        fill(numpy.arange(10)[::2], 0)


def test_native_order_may_be_written_out():
    assert sum(struct.pack("2i", 5, 6), format="@i") == 11


@pytest.mark.parametrize("format", ["", "x", "ii", "<i", "=d", "?", "c", "n", "e", "3i", "\0"])
def test_other_formats_are_refused(format):
    data = bytearray(48)
    for call in (sum, min, max, lambda data, format: fill(data, 1, format=format)):
        with pytest.raises(ValueError):
            call(data, format=format)


def test_bytes_that_are_no_whole_number_of_items_are_refused():
    for call in (sum, min, max, lambda data, format: fill(data, 1, format=format)):
        with pytest.raises(ValueError, match="whole number"):
            call(bytearray(13), format="i")
        with pytest.raises(TypeError, match="format"):
            call(bytearray(12), format=5)


@pytest.mark.parametrize("fold", [sum, min, max])
@pytest.mark.parametrize("what", [None, 5, "text", [1, 2]])
def test_what_is_no_memory_is_refused(fold, what):
    with pytest.raises(TypeError, match="Region"):
        fold(what)


def test_numbers_may_lie_at_any_address():
    with tether.Region(100_001) as region:
        with region.borrow_mut(1) as odd:
            fill(odd, 2.5, format="d")
            assert sum(odd, format="d") == 2.5 * 12_500
            fill(odd, -7, format="i")
            assert (sum(odd, format="i"), min(odd, format="i")) == (-7 * 25_000, -7)
        assert region.share()[0] == 0


# ---- fill and copy --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("n", [1, 3, 16384, 70_001])
def test_fill_sets_every_number(format, n):
    value = 1.5 if format in "fd" else limits(format)[0] or limits(format)[1] - 1
    size = struct.calcsize(format)
    with tether.Region(n * size + 2) as region:
        with region.borrow_mut(1, 1 + n * size) as middle:
            fill(middle, value, format=format)
        assert bytes(region.share()) == b"\0" + struct.pack(format, value) * n + b"\0"


@pytest.mark.parametrize("format", WHOLES)
def test_fill_refuses_what_does_not_fit(format):
    data = bytearray(b"x" * 16)
    least, most = limits(format)
    fill(data, least, format=format)
    fill(data, most, format=format)
    before = bytes(data)
    for value in (least - 1, most + 1, 10**30, -(10**30)):
        with pytest.raises(ValueError, match="fit"):
            fill(data, value, format=format)
    for value in (1.5, "1", None):
        with pytest.raises(TypeError):
            fill(data, value, format=format)
    assert bytes(data) == before


def test_fill_of_floats():
    data = bytearray(16)
    fill(data, 3, format="d")
    assert sum(data, format="d") == 6.0
    fill(data, math.inf, format="f")
    assert min(data, format="f") == math.inf
    fill(data, math.nan, format="f")
    assert math.isnan(min(data, format="f"))
    for value, format in ((1e39, "f"), (10**400, "d")):
        with pytest.raises(ValueError, match="fit"):
            fill(data, value, format=format)


@pytest.mark.parametrize("n", [0, 1, 1000, 131_072, 131_073, 1_000_003])
def test_copy_takes_every_byte(n):
    source = random.Random(1).randbytes(n)
    target = bytearray(n)
    copy(target, source)
    assert target == source


def test_copy_between_regions_and_ranges():
    with tether.Region(300_000) as one, tether.Region(300_000) as two:
        fill(one, 7)
        copy(two, one)
        assert sum(two) == 2_100_000
        with two.borrow_mut(0, 100_000) as low, two.share(100_000, 200_000) as middle:
            fill(low, 0)
            copy(low, middle)
        assert sum(two) == 2_100_000


def test_copy_of_ranges_that_overlap():
    data = bytearray(random.Random(2).randbytes(500_000))
    want = bytes(data[:400_000])
    view = memoryview(data)
    copy(view[100_000:], view[:400_000])
    assert data[100_000:] == want


def test_overlapping_copy_of_a_cancelled_task_does_not_begin():
    # G12
    def task():
        data = bytearray(range(10))
        tether.current().cancel()
        view = memoryview(data)
        with pytest.raises(tether.Cancelled):
            copy(view[1:], view[:-1])
        return bytes(data)

    guard = tether.spawn(task)
    assert guard.join() == bytes(range(10))


def test_copy_of_other_sizes_is_refused():
    with pytest.raises(ValueError, match="as many bytes"):
        copy(bytearray(5), b"four")


@pytest.mark.parametrize("call", [lambda data: fill(data, 1), lambda data: copy(data, bytes(100))])
def test_what_cannot_be_written_is_refused(call):
    # fault 20
    with tether.Region(100) as region, region.share() as shared:
        with pytest.raises(TypeError, match="writable"):
            call(shared)
        with pytest.raises(tether.BorrowError):
            call(region)
        assert bytes(shared) == bytes(100)
    with pytest.raises(TypeError, match="writable"):
        call(bytes(100))


def test_refusal_of_memory_keeps_what_the_memory_said():
    released = memoryview(bytearray(8))
    released.release()
    with pytest.raises(TypeError, match="writable") as refused:
        fill(released, 1)
    assert "released" in str(refused.value.__cause__)


# ---- borrows and tasks ----------------------------------------------------------------------------------------------


def test_readers_share_and_writers_do_not():
    # G13
    with tether.Region(100, name="lent") as region:
        with region.share():
            assert sum(region) == min(region) == max(region) == 0
            for call in (lambda: fill(region, 1), lambda: copy(region, bytes(100))):
                with pytest.raises(tether.BorrowError, match="lent"):
                    call()
        with region.borrow_mut() as borrow:
            fill(borrow, 2)
            assert sum(borrow) == 200
            for fold in (sum, min, max):
                with pytest.raises(tether.BorrowError, match="lent"):
                    fold(region)


def test_closed_region_is_refused():
    region = tether.Region(100)
    region.close()
    for call in (sum, min, lambda memory: fill(memory, 1), lambda memory: copy(memory, b"")):
        with pytest.raises(ValueError, match="closed"):
            call(region)


def test_region_is_free_afterwards():
    region = tether.Region(1_000_000)
    fill(region, 1)
    assert sum(region) == 1_000_000
    with pytest.raises(ValueError):
        fill(region, 300)
    with pytest.raises(ValueError):
        sum(region, format="x")
    region.close()


def test_tasks_work_on_their_parts():
    with tether.Region(8 << 20) as region:
        with tether.scope() as s:
            for n, part in enumerate(region.chunks_mut(8)):
                s.spawn(fill, part, n, format="d")
        assert sum(region, format="d") == (1 << 17) * 28


def test_cancelled_task_does_not_begin():
    # G12
    data = bytearray(1000)
    inside, go = threading.Event(), threading.Event()

    def work():
        inside.set()
        go.wait(60)
        fill(data, 1)

    guard = dedicated(work)
    inside.wait(60)
    guard.cancel()
    go.set()
    with pytest.raises(tether.TaskKilled):
        guard.join()
    assert not any(data)
