"""The recursion that spawns at every node: what a task costs when there is nothing else to pay for."""

from threading import get_ident

import tether


def fib(n: int) -> int:
    """Fibonacci number `n`; every call above the leaves opens a scope and spawns one half of its work."""
    if n < 2:
        return n
    with tether.scope() as s:
        left = s.spawn(fib, n - 1)
        right = fib(n - 2)
        return left.join() + right


def plain(n: int) -> int:
    """The same without tasks; the tests of the result and the floor for the time."""
    return n if n < 2 else plain(n - 1) + plain(n - 2)


def calls(n: int) -> int:
    """How many calls ``fib(n)`` makes, itself among them."""
    return 1 if n < 2 else 1 + calls(n - 1) + calls(n - 2)


def scopes(n: int) -> int:
    """How many of these calls open a scope and spawn (the others are leaves)."""
    return calls(n) // 2


def in_place(n: int) -> float:
    """The share of the tasks of ``fib(n)`` that run on the thread that joins them."""
    return 1.0 - _away(n, get_ident()) / max(1, scopes(n))


def _away(n: int, joiner: int) -> int:
    """How many tasks of this subtree ran on another thread than their joiner, this call among them."""
    here = get_ident()
    away = int(here != joiner)
    if n < 2:
        return away
    with tether.scope() as s:
        left = s.spawn(_away, n - 1, here)
        right = _away(n - 2, here)
        return away + left.join() + right
