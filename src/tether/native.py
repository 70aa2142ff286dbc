"""C functions and memory, in parallel and without the GIL.

`parallel_for` calls a C function for every part of a range or of a region, on all cores; `fill`, `copy`, `sum`, `min`
and `max` are made for memory that is full of numbers. Nothing here needs NumPy, and the GIL is let go meanwhile, on
every build. Helpers are tether's own crew threads; if they are busy elsewhere, the calling thread does it all.

>>> import tether
>>> import tether.native as native
>>> with tether.Region(8000) as region:
...     native.fill(region, 1.5, format="d")
...     native.sum(region, format="d")
1500.0
"""

from __future__ import annotations

from . import _core
from ._core import NativeFunction, parallel_for
from ._errors import NativeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing_extensions import Buffer

    Memory = _core.Region | Buffer

__all__ = ["NativeError", "NativeFunction", "copy", "fill", "max", "min", "parallel_for", "sum"]

_SUM, _LEAST, _MOST = range(3)


def fill(memory: Memory, value: float, *, format: str | None = None) -> None:
    """Sets every number in ``memory`` to ``value``.

    A Region is borrowed exclusively meanwhile (G13). Ctrl-C and cancellation are noticed between parts (G12); some of
    the memory is filled then.

    Parameters:
        memory: a Region, an Exclusive, or another writable, contiguous buffer.
        value: a number that the format can hold.
        format: what the memory is full of: one of ``b B h H i I l L q Q f d`` as in `struct`, in the sizes of this
            machine. None: what the buffer says, which for regions and borrows is ``B``, bytes.

    Raises: ValueError for another format, for a value that does not fit, and for bytes that are no whole number of
    them; TypeError if the memory cannot be written; BorrowError.

    >>> import tether
    >>> with tether.Region(16) as region:
    ...     tether.native.fill(region, 258, format="h")
    ...     region.share()[:4]
    b'\\x02\\x01\\x02\\x01'
    """
    _core._fill(memory, value, format)


def copy(to: Memory, source: Memory) -> None:
    """Copies the bytes of ``source`` into ``to``.

    Regions are borrowed meanwhile, the one exclusively, the other shared (G13). Ctrl-C and cancellation are noticed
    between parts (G12); some of the bytes are copied then.

    Parameters:
        to: a Region, an Exclusive, or another writable, contiguous buffer.
        source: as many bytes: a Region, a borrow, or another contiguous buffer. It may overlap ``to``.

    Raises: ValueError if the sizes differ; TypeError if ``to`` cannot be written; BorrowError.

    >>> import tether
    >>> with tether.Region(5) as region:
    ...     tether.native.copy(region, b"hello")
    ...     bytes(region.share())
    b'hello'
    """
    _core._copy(to, source)


def sum(memory: Memory, *, format: str | None = None) -> int | float:
    """The sum of the numbers in ``memory``: an int, exact, or a float.

    Floats are added in double precision, by pairs (pairwise summation): of n numbers, the sum is off by at most
    (log2 n + 20) 2**-53 times the sum of their absolute values (Higham 1993, to first order). It is the same in every
    run, however many threads take part. A Region is shared meanwhile (G13); waits for nothing, is cancellable (G12).

    Parameters:
        memory: a Region, a borrow, or another contiguous buffer. The sum of no numbers is 0.
        format: as for `fill`.

    Raises: ValueError for another format, and for bytes that are no whole number of them; BorrowError.

    >>> import tether
    >>> with tether.Region(800) as region:
    ...     tether.native.fill(region, 2**63, format="Q")
    ...     tether.native.sum(region, format="Q") == 100 * 2**63
    True
    """
    total: int | float = _core._reduce(_SUM, memory, format)
    return total


def min(memory: Memory, *, format: str | None = None) -> int | float:
    """The least of the numbers in ``memory``; NaN if one of them is.

    Zeros of both signs are equal: either may be the answer. See `sum` for the parameters, and what happens meanwhile.

    Raises: ValueError if there are no numbers, and as `sum` does; BorrowError.

    >>> import array, tether
    >>> tether.native.min(array.array("i", [3, -5, 4]))
    -5
    """
    least: int | float = _core._reduce(_LEAST, memory, format)
    return least


def max(memory: Memory, *, format: str | None = None) -> int | float:
    """The largest of the numbers in ``memory``; NaN if one of them is. See `min`.

    >>> import array, tether
    >>> tether.native.max(array.array("d", [3.5, -5, 4]))
    4.0
    """
    most: int | float = _core._reduce(_MOST, memory, format)
    return most
