"""The command line: ``python -m tether``, ``python -m tether bench`` and ``python -m tether sum``."""

import argparse
import platform
import sys
from collections.abc import Callable, Sequence

import tether

from . import _sum
from ._bench import command, machine

# What a version can do, told by the names it has.
FEATURES = {
    "tasks and guards": "spawn",
    "scopes": "scope",
    "restart and supervisors": "supervisor",
    "regions and borrows": "Region",
    "owned and shared values": "Owned",
    "capture checks": "explain",
    "channels": "channel",
    "parallel maps and Executor": "par_map",
    "isolated tasks": "mailbox",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line given (without the program's name; default: this process's) and returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tether",
        description="Without a command: what tether can do with this build of Python on this machine.",
    )
    parser.add_argument("--version", action="version", version=f"tether {tether.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    bench = commands.add_parser("bench", help="compare tether with threading and ThreadPoolExecutor on this machine")
    command.add_arguments(bench)
    sums = commands.add_parser("sum", help="SHA-256 of files, in parallel; output as sha256sum's")
    sums.add_argument("paths", nargs="*", metavar="PATH", help="a file; '-', or nothing, is standard input")
    options = parser.parse_args(arguments)
    if options.command == "bench":
        return command.bench(options)
    if options.command == "sum":
        return _sum.main(options.paths)
    print(about())
    return 0


def about() -> str:
    """What this build and this machine can do, one fact on a line."""
    facts = {
        "tether": tether.__version__,
        "Python": f"{platform.python_version()}, {machine.build()}, {platform.python_compiler()}",
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "processor": machine.processor(),
        "cores": f"{machine.cores()} usable; {_parallel()}",
        "thread stack": machine.thread_stack(),
        "placement": machine.placement() or "automatic (TETHER_PLACE=inline|thread|random forces it)",
        "max_threads": _max_threads(),
    }
    lines = [f"{name:<14}{fact}" for name, fact in facts.items()]
    lines += ["", "features"]
    has = frozenset(dir(tether))
    lines += [f"  {what:<28}{'yes' if name in has else 'not in this version'}" for what, name in FEATURES.items()]
    return "\n".join(lines)


def _parallel() -> str:
    if machine.gil_enabled():
        return "one task runs Python code at a time; blocking calls and C code without the GIL run beside it"
    return "several tasks run Python code at a time"


def _max_threads() -> str:
    """The bound, where the configuration tells it; `configure` without arguments changes nothing."""
    configure: Callable[..., object] = tether.configure
    bound = getattr(configure(), "max_threads", None)
    return str(bound) if bound is not None else "as tether.configure(max_threads=...) sets it"


if __name__ == "__main__":
    sys.exit(main())
