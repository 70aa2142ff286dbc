"""Futures: many submitted, then all results."""

from concurrent.futures import Executor

from .spawn import empty


def batch(executor: Executor, count: int) -> None:
    """`count` submits, then `count` results, on a pool that stays open."""
    submit = executor.submit
    for future in [submit(empty) for _ in range(count)]:
        future.result()
