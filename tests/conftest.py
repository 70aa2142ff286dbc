"""Fixtures: every test must leave tether idle, and may run snippets in a fresh interpreter."""

from __future__ import annotations

import functools
import gc
import io
import os
import subprocess
import sys
import textwrap
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import tether
from support import busy_statistics, poll

_FAILED = pytest.StashKey[bool]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes more than a few seconds")
    config.addinivalue_line("markers", "thread_unsafe(reason): not for several threads at once (pytest-run-parallel)")
    if in_parallel(config):
        for name in ("tether.statistics", "tether.tasks", "support.busy_statistics"):  # of the whole process
            config.addinivalue_line("thread_unsafe_functions", name)


def in_parallel(config: pytest.Config) -> bool:
    """Does pytest-run-parallel run each test by several threads at once?"""
    return getattr(config.option, "parallel_threads", 1) != 1


@pytest.hookimpl(tryfirst=True)
def pytest_itemcollected(item: pytest.Item) -> None:
    if isinstance(item, pytest.Function) and in_parallel(item.config) and "r" in item.fixturenames:
        item.obj = with_own_region(item.obj)


def with_own_region(test: Callable[..., None]) -> Callable[..., None]:
    """Give each thread a region of its own: a fixture's value is all threads' in pytest-run-parallel."""

    def run(*args: Any, r: tether.Region, **kwargs: Any) -> None:
        own = tether.Region(r.nbytes, name="frame")
        test(*args, r=own, **kwargs)

        def closed() -> bool:  # as the fixture does: the test's classes and closures, which have it, may be immortal
            try:
                own.close()
            except tether.BorrowError:
                gc.collect()  # does nothing while another thread collects
            return own.closed

        poll(closed, "the region's end")

    # with the test's globals, in which the plugin looks for what several threads must not call
    own = types.FunctionType(run.__code__, test.__globals__, test.__name__, None, run.__closure__)
    return functools.update_wrapper(own, test)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if report.when == "call":
        item.stash[_FAILED] = report.failed
    return report


@pytest.fixture(autouse=True)
def idle_afterwards(request: pytest.FixtureRequest) -> Iterator[None]:
    """After the test no task, guard, scope or busy thread is left (G1, G2, G9)."""
    already = busy_statistics()  # left behind by a test that failed: not this one's fault
    yield

    def settled() -> bool:
        return all(value <= already.get(name, 0) for name, value in busy_statistics().items())

    if settled():
        return  # a collection of all that the other tests have imported takes longer than most tests
    gc.collect()
    if request.node.stash.get(_FAILED, False):
        return  # its frames are kept for the report, and with them its guards
    try:
        poll(settled, "statistics() back to zero", 30.0)
    except AssertionError:
        tree = io.StringIO()
        tether.dump(tree)
        pytest.fail(f"the test left something behind: {busy_statistics()}\n{tree.getvalue()}", pytrace=False)


class Ran(NamedTuple):
    """How a snippet ended."""

    rc: int
    out: str
    err: str


RunPython = Callable[..., Ran]


@pytest.fixture
def run_python() -> RunPython:
    """Run a snippet in a fresh interpreter of the same version; it can import `tether` and `support`."""

    def run(
        code: str | None = None,
        *,
        args: tuple[str, ...] = (),
        env: dict[str, str] | None = None,
        timeout: float = 100.0,
        check: bool = False,
    ) -> Ran:
        command: list[Any] = [sys.executable, *args]
        if code is not None:
            command += ["-X", "faulthandler", "-c", textwrap.dedent(code)]
        full_env = {name: value for name, value in os.environ.items() if not name.startswith(("TETHER_", "PYTHON"))}
        if "PYTHON_GIL" in os.environ:
            full_env["PYTHON_GIL"] = os.environ["PYTHON_GIL"]
        roots = [str(Path(tether.__file__).parents[1]), str(Path(__file__).parent)]
        full_env["PYTHONPATH"] = os.pathsep.join(roots)
        full_env.update(env or {})
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=full_env, check=False)
        except subprocess.TimeoutExpired as stuck:
            out, err = ((text or b"").decode(errors="replace") for text in (stuck.stdout, stuck.stderr))
            pytest.fail(f"snippet did not end within {timeout} s\nstdout: {out}\nstderr: {err}", pytrace=False)
        result = Ran(done.returncode, done.stdout, done.stderr)
        if check and (result.rc != 0 or result.err):
            pytest.fail(f"snippet failed, rc {result.rc}\nstdout: {result.out}\nstderr: {result.err}", pytrace=False)
        return result

    return run
