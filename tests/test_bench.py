"""What the bench does where a rival, or what a row needs, is missing. Nothing here is about speed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tether._bench import openmp
from tether._bench.measure import timed
from tether._bench.native_rows import native_rows
from tether._bench.row import Goal, Judged, Row, pair
from tether._bench.run import run
from tether._bench.sizes import QUICK
from tether._bench.sums import files, ours, rival_is_here, theirs
from tether._bench.table import table

ROW = Row("work", "the work", "s", Judged.TIMES, pair(timed(int)), rounds=1)


def outcome_of(**differences):
    return run([replace(ROW, **differences)], 0.0, lambda done, label: None)


def test_row_that_lacks_what_it_needs_is_not_run_and_says_so():
    def sides():
        raise AssertionError("run")

    outcomes = outcome_of(sides=sides, lacks="NumPy is not installed", reach=Goal("1.5x faster", 1.5))
    assert outcomes[0].mark == "-"
    assert not outcomes[0].error
    assert "NOT RUN the work: NumPy is not installed" in table(outcomes)


def test_row_without_its_rival_has_figures_but_is_not_judged():
    outcomes = outcome_of(rival="sha256sum: not on this machine", reach=Goal("not slower", 1))
    assert outcomes[0].ours is not None
    assert outcomes[0].mark == "-"
    assert "sha256sum: not on this machine" in table(outcomes)


def test_row_that_fails_says_why_and_is_judged_as_failed():
    outcomes = outcome_of(sides=pair(timed(lambda: 1 // 0)))
    assert outcomes[0].mark == "failed"
    assert "FAILED the work: ZeroDivisionError" in table(outcomes)


def test_rows_of_c_say_when_there_is_no_compiler(monkeypatch):
    monkeypatch.setattr(openmp, "compiler", lambda: "")
    openmp.lacks.cache_clear()
    try:
        outcomes = run(native_rows(QUICK), 0.0, lambda done, label: None)
    finally:
        openmp.lacks.cache_clear()
    assert [outcome.mark for outcome in outcomes] == ["-", "-"]
    assert table(outcomes).count("not measured: no compiler") == 2


def test_parallel_sum_and_its_rival_agree():
    if openmp.lacks():
        pytest.skip(f"OpenMP is the rival: {openmp.lacks()}")
    sizes = replace(QUICK, rounds=1, sum_mib=1)
    assert [outcome.error for outcome in run(native_rows(sizes), 0.0, lambda done, label: None)] == ["", ""]


def test_sum_and_its_rival_say_the_same_of_the_same_files():
    with files(3, 1) as paths:
        lines = ours(paths)
        assert [line.split("  ")[1] for line in lines] == paths
        if rival_is_here():
            assert sorted(lines) == theirs(paths)
