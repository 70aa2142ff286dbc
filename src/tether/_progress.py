"""What par_map tells of its progress."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from operator import length_hint
from typing import Any

__all__ = ["Progress"]


class Progress:
    """Hears how many more items are done; ``close`` is called once, at the end."""

    __slots__ = ("_bar", "update")

    def __init__(self, wanted: Any, iterables: tuple[Iterable[Any], ...], what: str) -> None:
        self._bar: Any = None
        if wanted is True:
            self._bar = _tqdm()(total=_total(iterables), desc=what)
            wanted = self._bar
        update = getattr(wanted, "update", wanted)
        if not callable(update) or isinstance(wanted, type):
            raise TypeError(
                "progress must be True, an object with update(n), such as a bar of tqdm, or a function of one number, "
                f"not {wanted!r}"
            )
        self.update: Callable[[int], object] = update

    def close(self) -> None:
        """A bar of our own is closed; one of the caller's is the caller's."""
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.close()


def _tqdm() -> Any:
    try:
        return importlib.import_module("tqdm.auto").tqdm  # by name: checkers need not know it
    except ImportError:
        raise ImportError(
            "progress=True shows a bar of tqdm, which is not installed: pip install 'tether[progress]'. Or pass a "
            "function that is told how many more items are done, or any object with update(n)",
            name="tqdm",
        ) from None


def _total(iterables: tuple[Iterable[Any], ...]) -> int | None:
    """How many items there will be, if all of them say so."""
    sizes = [length_hint(iterable, -1) for iterable in iterables]
    known = [size for size in sizes if size >= 0]
    return min(known) if len(known) == len(sizes) else None
