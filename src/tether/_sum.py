"""``python -m tether sum PATH…``: SHA-256 of files, in parallel over mapped regions; output and status as sha256sum."""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from typing import BinaryIO

from ._core import Region, _facts, checkpoint, scope

__all__ = ["main"]

_SLICE = 16 << 20  # bytes between two looks at cancellation and progress
_NAME = "tether sum"


class _Bar:
    """How far it is, on a terminal; otherwise nothing."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._lock = threading.Lock()
        self._shown = -1
        self._on = total > 0 and sys.stderr.isatty()

    def add(self, nbytes: int) -> None:
        if not self._on:
            return
        with self._lock:
            self._done += nbytes
            percent = min(100, self._done * 100 // self._total)
            if percent != self._shown:
                self._shown = percent
                filled = percent * 40 // 100
                sys.stderr.write(f"\r[{'#' * filled}{'.' * (40 - filled)}] {percent:3} %")
                sys.stderr.flush()

    def clear(self) -> None:
        if self._on and self._shown >= 0:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._shown = -1


def _hash_stream(file: BinaryIO, bar: _Bar) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
        bar.add(len(block))
        checkpoint()
    return digest.hexdigest()


def _hash_mapped(path: str, bar: _Bar) -> str:
    digest = hashlib.sha256()
    with Region.open(path) as region:
        region.advise("sequential")
        with region.share() as bytes_, memoryview(bytes_) as view:
            for start in range(0, len(view), _SLICE):
                with view[start : start + _SLICE] as part:
                    digest.update(part)
                    bar.add(len(part))
                checkpoint()
    return digest.hexdigest()


def _digest(path: str, bar: _Bar) -> str:
    if _size(path):
        return _hash_mapped(path, bar)
    with open(path, "rb") as file:  # empty, or no regular file: a pipe, something of /proc
        return _hash_stream(file, bar)


def _size(path: str) -> int:
    """What can be mapped, in bytes; 0 for anything else."""
    try:
        about = os.stat(path)
    except OSError:
        return 0
    return about.st_size if os.path.isfile(path) else 0


class _Work:
    """The files, handed out to as many tasks as there are cores; results by place."""

    def __init__(self, paths: list[str], bar: _Bar) -> None:
        self.paths = paths
        self.results: list[str | OSError | None] = [None] * len(paths)
        self.ready = [threading.Event() for _ in paths]
        self._bar = bar
        self._next = iter(range(len(paths)))
        self._lock = threading.Lock()

    def run(self) -> None:
        while True:
            with self._lock:
                at = next(self._next, None)
            if at is None:
                return
            checkpoint()
            if self.paths[at] != "-":
                try:
                    self.results[at] = _digest(self.paths[at], self._bar)
                except OSError as error:
                    self.results[at] = error
            self.ready[at].set()


def _line(digest: str, path: str) -> bytes:
    """As sha256sum writes it: a name with a backslash or a line's end is escaped, and the line says so."""
    name = os.fsencode(path)
    escaped = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    mark = b"\\" if escaped != name else b""
    return mark + digest.encode() + b"  " + escaped + b"\n"


def _complaint(path: str, error: OSError) -> str:
    shown = path if path.isprintable() and " " not in path else repr(path)
    return f"{_NAME}: {shown}: {error.strerror}"


def main(paths: list[str]) -> int:
    """Prints a line for each path (none: standard input), in their order; 1 if one could not be read."""
    try:
        return _sum(paths or ["-"])
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _sum(paths: list[str]) -> int:
    bar = _Bar(sum(_size(path) for path in paths))
    work = _Work(paths, bar)
    failed = False
    with scope("sum") as s:
        spawn = s.options(name="sum", dedicated=True).spawn
        for _ in range(min(len(paths), int(_facts()["cores"]))):
            spawn(work.run)
        for path, ready, at in zip(paths, work.ready, range(len(paths)), strict=True):
            while not ready.wait(0.1):
                checkpoint()
            # Standard input is read here: a task that waits for it could not be interrupted.
            result = _hash_stream(sys.stdin.buffer, bar) if path == "-" else work.results[at]
            bar.clear()
            if isinstance(result, str):
                sys.stdout.buffer.write(_line(result, path))
            elif result is not None:
                failed = True
                sys.stdout.flush()
                print(_complaint(path, result), file=sys.stderr)
    sys.stdout.flush()
    return int(failed)
