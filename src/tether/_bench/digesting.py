"""SHA-256 and CRC-32 of a large buffer, again and again: library calls that let the GIL go while they work.

Imports nothing but the standard library: run as a script, this file is the *bare process* that tether is compared with
(see ``bare.py``). It answers every line on its input by doing its half of the work, on a buffer of its own.
"""

import hashlib
import sys
import time
import zlib

CHUNKS = 16


def buffer(size: int) -> bytes:
    """Some bytes."""
    return bytes(range(256)) * (size // 256)


def digest(data: bytes) -> str:
    """One chunk."""
    return f"{hashlib.sha256(data).hexdigest()}{zlib.crc32(data):08x}"


def size_for(seconds: float) -> int:
    """So many bytes that a chunk takes about this long here; the best of some tries, since others may be at work."""
    data = buffer(1 << 20)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        digest(data)
        best = min(best, time.perf_counter() - start)
    return max(1 << 16, int(len(data) * seconds / best)) // 256 * 256


if __name__ == "__main__":
    _which, _size = map(int, sys.argv[1:])
    _data = buffer(_size)
    print("ready", flush=True)
    for _go in sys.stdin:
        for _ in range(CHUNKS // 2):
            _last = digest(_data)
        print(_last, flush=True)
