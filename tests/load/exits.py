"""Load: exits of a process that has a hundred live tasks, every one of which must be clean (faults 10 and G1).

    python tests/load/exits.py [N] [JOBS]

Starts N processes (default 1,000), JOBS at a time (default 2). A clean exit has status 0, an empty standard error,
and all tasks have run to their ends. Ends with status 1 and the first dirty exit's output if there was one.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

LIMIT = 60.0
"""Seconds after which a process that has not ended is taken for hanging."""

ENDINGS = [
    "",
    "sys.exit()",
    "raise SystemExit(0)",
    "gate.set(); guards.clear()",
    "gate.wait(0.05)",
    "atexit.register(lambda: [guard.join() for guard in guards])",
]


def program(n: int) -> str:
    ending = ENDINGS[n % len(ENDINGS)]
    return f"import atexit, sys\nfrom hundred import begin, gate, guards\nbegin()\n{ending}\n"


def environment() -> dict[str, str]:
    tests = Path(__file__).parents[1]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TETHER_")}
    roots = [str(tests), os.environ.get("PYTHONPATH", "")]
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, roots))}


def exit_once(n: int) -> str | None:
    """Return what was wrong, or None."""
    command = [sys.executable, "-X", "faulthandler", "-c", program(n)]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired as stuck:
        return f"exit {n} ({ENDINGS[n % len(ENDINGS)]!r}) hangs\n{stuck.stdout!r}\n{stuck.stderr!r}"
    if ran.returncode == 0 and not ran.stderr and ran.stdout == "100 of 100 ended\n":
        return None
    return f"exit {n} ({ENDINGS[n % len(ENDINGS)]!r}): status {ran.returncode}\n{ran.stdout}\n{ran.stderr}"


def main(count: int = 1_000, jobs: int = 2) -> int:
    began = time.monotonic()
    numbers, lock, dirty = itertools.count(), threading.Lock(), []

    def work() -> None:
        while not dirty:
            with lock:
                n = next(numbers)
            if n >= count:
                return
            wrong = exit_once(n)
            if wrong is not None:
                dirty.append(wrong)

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for worker in [pool.submit(work) for _ in range(jobs)]:
            worker.result()
    build = sys.version.split()[0]
    if dirty:
        print(dirty[0])
        return 1
    print(f"{count} exits, all clean, {time.monotonic() - began:.0f} s, Python {build}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
