"""``python -m tether bench``: measure, show, write."""

import argparse
import sys
from pathlib import Path

from . import machine, plot, report
from .progress import Progress
from .rows import rows
from .run import run
from .sizes import FULL, QUICK
from .table import table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the bench."""
    parser.add_argument("--quick", action="store_true", help="fewer rounds and smaller counts: about 20 seconds")
    parser.add_argument("--json", type=Path, metavar="F", help="write every sample, and what made them, to F")
    parser.add_argument(
        "--plot", type=Path, metavar="F", help='draw a picture into F (.png, .svg, .pdf); needs "tether[bench]"'
    )


def bench(options: argparse.Namespace) -> int:
    """Runs it; the exit code is 1 if a row failed, 2 if it could not begin."""
    try:
        _check(options)
    except (OSError, plot.PlotError) as error:
        print(f"tether bench: {error}", file=sys.stderr)
        return 2
    sizes = QUICK if options.quick else FULL
    chosen = rows(sizes)
    print(_title(), flush=True)
    with Progress(len(chosen)) as progress:
        outcomes = run(chosen, sizes.budget, progress.show)
    print(table(outcomes))
    if options.json is not None:
        report.write(options.json, outcomes, quick=options.quick)
    if options.plot is not None:
        plot.draw(options.plot, outcomes)
    return int(any(outcome.error for outcome in outcomes))


def _check(options: argparse.Namespace) -> None:
    """Raises before the measuring what would otherwise be raised after it."""
    if options.plot is not None:
        plot.check(options.plot)
    for path in filter(None, (options.json, options.plot)):
        if not path.parent.is_dir():
            raise NotADirectoryError(f"there is no folder {str(path.parent)!r} to write {path.name!r} into")


def _title() -> str:
    about = machine.description()
    place = f", TETHER_PLACE={about['placement']}" if about["placement"] else ""
    return (
        f"tether {about['tether']}, Python {about['python']} ({about['build']}), "
        f"{about['cores']} cores, {about['processor']}{place}\n"
    )
