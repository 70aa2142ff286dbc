"""SHA-256 of large files by two commands: ``python -m tether sum`` and ``xargs -P sha256sum``."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import child, machine

MEGABYTE = 1_000_000


@contextmanager
def files(count: int, megabytes: int) -> Iterator[list[str]]:
    """The paths of `count` files of so many megabytes, in a folder that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="tether-bench-") as folder:
        paths = [Path(folder, f"{n}.bin") for n in range(count)]
        for path in paths:
            path.write_bytes(os.urandom(MEGABYTE) * megabytes)
        yield [str(path) for path in paths]


def rival() -> str:
    """What the other command is called."""
    return f"xargs -P{machine.cores()} sha256sum"


def rival_is_here() -> bool:
    """Whether this machine has both of its programs."""
    return shutil.which("xargs") is not None and shutil.which("sha256sum") is not None


def ours(paths: list[str]) -> list[str]:
    """The lines of ``python -m tether sum``."""
    return child.command("sum", *paths).splitlines()


def theirs(paths: list[str]) -> list[str]:
    """The lines of the rival, sorted: as many processes as cores, each with an equal share of the files."""
    cores = machine.cores()
    share = str(-(-len(paths) // cores))
    command = ["xargs", "-0", f"-P{cores}", "-n", share, "sha256sum"]
    done = subprocess.run(command, input="\0".join(paths), capture_output=True, text=True, check=True)
    return sorted(done.stdout.splitlines())
