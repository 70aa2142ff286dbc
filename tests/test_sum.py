"""python -m tether sum: output and status as those of sha256sum."""

from __future__ import annotations

import fcntl
import hashlib
import os
import pty
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tether

COMMAND = [sys.executable, "-m", "tether", "sum"]
LIMIT = 90.0


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(tether.__file__).parents[1])}


def run(*paths: Any, cwd: Path, **options: Any) -> subprocess.CompletedProcess[bytes]:
    if "stdin" not in options and "input" not in options:
        options["stdin"] = subprocess.DEVNULL
    command = [*COMMAND, *paths]
    return subprocess.run(
        command, capture_output=True, cwd=cwd, env=environment(), timeout=LIMIT, check=False, **options
    )


def reference(*paths: Any, cwd: Path, **options: Any) -> subprocess.CompletedProcess[bytes]:
    program = shutil.which("sha256sum")
    if program is None:
        pytest.skip("sha256sum is not installed here")
    env = {**os.environ, "LC_ALL": "C"}
    return subprocess.run(
        [program, *paths], capture_output=True, cwd=cwd, env=env, timeout=LIMIT, check=False, **options
    )


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "empty").touch()
    (tmp_path / "small").write_bytes(b"abc")
    (tmp_path / "pages").write_bytes(os.urandom(3 * 4096 + 1))
    (tmp_path / "large").write_bytes(os.urandom((16 << 20) + 5))
    (tmp_path / "folder").mkdir()
    return tmp_path


def test_sums_are_those_of_sha256sum(files: Path) -> None:
    names = ["small", "empty", "large", "pages", "small", "./small"]
    ran = run(*names, cwd=files)
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert ran.stdout == reference(*names, cwd=files).stdout


def test_odd_names_are_written_as_sha256sum_does(tmp_path: Path) -> None:
    names = [
        b"with space",
        b" lead",
        b"back\\slash",
        b"new\nline",
        b"return\rhere",
        b"\xff\xfe",
        "ü".encode(),
        b"*star",
        b"tab\t",
        b"'\"",
    ]
    for name in names:
        (tmp_path / os.fsdecode(name)).write_bytes(name)
    ran = run(*names, cwd=tmp_path)
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert ran.stdout == reference(*names, cwd=tmp_path).stdout
    ran = run("--", "-odd", cwd=tmp_path)
    assert ran.returncode == 1
    assert b"-odd" in ran.stderr


def test_what_cannot_be_read_is_told_in_its_place_and_the_others_go_on(files: Path) -> None:
    names = ["small", "missing", "folder", "pages", "small/below", "odd\nmissing"]
    ran, theirs = run(*names, cwd=files), reference(*names, cwd=files)
    assert ran.returncode == theirs.returncode == 1
    assert ran.stdout == theirs.stdout
    lines = ran.stderr.decode().splitlines()
    assert len(lines) == 4
    assert [line.rsplit(": ", 1)[1] for line in lines] == [
        "No such file or directory",
        "Is a directory",
        "Not a directory",
        "No such file or directory",
    ]
    assert lines[0] == "tether sum: missing: No such file or directory"


def test_standard_input_is_read_for_a_dash_and_for_nothing(files: Path) -> None:
    for paths in ((), ("-",), ("small", "-", "pages"), ("-", "-")):
        ran, theirs = run(*paths, cwd=files, input=b"hello"), reference(*paths, cwd=files, input=b"hello")
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, theirs.stdout, b"")
    with (files / "large").open("rb") as file:
        ran = run(cwd=files, stdin=file)
    assert ran.stdout.split()[0].decode() == hashlib.sha256((files / "large").read_bytes()).hexdigest()


def test_a_closed_standard_input_is_told(files: Path) -> None:
    command = ["sh", "-c", 'exec "$@" <&-', "sh", *COMMAND, "-", "small"]
    ran = subprocess.run(command, capture_output=True, cwd=files, env=environment(), timeout=LIMIT, check=False)
    assert ran.returncode == 1
    assert ran.stderr == b"tether sum: -: Bad file descriptor\n"
    assert ran.stdout.endswith(b"  small\n")


@pytest.mark.parametrize(
    "path", ["/proc/self/status", "/proc/version", "/sys/kernel/mm/transparent_hugepage/enabled", "/dev/null"]
)
def test_files_that_cannot_be_mapped_are_read(path: str, tmp_path: Path) -> None:
    if not os.path.exists(path):
        pytest.skip(f"{path} does not exist here")
    ran = run(path, cwd=tmp_path)
    assert (ran.returncode, ran.stderr) == (0, b"")
    if path != "/proc/self/status":
        assert ran.stdout.split()[0].decode() == hashlib.sha256(Path(path).read_bytes()).hexdigest()


