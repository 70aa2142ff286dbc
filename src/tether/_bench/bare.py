"""Two bare Python processes, each hashing half of the files: how fast two cores can be at most."""

import subprocess
import sys
from types import TracebackType
from typing import IO, Self

from . import stdlib


class BarePair:
    """A context manager; both processes are started, and have found their files, before `run` can be called."""

    def __enter__(self) -> Self:
        self._workers: list[subprocess.Popen[str]] = []
        try:
            for which in (0, 1):
                self._workers.append(_start(which))
            for worker in self._workers:
                if _answer(worker) != "ready":
                    raise RuntimeError("a bare process of the hashing row did not start")
        except BaseException:
            self._stop()
            raise
        return self

    def run(self) -> list[str]:
        """Says go to both and waits for both; returns one summary digest for each half."""
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


def _start(which: int) -> subprocess.Popen[str]:
    # -P: the folder of the script stays off sys.path, its modules have the names of others
    command = [sys.executable, "-P", stdlib.__file__, str(which)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _answer(worker: subprocess.Popen[str]) -> str:
    line = _pipe(worker.stdout).readline()
    if not line:
        raise RuntimeError(f"a bare process of the hashing row ended with exit code {worker.wait()}")
    return line.rstrip("\n")


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None, "opened with PIPE"
    return stream
