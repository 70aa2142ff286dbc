"""Many empty tasks at once: all handed in, then all results."""

from concurrent.futures import ThreadPoolExecutor
from threading import get_ident

import tether

from .spawn import empty


def tasks(count: int) -> None:
    """One scope, `count` empty tasks; every result is collected, as the pool's are."""
    with tether.scope() as s:
        spawn = s.spawn
        guards = [spawn(empty) for _ in range(count)]
    for guard in guards:
        guard.join()


def pool(executor: ThreadPoolExecutor, count: int) -> None:
    """`count` submits, then `count` results, on a pool that stays open."""
    submit = executor.submit
    for future in [submit(empty) for _ in range(count)]:
        future.result()


def in_place(count: int) -> float:
    """The share of the scope's tasks that run on the thread that joins them."""
    home = get_ident()
    with tether.scope() as s:
        guards = [s.spawn(get_ident) for _ in range(count)]
    return sum(guard.join() == home for guard in guards) / count
