"""What a process must not use more and more of: threads, descriptors, memory."""

from __future__ import annotations

import statistics
import threading
import time
from typing import NamedTuple

from support import descriptors, os_threads, resident_bytes

MORE_MEMORY = (0.05, 4 << 20)  # a share, and bytes on top
MORE_THREADS = 8  # the medians swing with what is just being done
MORE_FILES = 4


class Sample(NamedTuple):
    at: float
    threads: int
    files: int
    memory: int


class Vitals:
    """Samples while the block runs."""

    def __init__(self, warm_up: float, every: float = 0.5) -> None:
        self._samples: list[Sample] = []
        self._warm_up, self._every = warm_up, every
        self._stop = threading.Event()
        self._sampler = threading.Thread(target=self._sample, name="vitals")

    def _sample(self) -> None:
        while not self._stop.wait(self._every):
            self._samples.append(Sample(time.monotonic(), os_threads(), descriptors(), resident_bytes()))

    def __enter__(self) -> Vitals:
        self._start = time.monotonic()
        self._sampler.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._sampler.join()

    def _ends(self) -> tuple[Sample, Sample] | None:
        """Medians of the first and of the last quarter after the warm-up."""
        warm = [sample for sample in self._samples if sample.at - self._start >= self._warm_up]
        quarter = len(warm) // 4
        if quarter < 4:
            return None
        first, last = (
            Sample(*(statistics.median(column) for column in zip(*part, strict=True)))
            for part in (warm[:quarter], warm[-quarter:])
        )
        return first, last

    def complaints(self) -> list[str]:
        """What was not flat."""
        ends = self._ends()
        if ends is None:
            return ["too few samples: let it run longer"]
        first, last = ends
        found = []
        if last.memory > first.memory * (1 + MORE_MEMORY[0]) + MORE_MEMORY[1]:
            found.append(f"memory grew from {first.memory} to {last.memory} bytes")
        if last.threads > first.threads + MORE_THREADS:
            found.append(f"threads grew from {first.threads} to {last.threads}")
        if last.files > first.files + MORE_FILES:
            found.append(f"descriptors grew from {first.files} to {last.files}")
        return found

    def summary(self) -> str:
        ends = self._ends()
        if ends is None:
            return "vitals: too few samples"
        (_, threads, files, memory), (_, threads2, files2, memory2) = ends
        return (
            f"memory {memory / 2**20:.1f} -> {memory2 / 2**20:.1f} MiB, threads {threads:g} -> {threads2:g}, "
            f"descriptors {files:g} -> {files2:g}, {len(self._samples)} samples"
        )
