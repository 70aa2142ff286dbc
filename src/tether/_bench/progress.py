"""A progress bar for a terminal; silent anywhere else."""

import sys
from types import TracebackType
from typing import Self, TextIO

WIDTH = 24
CLEAR = "\r\x1b[K"


class Progress:
    """A context manager; the bar is gone when it is left."""

    def __init__(self, total: int, stream: TextIO = sys.stderr) -> None:
        self._total = total
        self._stream = stream
        self._shown = stream.isatty()

    def __enter__(self) -> Self:
        return self

    def show(self, done: float, label: str) -> None:
        """`done` of the total, and what is being done."""
        full = round(WIDTH * done / self._total)
        self._write(f"{CLEAR}[{'#' * full}{'.' * (WIDTH - full)}] {int(done) + 1}/{self._total} {label[:45]}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._write(CLEAR)

    def _write(self, text: str) -> None:
        if self._shown:
            self._stream.write(text)
            self._stream.flush()
