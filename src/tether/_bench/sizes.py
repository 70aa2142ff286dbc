"""How much of everything a run does."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes that differ between a full and a quick run; what a row does in one round is the same in both."""

    rounds: int  # at most, of a row that runs in this process
    budget: float  # seconds after which such a row takes no more rounds
    probes: int  # fresh processes for each side of a memory row
    imports: int  # fresh processes for the import row
    queued: int  # tasks in the row of queued ones
    blocked: int  # tasks in the row of blocked ones
    idle_ms: int  # how long the idle process is watched
    fib_rounds: int  # runs of fib during which threads are counted
    chunk_ms: int  # how long one of the 16 chunks of work takes that are compared with two bare processes
    fill_mib: int  # memory that NumPy fills, on both sides
    sum_files: int  # files that are hashed by a command, each of
    sum_mb: int  # so many megabytes
    sum_mib: int  # doubles that are summed in C, in MiB


FULL = Sizes(
    rounds=40, budget=9.0, probes=3, imports=21, queued=50_000, blocked=10_000, idle_ms=4000, fib_rounds=20,
    chunk_ms=50, fill_mib=1024, sum_files=200, sum_mb=10, sum_mib=512,
)  # fmt: skip
QUICK = Sizes(
    rounds=9, budget=0.6, probes=1, imports=5, queued=20_000, blocked=1_000, idle_ms=1500, fib_rounds=3,
    chunk_ms=10, fill_mib=32, sum_files=12, sum_mb=10, sum_mib=128,
)  # fmt: skip
