"""The outside of the fresh processes: starts them, reads their one number."""

import os
import subprocess
import sys
import time
from pathlib import Path

import tether

TIMEOUT = 180.0  # seconds for one process
IMPORT = """\
import contextvars, threading, time
start = time.perf_counter()
import tether
print(time.perf_counter() - start)
"""


def probe(name: str, number: int) -> float:
    """What the probe `name` measures, in a fresh process; RuntimeError with its last words if it fails."""
    return float(_output(_command(name, number)))


def import_seconds() -> float:
    """Seconds that ``import tether`` takes in a fresh process that has imported ``threading`` and ``contextvars``."""
    return float(_output([sys.executable, "-P", "-c", IMPORT]))


def command(*arguments: str) -> str:
    """What ``python -m tether`` prints, in a fresh process, with these arguments."""
    return _output([sys.executable, "-P", "-m", "tether", *arguments])


def fib_threads(n: int, rounds: int) -> int:
    """The most native threads that a fresh process has while it runs ``fib(n)``, counted from outside it."""
    command = _command("fib-rounds", n)
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_environment(), bufsize=0
    ) as process:
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None, "opened with PIPE"
        assert stdout is not None, "opened with PIPE"
        try:
            if stdout.readline() != b"ready\n":
                raise RuntimeError(f"the process that runs fib({n}) did not start")
            stdin.write(b"go\n" * rounds)
            os.set_blocking(stdout.fileno(), False)
            most, done, deadline = 0, 0, time.monotonic() + TIMEOUT
            while done < rounds:
                most = max(most, len(os.listdir(f"/proc/{process.pid}/task")))
                time.sleep(0.001)
                done += (stdout.read(4096) or b"").count(b"done")
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the process that runs fib({n}) ended or hangs after {done} of {rounds} rounds")
            return most
        finally:
            process.kill()


def _command(name: str, number: int) -> list[str]:
    # -P: with -m the current folder would come first on sys.path, whatever lies in it
    return [sys.executable, "-P", "-m", "tether._bench.probe", name, str(number)]


def _environment() -> dict[str, str]:
    """This process's environment, in which the same tether is found, and cached bytecode is allowed."""
    home = str(Path(tether.__file__).parent.parent)
    path = [home, *filter(None, [os.environ.get("PYTHONPATH")])]
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTHONPATH": os.pathsep.join(path)}


def _output(command: list[str]) -> str:
    done = subprocess.run(command, env=_environment(), capture_output=True, text=True, timeout=TIMEOUT, check=False)
    if done.returncode:
        words = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise RuntimeError(f"{' '.join(command[3:6])} ended with exit code {done.returncode}: {words[0]}")
    return done.stdout
