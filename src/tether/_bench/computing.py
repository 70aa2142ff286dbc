"""Pure-Python computing, in chunks that take some milliseconds.

Imports nothing but the standard library: run as a script, this file is the *bare process* that tether is compared with
(see ``bare.py``). It answers every line on its input by computing its half of the chunks.
"""

import sys
import time

CHUNKS = 16


def chunk(rounds: int) -> int:
    """One chunk."""
    total = 0
    for i in range(rounds):
        total = (total * 31 + i) & 0xFFFF
    return total


def rounds_for(seconds: float) -> int:
    """So many that a chunk takes about this long here; the best of some tries, since others may be at work."""
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        chunk(20_000)
        best = min(best, time.perf_counter() - start)
    return max(1, round(20_000 * seconds / best))


def serial(rounds: int, chunks: int) -> int:
    """Several, one after another; returns their sum."""
    return sum(chunk(rounds) for _ in range(chunks))


if __name__ == "__main__":
    _which, _rounds = map(int, sys.argv[1:])
    print("ready", flush=True)
    for _go in sys.stdin:
        print(serial(_rounds, CHUNKS // 2), flush=True)
