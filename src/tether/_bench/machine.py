"""What this build of Python, and this machine, are."""

import os
import platform
import resource
import sys
import sysconfig
import threading
from pathlib import Path

import tether


def gil_enabled() -> bool:
    """Whether the GIL is on in this process."""
    ask = getattr(sys, "_is_gil_enabled", None)  # 3.13 and later
    return ask is None or bool(ask())


def free_threaded_build() -> bool:
    """Whether this Python was built so that it can run without the GIL."""
    return bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def build() -> str:
    """ "GIL" or "free-threaded"; a free-threaded build whose GIL was switched on says so."""
    if not free_threaded_build():
        return "GIL"
    return "free-threaded, GIL switched on" if gil_enabled() else "free-threaded"


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """The processor's own name, or its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.machine()


def thread_stack() -> str:
    """The stack that a thread gets if nobody asks for another."""
    size = threading.stack_size() or resource.getrlimit(resource.RLIMIT_STACK)[0]
    return "unlimited by rlimit, the C library's default" if size == resource.RLIM_INFINITY else f"{size / 2**20:g} MiB"


def placement() -> str:
    """What ``TETHER_PLACE`` asks for."""
    return os.environ.get("TETHER_PLACE", "")


def description() -> dict[str, str | int]:
    """All of it, for a report; numbers mean nothing without."""
    return {
        "tether": tether.__version__,
        "python": platform.python_version(),
        "build": build(),
        "compiler": platform.python_compiler(),
        "system": f"{platform.system()} {platform.release()}",
        "libc": " ".join(platform.libc_ver()),
        "processor": processor(),
        "cores": cores(),
        "placement": placement(),
    }
