"""Mapped memory that nobody touches: what it costs to have it."""

import mmap

import tether


def region(size: int, count: int) -> None:
    """``tether.Region(size)``, then ``close``, `count` times."""
    for _ in range(count):
        tether.Region(size).close()


def bare(size: int, count: int) -> None:
    """The same with ``mmap.mmap(-1, size)``."""
    for _ in range(count):
        mmap.mmap(-1, size).close()