def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    process = subprocess.Popen([*COMMAND, "pipe"], cwd=tmp_path, env=environment(), stdout=subprocess.PIPE)
    (tmp_path / "pipe").write_bytes(b"through a pipe")
    out, _ = process.communicate(timeout=LIMIT)
    assert out.decode() == hashlib.sha256(b"through a pipe").hexdigest() + "  pipe\n"
    assert process.returncode == 0


def test_many_files_keep_their_order(tmp_path: Path) -> None:
    names = [f"{number:04}" for number in range(500)]
    for name in names:
        (tmp_path / name).write_text(name)
    ran = run(*names, cwd=tmp_path)
    assert ran.stdout.decode() == "".join(f"{hashlib.sha256(name.encode()).hexdigest()}  {name}\n" for name in names)


def test_a_reader_that_goes_away_ends_it_silently(tmp_path: Path) -> None:
    names = [f"{number:04}" for number in range(2000)]
    for name in names:
        (tmp_path / name).touch()
    read, write = os.pipe()
    fcntl.fcntl(write, 1031, 4096)  # F_SETPIPE_SZ: it is soon full
    with subprocess.Popen(
        [*COMMAND, *names], cwd=tmp_path, env=environment(), stdout=write, stderr=subprocess.PIPE
    ) as process:
        os.close(write)
        assert os.read(read, 64)
        os.close(read)
        _, err = process.communicate(timeout=LIMIT)
    assert (process.returncode, err) == (1, b"")


def test_output_that_cannot_be_written_is_told(files: Path) -> None:
    with open("/dev/full", "wb") as full:
        for names in (["small"], ["small"] * 1000):
            ran = subprocess.run(
                [*COMMAND, *names],
                stdout=full,
                stderr=subprocess.PIPE,
                cwd=files,
                env=environment(),
                timeout=LIMIT,
                check=False,
            )
            assert ran.returncode == 1
            assert ran.stderr == b"tether sum: write error: No space left on device\n"
    command = ["sh", "-c", 'exec "$@" >&-', "sh", *COMMAND, "small"]
    ran = subprocess.run(command, stderr=subprocess.PIPE, cwd=files, env=environment(), timeout=LIMIT, check=False)
    assert ran.returncode == 1
    assert ran.stderr == b"tether sum: write error: Bad file descriptor\n"


def test_a_closed_standard_error_changes_nothing_else(files: Path) -> None:
    command = ["sh", "-c", 'exec "$@" 2>&-', "sh", *COMMAND, "small", "missing"]
    ran = subprocess.run(command, stdout=subprocess.PIPE, cwd=files, env=environment(), timeout=LIMIT, check=False)
    assert ran.returncode == 1
    assert ran.stdout == f"{hashlib.sha256(b'abc').hexdigest()}  small\n".encode()


def in_terminal(command: list[str], cwd: Path) -> tuple[int, str, str]:
    """Run with standard error on a terminal; return code, output, and what the terminal got."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(command, cwd=cwd, env=environment(), stdout=subprocess.PIPE, stderr=follower)
    os.close(follower)
    out, _ = process.communicate(timeout=LIMIT)
    shown = b""
    try:
        while block := os.read(leader, 4096):
            shown += block
    except OSError:  # the other end is gone
        pass
    os.close(leader)
    return process.returncode, (out or b"").decode(), shown.decode()


def test_a_terminal_shows_how_far_it_is(files: Path) -> None:
    code, out, shown = in_terminal([*COMMAND, "large", "missing", "pages"], files)
    assert code == 1
    assert len(out.splitlines()) == 2
    assert "100 %" in shown or "99 %" in shown
    assert "\r[####" in shown
    assert shown.rstrip().endswith("\x1b[K") or "missing: No such file" in shown
    code, _, shown = in_terminal([*COMMAND, "empty"], files)
    assert (code, shown) == (0, "")


@pytest.mark.parametrize("path", ["-", "pipe"])
def test_ctrl_c_ends_it(tmp_path: Path, path: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*COMMAND, path], cwd=tmp_path, env=environment(), **pipes) as process:  # type: ignore[call-overload]
        with open(tmp_path / "pipe", "wb") if path == "pipe" else process.stdin as source:
            source.write(b"x" * (1 << 20))  # more than the pipe takes: it reads
            source.flush()
            process.send_signal(signal.SIGINT)
            assert process.wait(LIMIT) == 130  # G12
        assert (process.stdout.read(), process.stderr.read()) == (b"", b"")
