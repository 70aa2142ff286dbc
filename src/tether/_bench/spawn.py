"""One task at a time: spawn, then join, again and again."""

from concurrent.futures import ThreadPoolExecutor
from threading import Thread, get_ident

import tether


def empty() -> None:
    """The task that does nothing: what is left is the cost of having one."""


def lazy(count: int) -> None:
    """``tether.spawn(empty).join()``, `count` times."""
    spawn = tether.spawn
    for _ in range(count):
        spawn(empty).join()


def dedicated(count: int) -> None:
    """The same with a native thread for each task from the start."""
    spawn = tether.options(dedicated=True).spawn
    for _ in range(count):
        spawn(empty).join()


def thread(count: int) -> None:
    """``threading.Thread`` start, then join, `count` times."""
    for _ in range(count):
        worker = Thread(target=empty)
        worker.start()
        worker.join()


def pool(executor: ThreadPoolExecutor, count: int) -> None:
    """``submit``, then ``result``, one by one on a pool that stays open."""
    submit = executor.submit
    for _ in range(count):
        submit(empty).result()


def lazy_in_place(count: int) -> float:
    """The share of lazy tasks that run on the thread that joins them."""
    home = get_ident()
    return sum(tether.spawn(get_ident).join() == home for _ in range(count)) / count
