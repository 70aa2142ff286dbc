"""Builds the native part of tether; everything else is in pyproject.toml."""

import glob
import os
import sys

from setuptools import Extension, setup

if not sys.platform.startswith("linux"):
    raise SystemExit(
        f"tether does not support {sys.platform!r} yet: its runtime parks threads on Linux futexes. "
        "A port needs one file, cext/runtime/platform_<system>.c; the contract is cext/runtime/platform.h."
    )
if sys.implementation.name != "cpython":
    raise SystemExit(f"tether needs CPython 3.11 or newer, not {sys.implementation.name}.")

WARNINGS = ["-Wall", "-Wextra", "-Wundef", "-Wmissing-prototypes", "-Wstrict-prototypes", "-Wno-unused-parameter"]
if os.environ.get("TETHER_WERROR"):
    WARNINGS.append("-Werror")

HEADERS = sorted(glob.glob("cext/runtime/*.h") + glob.glob("cext/binding/*.h"))

setup(
    ext_modules=[
        Extension(
            "tether._core",
            sources=sorted(glob.glob("cext/runtime/*.c") + glob.glob("cext/binding/*.c")),
            depends=HEADERS,
            include_dirs=["cext/runtime", "cext/binding"],
            define_macros=[("_GNU_SOURCE", "1")],
            extra_link_args=["-pthread"],
            extra_compile_args=["-std=c11", "-O2", "-fvisibility=hidden", *WARNINGS],
        ),
    ]
)
