"""G1: a process with a hundred live tasks exits cleanly, time and again; the full count is `tests/load/exits.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from hundred import ALL, TASKS

SCRIPT = Path(__file__).parent / "load" / "exits.py"

# What the program does last. Each is a way for it to end with the hundred alive.
ENDINGS = {
    "falls off the end": ("", 0, ""),
    "sys.exit": ("sys.exit(3)", 3, ""),
    "sys.exit with a text": ("sys.exit('over')", 1, "over\n"),
    "uncaught exception": ("raise ValueError('main')", 1, "ValueError: main"),
    "SystemExit of a task": ("dedicated.spawn(sys.exit, 4).join()", 4, ""),
    "SystemExit of a child": ("with tether.scope() as s: s.spawn(sys.exit, 5)", 5, ""),
    "SystemExit of a detached task": ("dedicated.spawn(sys.exit, 6).detach()", 0, ""),
    "KeyboardInterrupt": ("raise KeyboardInterrupt", -2, "KeyboardInterrupt"),
    "atexit joins": ("atexit.register(lambda: [guard.join() for guard in guards])", 0, ""),
    "atexit drops": ("atexit.register(guards.clear)", 0, ""),
    "a cycle": ("guards.append(guards); del guards; del hundred.guards", 0, ""),
    "main ends before a thread": ("threading.Thread(target=lambda: [guard.join() for guard in guards]).start()", 0, ""),
    "a thread never joins": ("threading.Thread(target=gate.wait).start()", 0, ""),
}

PROGRAM = """
    import atexit, sys, threading
    import hundred, tether
    from hundred import begin, dedicated, gate, guards

    begin()
"""


@pytest.mark.parametrize(("ending", "rc", "said"), ENDINGS.values(), ids=ENDINGS)
def test_exit_joins_a_hundred_live_tasks(ending, rc, said, run_python):
    # G1, fault 10: lazy, dedicated, detached; blocked in tether, blocked in C, computing, queued
    result = run_python(f"{PROGRAM}    {ending}\n")
    assert (result.rc, result.out) == (rc, ALL), result.err
    assert said in result.err
    if not said:
        assert result.err == ""


def test_exit_of_the_process_at_once_abandons_the_hundred(run_python):
    # G1, fault 10: os._exit is where the promise ends; it ends the process all the same, and at once
    for status in (0, 7):
        result = run_python(PROGRAM + f"    os = sys.modules['os']; os.write(1, b'now'); os._exit({status})\n")
        assert result == (status, "now", "")


@pytest.mark.slow
def test_exits_under_load_are_clean(run_python):
    # G1, fault 10
    result = run_python(args=(str(SCRIPT), "15"), check=True)
    assert result.out.startswith("15 exits, all clean")
    assert TASKS == 100
