"""The C functions of tests/ext/bodies.c, built once a run; without a compiler, what needs them is skipped."""

from __future__ import annotations

import atexit
import ctypes
import shlex
import shutil
import subprocess
import sysconfig
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest

LONG = ctypes.c_long
POINTER = ctypes.c_void_p
RANGE = [ctypes.c_ssize_t, ctypes.c_ssize_t, POINTER]
BYTES = [POINTER, ctypes.c_size_t, ctypes.c_size_t, POINTER]
RANGE_TEXT = "int (intptr_t begin, intptr_t end, void *user_data)"
BYTES_TEXT = "int (void *data, size_t bytes, size_t offset, void *user_data)"
READS_TEXT = "int (const void *data, size_t bytes, size_t offset, void *user_data)"


def compiler() -> str:
    """Return the C compiler; skip where there is none."""
    names = [shlex.split(str(sysconfig.get_config_var("CC") or "cc"))[0], "cc", "gcc"]
    for name in names:
        if shutil.which(name):
            return name
    pytest.skip("this test builds C functions, and there is no C compiler")


@cache
def folder() -> Path:
    """Return a folder that is removed when the run is over."""
    path = tempfile.mkdtemp(prefix="tether-native-")
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return Path(path)


@cache
def _library(command: str) -> Any:
    source, built = Path(__file__).parent / "ext" / "bodies.c", folder() / "bodies.so"
    subprocess.run([command, "-shared", "-fPIC", "-O2", "-std=c11", "-D_GNU_SOURCE", "-o", built, source], check=True)
    return ctypes.CDLL(str(built))


def library() -> Any:
    """Return the library, with the types of its functions set."""
    lib = _library(compiler())
    for name in ("visit", "note_parts", "fail_at", "dawdle", "meet"):
        getattr(lib, name).argtypes = RANGE
    lib.visit_quietly.argtypes, lib.visit_quietly.restype = RANGE, None
    lib.visit_long.argtypes, lib.visit_long.restype = [LONG, LONG, ctypes.POINTER(LONG)], LONG
    lib.fail_beyond_int.argtypes, lib.fail_beyond_int.restype = RANGE, LONG
    for name in ("raise_bytes", "sum_bytes", "fail_bytes"):
        getattr(lib, name).argtypes = BYTES
    return lib


def address(func: Any) -> int:
    """Return where a function of ctypes is."""
    return ctypes.cast(func, POINTER).value or 0


_names: list[bytes] = []  # a capsule does not copy its name


def capsule(func: Any, signature: str | None, context: int | None = None) -> Any:
    """Wrap a function of ctypes as extension modules do."""
    make = ctypes.pythonapi.PyCapsule_New
    make.restype, make.argtypes = ctypes.py_object, [POINTER, ctypes.c_char_p, POINTER]
    name = None if signature is None else signature.encode()
    if name is not None:
        _names.append(name)
    made = make(address(func), name, None)
    if context is not None:
        keep = ctypes.pythonapi.PyCapsule_SetContext
        keep.argtypes = [ctypes.py_object, POINTER]
        keep(made, context)
    return made


def counters(n: int) -> Any:
    """Return n C longs, all zero."""
    return (LONG * n)()


class Fault(ctypes.Structure):
    """What fail_at and dawdle work on."""

    _fields_ = (("bad", LONG), ("code", LONG), ("begun", LONG), ("inside", LONG))
