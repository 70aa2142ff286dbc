"""The rows: what is measured, against whom, and how good it has to be.

`reach` is what has to be reached on every build, `aim` what is aimed for.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

from . import child, fib, hashing, machine, scope, sleeping, spawn, stdlib
from .bare import BarePair
from .data_rows import data_rows
from .measure import apart, timed
from .native_rows import native_rows
from .par_rows import par_rows
from .row import Goal, Judged, Pair, Row, Side, pair
from .sizes import Sizes

THREAD = "Thread"
POOL = "ThreadPoolExecutor(2)"
N = 20  # of fib
LOOP = 20_000  # operations of tether in one round; the rival, dearer by far, makes do with RIVAL_LOOP
RIVAL_LOOP = 200
BATCH = 1_000


def rows(sizes: Sizes) -> list[Row]:
    """All rows, in the order they are run and shown."""
    return [
        *_time_rows(sizes), *_hash_rows(sizes), *par_rows(sizes), *data_rows(sizes), *native_rows(sizes),
        *_memory_rows(sizes), *_rest_rows(sizes),
    ]  # fmt: skip


def _time_rows(sizes: Sizes) -> list[Row]:
    return [
        Row(
            "spawn", "spawn + join, lazy, empty", "s", Judged.TIMES,
            pair(timed(partial(spawn.lazy, LOOP), LOOP), timed(partial(spawn.thread, RIVAL_LOOP), RIVAL_LOOP)),
            sizes.rounds, THREAD, Goal("200x cheaper", 200), Goal("500x cheaper", 500),
            in_place=partial(spawn.lazy_in_place, 100),
        ),
        Row(
            "scope", "scope of 1,000 empty tasks, each", "s", Judged.TIMES,
            _scope_sides, sizes.rounds, POOL, Goal("15x cheaper", 15), Goal("30x cheaper", 30),
            in_place=partial(scope.in_place, BATCH),
        ),
        Row(
            "dedicated", "dedicated spawn + join, warm", "s", Judged.TIMES,
            pair(timed(partial(spawn.dedicated, BATCH), BATCH), timed(partial(spawn.thread, RIVAL_LOOP), RIVAL_LOOP)),
            sizes.rounds, THREAD, Goal("25x cheaper", 25), Goal("120x cheaper", 120),
        ),
        Row(
            "dedicated-apart", "dedicated spawn + join, 5 ms apart", "s", Judged.TIMES,
            pair(apart(partial(spawn.dedicated, 1), 0.005, 10), apart(partial(spawn.thread, 1), 0.005, 10)),
            sizes.rounds, THREAD, Goal("1.8x cheaper", 1.8), Goal("3x cheaper", 3),
        ),
        Row(
            "sleep-1000", "1,000 tasks that sleep 50 ms, all", "s", Judged.SHARE,
            pair(timed(partial(sleeping.tasks, 1000, 0.05)), timed(partial(sleeping.threads, 1000, 0.05))),
            sizes.rounds, THREAD, Goal("1.1x at most", 1.1), Goal("faster", 1),
        ),
        Row(
            "sleep-8", "8 tasks that sleep 10 ms, all", "s", Judged.SHARE,
            pair(timed(partial(sleeping.tasks, 8, 0.01)), timed(partial(sleeping.threads, 8, 0.01))),
            sizes.rounds, THREAD, Goal("1.15x at most", 1.15), Goal("1.0x", 1),
        ),
        Row(
            "fib", f"fib({N}), scope + spawn at every node, per call", "s", Judged.FIGURE,
            pair(_fib_side(fib.calls(N))), sizes.rounds,
            reach=Goal("3 µs", 3e-6), aim=Goal("0.8 µs", 0.8e-6), in_place=partial(fib.in_place, N),
        ),
        Row(
            "fib-scope", f"fib({N}), per scope (calls but leaves)", "s", Judged.FIGURE,
            pair(_fib_side(fib.scopes(N))), sizes.rounds, in_place=partial(fib.in_place, N),
        ),
        Row(
            "fib-threads", f"fib({N}), most threads alive", "", Judged.FIGURE,
            pair(lambda: child.fib_threads(N, sizes.fib_rounds)), 1, reach=Goal("8 at most", 8), warm=False,
        ),
    ]  # fmt: skip


def _hash_rows(sizes: Sizes) -> list[Row]:
    with_gil = machine.gil_enabled()
    return [
        Row(
            "hash", "SHA-256 of the standard library", "s", Judged.TIMES,
            _hash_pool_sides, sizes.rounds, POOL, Goal("not slower", 1), Goal("1.1x faster", 1.1),
            in_place=lambda: hashing.in_place(stdlib.files()),
        ),
        Row(
            "hash-bare", "the same", "s", Judged.TIMES,
            _hash_bare_sides, sizes.rounds, "two bare processes",
            aim=None if with_gil else Goal("0.95 of its speed", 0.95),
        ),
    ]  # fmt: skip


def _memory_rows(sizes: Sizes) -> list[Row]:
    return [
        Row(
            "queued", "memory of a queued task", "B", Judged.FIGURE,
            pair(_probe("queued-tasks", sizes.queued), _probe("queued-futures", sizes.queued)),
            sizes.probes, POOL, Goal("512 B", 512), Goal("256 B", 256), warm=False,
        ),
        Row(
            "blocked", f"{sizes.blocked:,} tasks blocked at once, memory each", "B", Judged.SHARE,
            pair(_probe("blocked-tasks", sizes.blocked), _probe("blocked-threads", sizes.blocked)),
            sizes.probes, THREAD, Goal("not more", 1), Goal("0.7x of it", 0.7), warm=False,
        ),
    ]  # fmt: skip


def _rest_rows(sizes: Sizes) -> list[Row]:
    return [
        Row(
            "idle", f"idle for {sizes.idle_ms / 1000:g} s: context switches", "", Judged.FIGURE,
            pair(_probe("idle-ms", sizes.idle_ms)), 1, reach=Goal("0", 0), warm=False,
        ),
        Row(
            "import", "import tether, beyond threading, contextvars", "s", Judged.FIGURE,
            pair(child.import_seconds), sizes.imports, reach=Goal("15 ms", 15e-3), aim=Goal("5 ms", 5e-3),
        ),
    ]  # fmt: skip


def _probe(name: str, number: int) -> Side:
    return partial(child.probe, name, number)


def _fib_side(nodes: int) -> Side:
    """Seconds for each of `nodes`, the result compared with that of the plain function."""
    wanted = fib.plain(N)

    def run() -> None:
        if fib.fib(N) != wanted:
            raise RuntimeError(f"fib({N}) with tasks differs from fib({N}) without")

    return timed(run, nodes)


@contextmanager
def _scope_sides() -> Iterator[Pair]:
    with ThreadPoolExecutor(2) as pool:
        yield Pair(timed(partial(scope.tasks, BATCH), BATCH), timed(partial(scope.pool, pool, BATCH), BATCH))


@contextmanager
def _hash_pool_sides() -> Iterator[Pair]:
    paths = stdlib.files()
    serial = stdlib.serial(paths)

    def ours() -> None:
        _require_equal(hashing.tasks(paths), serial, "tether")

    def rival() -> None:
        _require_equal(hashing.pool(pool, paths), serial, POOL)

    with ThreadPoolExecutor(2) as pool:
        yield Pair(timed(ours), timed(rival))


@contextmanager
def _hash_bare_sides() -> Iterator[Pair]:
    paths = stdlib.files()
    serial = stdlib.serial(paths)
    halves = [stdlib.summary(stdlib.serial(stdlib.half(paths, which))) for which in (0, 1)]

    def ours() -> None:
        _require_equal(hashing.tasks(paths), serial, "tether")

    def rival() -> None:
        _require_equal(processes.run(), halves, "the two bare processes")

    with BarePair(stdlib.__file__) as processes:
        yield Pair(timed(ours), timed(rival))


def _require_equal(digests: list[str], wanted: list[str], whose: str) -> None:
    if digests != wanted:
        raise RuntimeError(f"the digests of {whose} differ from those of the serial run")
