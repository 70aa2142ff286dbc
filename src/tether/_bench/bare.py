"""Two bare Python processes, each doing half of the work: how fast two cores can be at most."""

import subprocess
import sys
from types import TracebackType
from typing import IO, Self


class BarePair:
    """A context manager; both processes are started, and have prepared their work, before `run` can be called.

    `script` says ``ready``, and then answers every line of its input with a line when its half is done. Its arguments
    are 0 or 1, which says which half, and `arguments`.
    """

    def __init__(self, script: str, *arguments: object) -> None:
        self._script = script
        self._arguments = [str(argument) for argument in arguments]

    def __enter__(self) -> Self:
        self._workers: list[subprocess.Popen[str]] = []
        try:
            for which in (0, 1):
                self._workers.append(_start(self._script, str(which), *self._arguments))
            for worker in self._workers:
                if _answer(worker) != "ready":
                    raise RuntimeError(f"a bare process of {self._script} did not start")
        except BaseException:
            self._stop()
            raise
        return self

    def run(self) -> list[str]:
        """Says go to both and waits for both; returns what each of them answered."""
        for worker in self._workers:
            stdin = _pipe(worker.stdin)
            stdin.write("go\n")
            stdin.flush()
        return [_answer(worker) for worker in self._workers]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        for worker in self._workers:
            worker.kill()
            worker.communicate()


def _start(script: str, *arguments: str) -> subprocess.Popen[str]:
    # -P: the folder of the script stays off sys.path, its modules have the names of others
    command = [sys.executable, "-P", script, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _answer(worker: subprocess.Popen[str]) -> str:
    line = _pipe(worker.stdout).readline()
    if not line:
        raise RuntimeError(f"a bare process ended with exit code {worker.wait()}")
    return line.rstrip("\n")


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None, "opened with PIPE"
    return stream
