"""No file descriptor is left (fault 16): tether uses none, so everything works."""

from __future__ import annotations

from conftest import RunPython

EXHAUST = """
import os, resource
def exhaust():
    # Every number below the limit is in use afterwards: a gap in the table would be a descriptor to be had.
    highest = max(int(n) for n in os.listdir("/proc/self/fd"))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
    held = []
    try:
        while True:
            held.append(os.dup(0))
    except OSError:
        return held
"""

USE = """
from support import Token, await_event, dedicated
import sys, threading
def fails():
    raise KeyError(1)

def use():
    assert tether.spawn(pow, 2, 3).join() == 8
    assert tether.spawn(pow, 2, 3).join(timeout=60) == 8
    assert dedicated(pow, 2, 3).join() == 8
    assert tether.options(stack_size=1 << 20).spawn(pow, 2, 3).join() == 8
    barrier = threading.Barrier(9)
    with tether.scope() as s:
        for _ in range(8):
            s.spawn(barrier.wait, 60)
        barrier.wait(60)
    try:
        with tether.scope() as s:
            s.spawn(fails)
    except ExceptionGroup as group:
        assert isinstance(group.exceptions[0], KeyError)
    guard = dedicated(tether.sleep, 1000)
    guard.cancel()
    assert isinstance(guard.exit_value(), tether.Killed)
    tether.dump(sys.stdout)
"""


def test_everything_works_without_descriptors(run_python: RunPython) -> None:
    # fault 16: spawn, join, scopes, threads, statistics, exit
    code = f"""
import tether
{EXHAUST}
{USE}
tether.spawn(int).join()
tether.statistics()
held = exhaust()
use()
try:
    os.dup(0)
except OSError:
    pass
else:
    raise AssertionError("there was a descriptor left")
for fd in held:
    os.close(fd)
before = len(os.listdir("/proc/self/fd"))
use()
assert len(os.listdir("/proc/self/fd")) == before
assert tether.statistics().tasks_live == 0
left = exhaust()
late = tether.spawn(pow, 2, 3)  # joined at exit, without descriptors
"""
    ran = run_python(code, args=("-W", "ignore"))
    assert (ran.rc, ran.err) == (0, "")


def test_descriptors_run_out_before_the_first_spawn(run_python: RunPython) -> None:
    # fault 16: a module that cannot be opened is an error of the import, clear, and nothing is half done
    code = f"""
import tether
{EXHAUST}
held = exhaust()
try:
    tether.spawn(int)
except (OSError, ImportError) as exc:
    print(type(exc).__name__)
else:
    raise AssertionError("its modules cannot have been imported")
for fd in held:
    os.close(fd)
assert tether.spawn(int).join() == 0
assert tether.statistics().tasks_live == 0
"""
    ran = run_python(code)
    assert (ran.rc, ran.err) == (0, "")
    assert ran.out.strip() in ("OSError", "ImportError", "ModuleNotFoundError")


def test_import_without_descriptors(run_python: RunPython) -> None:
    # fault 16: an error, and none is leaked; afterwards the import works
    code = f"""
import sys
{EXHAUST}
held = exhaust()
before = len(held)
try:
    import tether
except (OSError, ImportError):
    pass
else:
    raise AssertionError("its files cannot have been opened")
for fd in held:
    os.close(fd)
count = len(os.listdir("/proc/self/fd"))
import tether
assert len(os.listdir("/proc/self/fd")) == count
assert tether.spawn(int).join() == 0
"""
    ran = run_python(code)
    assert (ran.rc, ran.err) == (0, "")
