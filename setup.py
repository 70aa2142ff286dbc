"""Builds the native part of tether; everything else is in pyproject.toml."""

import glob
import os
import sys
import tempfile

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

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

HEADERS = sorted(glob.glob("cext/runtime/*.h") + glob.glob("cext/binding/*.h") + ["src/tether/include/tether.h"])

# The runtime is many small files, whose calls to one another are on the path of every task: a spawn costs a sixth less.
WHOLE_PROGRAM = ["-flto=auto"]


class BuildExt(build_ext):
    """Lets the compiler see all files at once, if it and its linker can."""

    def build_extensions(self):
        if self._can_link(WHOLE_PROGRAM):
            for extension in self.extensions:
                extension.extra_compile_args += WHOLE_PROGRAM
                extension.extra_link_args += [*WHOLE_PROGRAM, "-O2"]
        super().build_extensions()

    def _can_link(self, flags):
        with tempfile.TemporaryDirectory() as folder:
            source = os.path.join(folder, "probe.c")
            with open(source, "w") as file:
                file.write("int probe(void); int probe(void) { return 0; }\n")
            try:
                objects = self.compiler.compile(
                    [source], output_dir=os.path.dirname(source), extra_postargs=["-fPIC", *flags]
                )
                self.compiler.link_shared_object(objects, os.path.join(folder, "probe.so"), extra_postargs=flags)
            except Exception:
                return False
            return True


setup(
    cmdclass={"build_ext": BuildExt},
    ext_modules=[
        Extension(
            "tether._core",
            sources=sorted(glob.glob("cext/runtime/*.c") + glob.glob("cext/binding/*.c")),
            depends=HEADERS,
            include_dirs=["cext/runtime", "cext/binding", "src/tether/include"],
            define_macros=[("_GNU_SOURCE", "1")],
            extra_link_args=["-pthread"],
            extra_compile_args=["-std=c11", "-O2", "-fvisibility=hidden", *WARNINGS],
        ),
    ],
)
