"""Helpers of the test suite; snippets that tests run in a subprocess import this module too.

Nothing here hopes: every wait is bounded and says what it was waiting for.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tether

WAIT = 90.0
"""Seconds after which a wait that should have ended is a failure (a hang, not a slow machine)."""


def poll(predicate: Callable[[], Any], what: str = "the condition", limit: float = WAIT) -> Any:
    """Return the first true value of `predicate`; fail when there is none within `limit` seconds."""
    deadline = time.monotonic() + limit
    pause = 0.0005
    while not (value := predicate()):
        if time.monotonic() >= deadline:
            raise AssertionError(f"{what}: not reached within {limit} s")
        time.sleep(pause)
        pause = min(2 * pause, 0.02)
    return value


def await_event(event: threading.Event, limit: float = WAIT) -> None:
    """Wait for a `threading.Event`: to tether this is blocking in foreign C code."""
    if not event.wait(limit):
        raise AssertionError(f"event not set within {limit} s")


def here() -> str:
    """Return "file:line" of the caller, as a spawn on the same line reports it."""
    frame = sys._getframe(1)
    return f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"


def dedicated(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> tether.JoinGuard[Any]:
    """Spawn on a native thread of its own: it starts whether or not anybody joins."""
    return tether.options(dedicated=True).spawn(fn, *args, **kwargs)


def run_lazy(fn: Callable[..., Any], /, *args: Any) -> Any:
    """Spawn and join at once: nearly always in place."""
    return tether.spawn(fn, *args).join()


def run_elsewhere(fn: Callable[..., Any], /, *args: Any) -> Any:
    """Join with a timeout: a lazy task, but never in place."""
    return tether.spawn(fn, *args).join(timeout=WAIT)


def run_dedicated(fn: Callable[..., Any], /, *args: Any) -> Any:
    """Run on a dedicated thread."""
    return dedicated(fn, *args).join()


PLACES: dict[str, Callable[..., Any]] = {"lazy": run_lazy, "elsewhere": run_elsewhere, "dedicated": run_dedicated}


def os_threads() -> int:
    """Return how many native threads this process has."""
    return len(os.listdir("/proc/self/task"))


def descriptors() -> int:
    """Return how many file descriptors are open."""
    return len(os.listdir("/proc/self/fd"))


def resident_bytes() -> int:
    """Return the resident set size of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def busy_statistics() -> dict[str, int]:
    """Return the counters of `tether.statistics()` that are not zero."""
    stats = tether.statistics()
    return {name: value for name in type(stats).__dataclass_fields__ if (value := getattr(stats, name))}


def entry_of(guard: tether.JoinGuard[Any]) -> threading.Thread:
    """Return the entry in `threading.enumerate()` of the thread that runs this task."""
    poll(lambda: guard.task.native_id, "the task to have a thread")
    (thread,) = (thread for thread in threading.enumerate() if thread.native_id == guard.task.native_id)
    return thread


class Held:
    """A dedicated task that stays inside `hold` while the block runs."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.inside, self.release = threading.Event(), threading.Event()

    def hold(self) -> None:
        self.inside.set()
        await_event(self.release)

    def __enter__(self) -> tether.JoinGuard[Any]:
        self.guard = tether.options(dedicated=True, **self.options).spawn(self.hold)
        await_event(self.inside)
        return self.guard

    def __exit__(self, *exc_info: object) -> None:
        self.release.set()
        self.guard.join()
        del self.guard


class PeakThreads:
    """Sample the number of native threads while the block runs; `.value` is the highest seen."""

    def __init__(self) -> None:
        self.value = 0
        self._stop = threading.Event()
        self._sampler = threading.Thread(target=self._sample, name="sampler")

    def _sample(self) -> None:
        while not self._stop.wait(0.001):
            self.value = max(self.value, os_threads())

    def __enter__(self) -> PeakThreads:
        self._sampler.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.value = max(self.value, os_threads())
        self._stop.set()
        self._sampler.join()


class _Reports:
    """What reached a hook while the block ran: exception types, and everything said as text (no object is kept)."""

    def __init__(self) -> None:
        self.types: list[type[BaseException]] = []
        self.texts: list[str] = []

    def _add(self, kind: type[BaseException], value: BaseException | None, *words: object) -> None:
        lines = [] if value is None else traceback.format_exception(value)
        self.types.append(kind)
        self.texts.append("\n".join([*(str(word) for word in words if word is not None), *lines]))


class Unraisables(_Reports):
    """Collect what reaches `sys.unraisablehook`, on any thread, while the block runs."""

    def __enter__(self) -> Unraisables:
        self._saved = sys.unraisablehook
        sys.unraisablehook = self._hook
        return self

    def __exit__(self, *exc_info: object) -> None:
        sys.unraisablehook = self._saved

    def _hook(self, report: Any) -> None:
        self._add(report.exc_type, report.exc_value, report.err_msg, repr(report.object))


class ThreadFailures(_Reports):
    """Collect what reaches `threading.excepthook` while the block runs."""

    def __enter__(self) -> ThreadFailures:
        self._saved = threading.excepthook
        threading.excepthook = self._hook
        return self

    def __exit__(self, *exc_info: object) -> None:
        threading.excepthook = self._saved

    def _hook(self, report: Any) -> None:
        self._add(report.exc_type, report.exc_value, report.thread and report.thread.name)


class Token:
    """An object that can be watched by a weak reference."""


_silencing = threading.RLock()
"""catch_warnings() puts back what it has found: two threads in it at once put back what is the other's."""


def forked(child: Callable[..., Any], /, *args: Any) -> int:
    """Fork; run `child` in the child, which then ends at once: with 0, or with 1 and its exception on stderr."""
    with _silencing, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads are alive, which is the point
        pid = os.fork()
    if pid == 0:
        signal.alarm(int(WAIT))  # a child that hangs is ended, and its status says so
        status = 1
        try:
            child(*args)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return pid


def status_of(pid: int) -> int:
    """Wait for a child; return its exit code, or minus the number of the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
