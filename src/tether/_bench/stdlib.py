"""The real input: SHA-256 of every file of the running Python's standard library.

Everything below ``sysconfig.get_path("stdlib")`` counts, but not ``site-packages`` and ``dist-packages`` (others' code)
and not ``__pycache__`` (its files come and go while programs run).

Imports nothing but the standard library: run as a script, this file is the *bare process* that tether is compared with
(see ``bare.py``). It then says ``ready``, and answers every line on its input by hashing its half of the files.
"""

import hashlib
import os
import sys
import sysconfig
from collections.abc import Iterable, Sequence

LEFT_OUT = frozenset({"site-packages", "dist-packages", "__pycache__"})


def files() -> list[str]:
    """The paths, in an order that is the same in every process."""
    found = []
    for folder, folders, names in os.walk(sysconfig.get_path("stdlib")):
        folders[:] = sorted(set(folders) - LEFT_OUT)
        paths = (os.path.join(folder, name) for name in sorted(names))
        found += [path for path in paths if os.path.isfile(path)]
    return found


def digest(path: str) -> str:
    """SHA-256 of one file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def serial(paths: Iterable[str]) -> list[str]:
    """The digests of `paths`, one after another: the result that every other way must equal."""
    return [digest(path) for path in paths]


def half(paths: Sequence[str], which: int) -> list[str]:
    """Every second file by size, so that both halves (0 and 1) have as many files and nearly as many bytes."""
    return sorted(paths, key=lambda path: (os.path.getsize(path), path))[which::2]


def summary(digests: Iterable[str]) -> str:
    """One digest of many."""
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _serve(which: int) -> None:
    paths = half(files(), which)
    print("ready", flush=True)
    for _go in sys.stdin:
        print(summary(serial(paths)), flush=True)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
