"""The inside of a fresh process: ``python -m tether._bench.probe NAME NUMBER`` prints one number.

The names are the keys of `PROBES`; ``child.py`` is the outside.
"""

import sys
from collections.abc import Callable

from . import fib, idle, memory


def fib_rounds(n: int) -> float:
    """``fib(n)`` again and again for whoever counts this process's threads, from 'ready' until the input ends."""
    print("ready", flush=True)
    rounds = 0
    for _go in sys.stdin:
        fib.fib(n)
        rounds += 1
        print("done", flush=True)
    return rounds


PROBES: dict[str, Callable[[int], float]] = {
    "queued-tasks": memory.queued_tasks,
    "queued-futures": memory.queued_futures,
    "blocked-tasks": memory.blocked_tasks,
    "blocked-threads": memory.blocked_threads,
    "idle-ms": lambda milliseconds: idle.switches(milliseconds / 1000),
    "fib-rounds": fib_rounds,
}


def main(name: str, number: str) -> None:
    print(PROBES[name](int(number)))


if __name__ == "__main__":
    main(*sys.argv[1:])
