"""Processes made by the standard library, from a process with living tasks and from inside tasks (G18)."""

from __future__ import annotations

import pytest

PRELUDE = """
import multiprocessing, os, signal, subprocess, sys, threading, warnings
from concurrent.futures import ProcessPoolExecutor

import tether
from support import await_event, dedicated, status_of

warnings.simplefilter("ignore", DeprecationWarning)


def work(n):
    with tether.scope() as s:
        handle = s.options(dedicated=True).spawn(pow, n, 2)
    return handle.join() + tether.spawn(int, 1).join()


def process(kind):
    context = multiprocessing.get_context(kind)
    one = context.Process(target=work, args=(3,))
    one.start()
    one.join()
    assert one.exitcode == 0, one.exitcode


def pool(kind):
    with multiprocessing.get_context(kind).Pool(2) as p:
        assert p.map(work, range(4)) == [1, 2, 5, 10]


def executor(kind):
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(kind)) as e:
        assert list(e.map(work, range(4))) == [1, 2, 5, 10]


def run():
    done = subprocess.run([sys.executable, "-c", "print(5)"], capture_output=True, text=True, check=True)
    assert done.stdout == "5\\n"


def run_preexec():
    subprocess.run(["true"], preexec_fn=lambda: os.write(1, b""), check=True)


def posix_spawn():
    assert status_of(os.posix_spawn(sys.executable, [sys.executable, "-c", "raise SystemExit(4)"], os.environ)) == 4


def main(use):
    release = threading.Event()
    alive = [dedicated(await_event, release) for _ in range(3)]
    tether.spawn(use).join()
    dedicated(use).join()
    use()
    release.set()
    for guard in alive:
        guard.join()


if __name__ == "__main__":
    main(USE)
"""

USES = [
    f"lambda: {make}({kind!r})" for make in ("process", "pool", "executor") for kind in ("fork", "forkserver", "spawn")
]


@pytest.mark.parametrize("use", [*USES, "run", "run_preexec", "posix_spawn"])
def test_processes_from_tasks_and_beside_them(use, run_python, tmp_path):
    # a script, since spawn and forkserver import it
    script = tmp_path / "script.py"
    script.write_text(PRELUDE.replace("USE", use))
    run_python(args=(str(script),), check=True)


def test_program_started_from_a_crew_thread_can_be_terminated(run_python):
    code = """
    import subprocess
    from support import dedicated

    def starts():
        process = subprocess.Popen(["sleep", "60"])
        process.terminate()
        try:
            return process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    assert dedicated(starts).join() == -15
    """
    run_python(code, check=True)
