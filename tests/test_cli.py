"""The command line: `python -m tether` and its bench."""

from __future__ import annotations

import json
import platform

import pytest

ROWS = {
    "spawn",
    "scope",
    "dedicated",
    "dedicated-apart",
    "sleep-1000",
    "sleep-8",
    "fib",
    "hash",
    "share",
    "borrow-mut",
    "chunks",
    "conflicts",
    "map",
    "sum",
    "queued",
    "blocked",
    "idle",
    "import",
}


def tether_command(run_python, *arguments, **options):
    return run_python(None, args=("-m", "tether", *arguments), **options)


def test_command_tells_what_this_build_can_do(run_python):
    out = tether_command(run_python, check=True).out
    assert platform.python_version() in out
    assert "GIL" in out or "free-threaded" in out


def test_command_tells_its_version_and_its_usage(run_python):
    assert "tether" in tether_command(run_python, "--version", check=True).out
    assert "bench" in tether_command(run_python, "--help", check=True).out
    assert "--json" in tether_command(run_python, "bench", "--help", check=True).out


def test_unknown_command_is_refused(run_python):
    result = tether_command(run_python, "unheard-of")
    assert result.rc == 2
    assert "unheard-of" in result.err
    assert "Traceback" not in result.err


def test_bench_refuses_a_folder_that_is_not_there(run_python, tmp_path):
    result = tether_command(run_python, "bench", "--quick", "--json", str(tmp_path / "missing" / "out.json"))
    assert result.rc == 2
    assert "Traceback" not in result.err


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_quick_bench_ends_and_writes_its_rows(run_python, tmp_path):
    # nothing here is about speed
    path = tmp_path / "bench.json"
    result = tether_command(run_python, "bench", "--quick", "--json", str(path), timeout=280.0)
    assert result.rc == 0, result.out + result.err
    report = json.loads(path.read_text())
    assert report["quick"] is True
    assert report["machine"]["python"] == platform.python_version()
    rows = {row["key"]: row for row in report["rows"]}
    assert rows.keys() >= ROWS
    assert [row["key"] for row in report["rows"] if row["error"]] == []
    for key in ROWS:
        assert rows[key]["ours"]["samples"], key
        assert rows[key]["label"] in result.out, key
