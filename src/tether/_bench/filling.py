"""Memory filled by NumPy: by two tasks, half of a region each, and by one thread."""

from importlib.util import find_spec

import tether

HAS_NUMPY = find_spec("numpy") is not None
VALUE = 7


def tasks(region: tether.Region) -> None:
    """Two tasks with a thread each; NumPy lets go of the GIL while it fills."""
    with tether.scope() as s:
        spawn = s.options(dedicated=True).spawn
        for part in region.chunks_mut(2):
            spawn(_fill, part)


def _fill(part: tether.Exclusive[object]) -> None:
    import numpy

    numpy.frombuffer(part, numpy.uint8)[:] = VALUE


class Array:
    """The rival's memory: an array of so many bytes, filled by one thread."""

    def __init__(self, size: int) -> None:
        import numpy

        self._bytes = numpy.empty(size, numpy.uint8)

    def fill(self) -> None:
        self._bytes[:] = VALUE
