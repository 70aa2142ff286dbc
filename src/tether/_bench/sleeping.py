"""Tasks that block in C, where only more threads help."""

import time
from threading import Thread

import tether


def tasks(count: int, seconds: float) -> None:
    """One scope, `count` tasks that sleep in ``time.sleep``, which tether knows nothing of."""
    with tether.scope() as s:
        for _ in range(count):
            s.spawn(time.sleep, seconds)


def threads(count: int, seconds: float) -> None:
    """The same with a ``threading.Thread`` each: start all, join all."""
    workers = [Thread(target=time.sleep, args=(seconds,)) for _ in range(count)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
