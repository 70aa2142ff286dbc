"""OpenMP, the rival of `tether.native`: a C library that is compiled when the bench runs, and called through ctypes."""

import ctypes
import os
import shlex
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

SOURCE = """
#include <stddef.h>
#include <stdint.h>
void region(int threads) {
#pragma omp parallel num_threads(threads)
    __asm__ volatile("");
}
double sum(const double *numbers, size_t n, int threads) {
    double total = 0;
#pragma omp parallel for simd num_threads(threads) reduction(+ : total) schedule(static)
    for (size_t i = 0; i < n; i++)
        total += numbers[i];
    return total;
}
int nothing(intptr_t begin, intptr_t end, void *user_data) { return 0; }
"""
FLAGS = ("-O3", "-fopenmp", "-shared", "-fPIC", "-w")


def compiler() -> str:
    """The C compiler, or nothing."""
    names = [*shlex.split(str(sysconfig.get_config_var("CC") or ""))[:1], "gcc", "cc"]
    return next((name for name in names if shutil.which(name)), "")


@cache
def lacks() -> str:
    """Why the rows cannot be measured here, or nothing."""
    command = compiler()
    if not command:
        return "not measured: no compiler"
    with tempfile.TemporaryDirectory(prefix="tether-bench-") as folder:
        return "" if _compiled(command, folder) else "not measured: no compiler with OpenMP"


def _compiled(command: str, folder: str) -> str:
    source, built = Path(folder, "rival.c"), os.path.join(folder, "rival.so")
    source.write_text(SOURCE, encoding="ascii")
    done = subprocess.run([command, *FLAGS, "-o", built, str(source)], capture_output=True, check=False)
    return built if done.returncode == 0 else ""


@contextmanager
def library() -> Iterator[Any]:
    """The compiled library, its functions typed."""
    with tempfile.TemporaryDirectory(prefix="tether-bench-") as folder:
        rival = ctypes.CDLL(_compiled(compiler(), folder))
        rival.region.argtypes, rival.region.restype = [ctypes.c_int], None
        rival.sum.argtypes, rival.sum.restype = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int], ctypes.c_double
        rival.nothing.argtypes = [ctypes.c_ssize_t, ctypes.c_ssize_t, ctypes.c_void_p]
        yield rival
