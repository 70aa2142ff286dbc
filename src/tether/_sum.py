"""``python -m tether sum PATH…``: SHA-256 of files, in parallel over mapped regions; output and status as sha256sum."""

from __future__ import annotations

import errno
import hashlib
import os
import sys
import threading
from stat import S_ISDIR, S_ISREG
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
        self._on = total > 0 and sys.stderr is not None and sys.stderr.isatty()

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


def _hash_mapped(mapped: Region, bar: _Bar) -> str:
    digest = hashlib.sha256()
    with mapped as region:
        region.advise("sequential")
        with region.share() as bytes_, memoryview(bytes_) as view:
            for start in range(0, len(view), _SLICE):
                with view[start : start + _SLICE] as part:
                    digest.update(part)
                    bar.add(len(part))
                checkpoint()
    return digest.hexdigest()


def _digest(path: str, bar: _Bar) -> str:
    if region := _map(path):
        return _hash_mapped(region, bar)
    with open(path, "rb") as file:
        return _hash_stream(file, bar)


def _map(path: str) -> Region | None:
    """None for what has to be read: what has no size, and file systems that map nothing (of the kernel's own files)."""
    if not _size(path):
        return None
    try:
        return Region.open(path)
    except (OSError, ValueError, MemoryError):  # reading tells what is wrong, if anything is
        return None


def _size(path: str) -> int:
    """What can be mapped, in bytes; 0 for anything else."""
    try:
        about = os.stat(path)
    except OSError:
        return 0
    return about.st_size if S_ISREG(about.st_mode) else 0


def _is_stream(path: str) -> bool:
    """Is it read by the main thread? A task that waits for a pipe or a terminal could not be interrupted."""
    if path == "-":
        return True
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not S_ISREG(mode) and not S_ISDIR(mode)


def _hash_here(path: str, bar: _Bar) -> str | OSError:
    try:
        if path != "-":
            return _digest(path, bar)
        if sys.stdin is None:  # it was closed when we started
            return OSError(errno.EBADF, os.strerror(errno.EBADF))
        return _hash_stream(sys.stdin.buffer, bar)
    except OSError as error:
        return error


class _Work:
    """The files, handed out to as many tasks as there are cores; results by place."""

    def __init__(self, paths: list[str], bar: _Bar) -> None:
        self.paths = paths
        self.results: list[str | OSError | None] = [None] * len(paths)
        self.ready = [threading.Event() for _ in paths]
        self.streams = [_is_stream(path) for path in paths]
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
            if not self.streams[at]:
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


def _complain(text: str) -> None:
    if sys.stderr is not None:
        print(text, file=sys.stderr)


def main(paths: list[str]) -> int:
    """Prints a line for each path (none: standard input), in their order; 1 if one could not be read."""
    try:
        return _sum(paths or ["-"])
    except KeyboardInterrupt:
        return 130
    except OSError as error:  # of our output: what cannot be read is told in its place
        if not isinstance(error, BrokenPipeError):  # otherwise nobody reads any more
            _complain(f"{_NAME}: write error: {error.strerror}")
        if sys.stdout is not None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _sum(paths: list[str]) -> int:
    bar = _Bar(sum(_size(path) for path in paths))
    work = _Work(paths, bar)
    failed, unwritten = False, None
    with scope("sum") as s:
        spawn = s.options(name="sum", dedicated=True).spawn
        for _ in range(min(len(paths), int(_facts()["cores"]))):
            spawn(work.run)
        try:
            failed = _report(work, bar)
        except OSError as error:  # raised outside of the scope, which would put it into a group
            unwritten = error
            s.cancel()
    if unwritten is not None:
        raise unwritten
    return int(failed)


def _report(work: _Work, bar: _Bar) -> bool:
    """Writes the lines in their order. Returns: did anything fail?"""
    failed = False
    if sys.stdout is None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    for at, path in enumerate(work.paths):
        while not work.ready[at].wait(0.1):
            checkpoint()
        result = _hash_here(path, bar) if work.streams[at] else work.results[at]
        bar.clear()
        if isinstance(result, str):
            sys.stdout.buffer.write(_line(result, path))
        elif result is not None:
            failed = True
            sys.stdout.flush()
            _complain(_complaint(path, result))
    sys.stdout.flush()
    return failed
