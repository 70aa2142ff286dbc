"""Hashing the standard library: one task for each file."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import get_ident

import tether

from .stdlib import digest


def tasks(paths: Sequence[str]) -> list[str]:
    """The digests of `paths`, a task of one scope for each file."""
    with tether.scope() as s:
        guards = [s.spawn(digest, path) for path in paths]
    return [guard.join() for guard in guards]


def pool(executor: ThreadPoolExecutor, paths: Sequence[str]) -> list[str]:
    """The same by ``Executor.map`` on a pool that stays open."""
    return list(executor.map(digest, paths))


def in_place(paths: Sequence[str]) -> float:
    """The share of the tasks that run on the thread that joins them."""
    home = get_ident()
    with tether.scope() as s:
        guards = [s.spawn(_digest_where, path) for path in paths]
    return sum(guard.join() == home for guard in guards) / max(1, len(paths))


def _digest_where(path: str) -> int:
    digest(path)
    return get_ident()
