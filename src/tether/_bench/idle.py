"""Does anything run when there is nothing to do? Counted in context switches.

Called in a fresh process (``probe.py``).
"""

import os
import re
import time
from pathlib import Path
from threading import get_native_id

from . import scope, sleeping, spawn

TASKS = Path("/proc/self/task")
SWITCHES = re.compile(r"^(?:non)?voluntary_ctxt_switches:\s+(\d+)$", re.MULTILINE)


def switches(seconds: float) -> int:
    """Context switches of all threads but this one in `seconds` that begin one second after work of every kind.

    A thread that ends meanwhile counts as none, one that begins counts in full.
    """
    spawn.lazy(1000)
    spawn.dedicated(100)
    scope.tasks(1000)
    sleeping.tasks(100, 0.01)
    time.sleep(1.0)
    before = _by_thread()
    time.sleep(seconds)
    return sum(now - before.get(thread, 0) for thread, now in _by_thread().items())


def _by_thread() -> dict[int, int]:
    counts = {}
    for thread in map(int, os.listdir(TASKS)):
        if thread == get_native_id():
            continue
        try:
            status = (TASKS / str(thread) / "status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
        counts[thread] = sum(map(int, SWITCHES.findall(status)))
    return counts
