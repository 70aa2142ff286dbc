"""The soak for a moment: that it runs, and that everything at once goes well. For longer: docs/testing.md."""

from __future__ import annotations

from pathlib import Path

SOAK = Path(__file__).with_name("soak.py")


def test_everything_at_once_for_a_moment(run_python):
    # G1, G2, G6, G9, G12; the number of acts is fixed, not the time
    ran = run_python(args=(str(SOAK), "--rounds", "60", "--seed", "7"))
    assert ran.rc == 0, ran.err
    assert "soak: ok, 240 acts" in ran.out


def test_soak_says_how_it_is_used(run_python):
    ran = run_python(args=(str(SOAK),))
    assert ran.rc == 2
    assert "either --minutes or --rounds" in ran.err
