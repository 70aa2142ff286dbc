"""Injected failures: of Python's allocators, of the runtime's allocations, of thread starts.

An *operation* is a generator function: it prepares, yields what is to be called while something is scarce, is sent the
`Outcome`, and then asserts. `sweep` runs it with the 1st, 2nd, 3rd ... request failing, until none was left to fail.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.machinery
import importlib.util
import itertools
import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
import weakref
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

import tether
from support import Token, busy_statistics, poll
from tether import _core

MOST = 3000
"""Requests after which a sweep has run wild."""


class Outcome(NamedTuple):
    """What came of the call: a value or an exception, and how many requests failed in it."""

    value: Any
    exception: Any
    failures: int

    @property
    def failed(self) -> bool:
        return self.exception is not None


Step = Generator[Callable[[], Any], Outcome, None]
Operation = Callable[[Token], Step]


def load_allocator() -> ModuleType:
    """Build and load tests/ext/_scarcity.c, and put it between Python and its allocators, for good."""
    source = Path(__file__).parent / "ext" / "_scarcity.c"
    compiler = shlex.split(str(sysconfig.get_config_var("CC") or "cc"))[0]
    with tempfile.TemporaryDirectory() as folder:
        built = os.path.join(folder, "_scarcity.so")
        include = sysconfig.get_path("include")
        options = ["-shared", "-fPIC", "-O1", "-w", "-std=gnu11", f"-I{include}"]
        if sysconfig.get_config_var("Py_GIL_DISABLED"):
            options.append("-DPy_GIL_DISABLED=1")
        try:
            subprocess.run([compiler, *options, "-o", built, str(source)], check=True)
        except (OSError, subprocess.CalledProcessError) as exc:
            pytest.skip(f"no failures without a C compiler and Python.h: {exc}", allow_module_level=True)
        loader = importlib.machinery.ExtensionFileLoader("_scarcity", built)
        spec = importlib.util.spec_from_file_location("_scarcity", built, loader=loader)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
    module.install()
    return module


allocator = load_allocator()


def without_python_memory(fn: Callable[[], Any], nth: int) -> Outcome:
    """The nth request of this thread to any of Python's allocators fails."""
    return Outcome(*allocator.call(fn, nth, False))


def without_python_memory_from_then_on(fn: Callable[[], Any], nth: int) -> Outcome:
    """So do all that follow."""
    sys._getframe()  # CPython crashes if it is to warn and finds no memory for the object of the innermost frame
    return Outcome(*allocator.call(fn, nth, True))


def _with_core(kind: str, fn: Callable[[], Any], nth: int) -> Outcome:
    before = _core._fail_nth(kind, nth)
    assert before == 0, "no failure was asked for"
    value, exception, _ = allocator.call(fn, 0, False)
    left = _core._fail_nth(kind, 0)
    return Outcome(value, exception, 0 if left > 0 else 1)


def without_runtime_memory(fn: Callable[[], Any], nth: int) -> Outcome:
    """The nth allocation of the runtime fails, on whatever thread."""
    return _with_core("alloc", fn, nth)


def without_threads(fn: Callable[[], Any], nth: int) -> Outcome:
    """The nth start of a native thread fails."""
    return _with_core("thread", fn, nth)


KINDS = [without_python_memory, without_python_memory_from_then_on, without_runtime_memory, without_threads]


@contextlib.contextmanager
def no_threads() -> Iterator[None]:
    """No native thread can be started while the block runs."""
    _core._fail_nth("thread", -1)
    try:
        yield
    finally:
        _core._fail_nth("thread", 0)


@contextlib.contextmanager
def scarce_elsewhere(nth: int, *, lasting: bool = False) -> Iterator[Callable[[], int]]:
    """The nth request of any other thread than this one fails; tells afterwards how many did."""
    failures = [0]
    allocator.others(nth, lasting)
    try:
        yield lambda: failures[0]
    finally:
        failures[0] = allocator.others(0, False)


def _check_exception(exc: Any, expected: tuple[type[BaseException], ...], where: str) -> None:
    """Not a wrong one, nor one behind it (`SystemError`: a C function broke its contract)."""
    seen: set[int] = set()
    stack = [exc]
    while stack:
        at = stack.pop()
        if at is None or id(at) in seen:
            continue
        seen.add(id(at))
        assert isinstance(at, BaseException), f"{where}: failed without an exception"
        assert SystemError in expected or not isinstance(at, SystemError), f"{where}: {at!r}"
        stack += [at.__context__, at.__cause__, *getattr(at, "exceptions", ())]
    assert exc is None or isinstance(exc, expected), f"{where}: {exc!r}"


def _run(
    operation: Operation, inject: Callable[[Callable[[], Any], int], Outcome], nth: int
) -> tuple[int, weakref.ref[Token]]:
    token = Token()
    step = operation(token)
    outcome = inject(next(step), nth)
    expected = (MemoryError, *getattr(operation, "expected", ()))
    if inject is without_threads:
        expected = (RuntimeError, *expected)
    try:
        _check_exception(outcome.exception, expected, f"{operation.__name__}, request {nth}")
        step.send(outcome)
    except StopIteration:
        pass
    else:
        raise AssertionError(f"{operation.__name__} yields once")
    return outcome.failures, weakref.ref(token)


def await_release(kept: weakref.ref[Token], what: str) -> None:
    """Wait until the object is gone. Without a GIL what a crew thread made dies on that thread, or in the collector."""

    def released() -> bool:
        if kept() is not None:
            gc.collect()
        return kept() is None

    poll(released, what, 20.0)


def sweep(operation: Operation, inject: Callable[[Callable[[], Any], int], Outcome]) -> int:
    """Run the operation with the 1st, 2nd ... request failing, until none is left to fail; returns how many there were.

    After each: statistics as before, nothing kept alive, an ordinary spawn and join works.
    """
    before = busy_statistics()
    for nth in itertools.count(1):
        assert nth < MOST, f"{operation.__name__} never ran out of requests"
        failures, kept = _run(operation, inject, nth)
        where = f"{operation.__name__}, request {nth}"
        await_release(kept, f"{where}: the argument let go")
        poll(lambda: busy_statistics() == before, f"{where}: statistics as before", 20.0)
        assert tether.spawn(pow, 2, 3).join() == 8
        if failures == 0:
            return nth - 1
    raise AssertionError("unreachable")
