"""Batches of items on their way through tasks: what par_map, par_for and par_reduce have in common.

The consumer's thread takes items from the source, a batch at a time, and spawns a task for each batch into a scope of
its own; it joins the oldest one. If nobody has begun that one, the join runs it in place: so neither a single core
nor nesting of any depth needs a thread, and where there are idle threads they take the batches behind it.

    Source    where items come from; only ever used by the consumer
    Work      what the tasks share: the function, where to stop, who may start next
    Batch     some items, and the handle of their task
    Flight    the consumer's side: the scope, and the batches on their way, oldest first

A task refers to its Work, never to the Flight: the Flight's end waits for the tasks.

*Failures.* A task that fails notes what came before the failing item (`Work.partial`), and cancels the batches behind
it. The consumer, which joins in order, hands out the results before it and then raises. With a limit on the workers,
a batch waits in `Work.ready` until one of `Work.permits` is free; a task that ends passes its permit on.

*Division.* A batch has the size that the items before it suggest. If it lasts ten times as long as it should, what is
left of it is divided among tasks in the same scope, and so on.
"""

from __future__ import annotations

import _thread
import contextvars
import functools
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice, repeat
from operator import length_hint
from time import perf_counter
from typing import Any

from . import _core
from ._bell import wait_for
from ._chunking import TARGET, Pace, cores
from ._errors import Cancelled, ForkedError, KilledTask

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._progress import Progress

__all__ = ["NOTHING", "Collected", "Drained", "Flight", "Folded", "Source", "Work"]

_LONG = 10 * TARGET  # seconds after which a batch is divided
_WHOLE = 4  # a batch of no more items is not looked after while it runs
_SOME = 128  # one of no more is looked after once
_SLICE = 0.05  # seconds between looks for batches that somebody has cancelled: these do not announce themselves
_ENDS = (Cancelled, KilledTask, KeyboardInterrupt, GeneratorExit)  # not of an item's making
NOTHING: Any = object()


class Source:
    """Takes batches from an iterator; what that raises is kept until the items before it are done with."""

    __slots__ = ("_items", "_range", "ended", "error", "first")

    def __init__(self, items: Iterable[Any]) -> None:
        self._range: range | None = items if type(items) is range else None
        self._items: Iterator[Any] = iter(()) if self._range is not None else iter(items)
        self.first = 0  # index of the next item
        self.ended = False
        self.error: BaseException | None = None

    def take(self, most: int) -> Sequence[Any]:
        """The next items; fewer than asked for only at the end."""
        items: Any
        if self._range is not None:
            items = self._range[self.first : self.first + most]  # its numbers are made where they are used
        else:
            items = []
            try:
                items.extend(islice(self._items, most))
            except Exception as error:  # others go through at once
                self.error = error
        self.first += len(items)
        self.ended = len(items) < most
        return items  # type: ignore[no-any-return]

    def leave(self) -> None:
        """Lets go of the items that are left: a traceback may keep us."""
        self._items = iter(())
        self.ended = True


class Collected:
    """What par_map makes of a batch: the list of its results."""

    __slots__ = ("absorb", "value")

    def __init__(self) -> None:
        self.value: list[Any] = []
        self.absorb = self.value.extend  # keeps what came before a failure

    def merge(self, value: list[Any]) -> None:
        self.value.extend(value)


class Drained:
    """What par_for makes of it: nothing."""

    __slots__ = ()
    value = None
    absorb = deque[Any](maxlen=0).extend

    def merge(self, value: None) -> None:
        pass


class Folded:
    """What par_reduce makes of it: one value."""

    __slots__ = ("_op", "value")

    def __init__(self, op: Callable[[Any, Any], Any]) -> None:
        self._op = op
        self.value = NOTHING

    def absorb(self, results: Iterator[Any]) -> None:
        if self.value is NOTHING:
            self.value = next(results, NOTHING)
        self.value = functools.reduce(self._op, results, self.value)

    def merge(self, value: Any) -> None:
        if value is not NOTHING:
            self.value = value if self.value is NOTHING else self._op(self.value, value)


class Batch:
    """Some items; ``handle`` is None until its task was spawned."""

    __slots__ = ("first", "handle", "items", "length", "permit")

    def __init__(self, items: Sequence[Any], first: int) -> None:
        self.items: Sequence[Any] | None = items  # until they are given to the task
        self.length = len(items)
        self.first = first
        self.handle: Any = None
        self.permit: list[None] | None = None  # what it has to give back to the Work, once


class _Direct:
    """Stands in for a task's handle with workers=1: join runs the batch."""

    __slots__ = ("_call",)

    def __init__(self, run: Callable[..., Any], items: Sequence[Any], batch: Batch) -> None:
        self._call = functools.partial(contextvars.copy_context().run, run, items, batch)

    def join(self) -> Any:
        return self._call()

    def done(self) -> bool:
        return True

    def cancel(self) -> None:
        pass


class Work:
    """What the tasks of one call share: fields that one thread writes, or that change by single atomic operations."""

    divides = False
    ordered = True
    limit = float("inf")  # batches that begin behind this item are not wanted any more
    spawn: Callable[..., Any] = _Direct
    permits: deque[None] | None = None
    done: deque[Batch] | None = None  # in the order in which they ended, where that is asked for
    bell: Callable[[], object] | None = None  # wakes the consumer, if it sleeps
    ready: deque[Batch]  # made with the permits

    def __init__(
        self, what: str, fn: Callable[..., Any], apply: Callable[..., Iterator[Any]], make: Callable[[], Any]
    ) -> None:
        self._what = what
        self._fn = fn
        self._apply = apply
        self._make = make
        self.flying: deque[Batch] = deque()
        self.partial: dict[int, Any] = {}  # of failed batches, by their first index

    def name(self) -> str:
        """Of the tasks."""
        name = getattr(self._fn, "__name__", None)
        return f"{self._what}({name if isinstance(name, str) else type(self._fn).__name__})"

    def launch(self, batch: Batch) -> None:
        """Its task is spawned, now or when there is a permit."""
        if self.permits is None:
            self._start(batch)
        else:
            self.ready.append(batch)
            self.pump()

    def pump(self) -> None:
        """Starts what is ready while there are permits."""
        assert self.permits is not None
        while self.ready:
            try:
                self.permits.pop()
            except IndexError:
                return
            try:
                batch = self.ready.popleft()
            except IndexError:  # others were faster; look again, since something may have come meanwhile
                self.permits.append(None)
                continue
            batch.permit = [None]
            if batch.first <= self.limit:
                self._start(batch)

    def _start(self, batch: Batch) -> None:
        items, batch.items = batch.items, None
        batch.handle = self.spawn(self.run, items, batch)

    def settle(self, batch: Batch) -> None:
        """The batch has ended: another may begin. By its task, or by who joined that, if it never ran."""
        assert self.permits is not None
        try:
            if batch.permit is None:
                return  # it never had one
            batch.permit.pop()
        except IndexError:
            return
        self.permits.append(None)
        self.pump()

    def run(self, items: Sequence[Any], batch: Batch) -> tuple[Any, float]:
        """What a task does: returns its value, and the seconds that it took."""
        try:
            return self._value(items, batch.first)
        finally:
            if self.permits is not None:
                self.settle(batch)
            if self.done is not None:
                self.done.append(batch)
                bell = self.bell
                if bell is not None:
                    bell()

    def _value(self, items: Sequence[Any], first: int) -> tuple[Any, float]:
        made = self._make()
        begin = perf_counter()
        rest = self._absorb(made, items, first, begin)
        if rest:
            self._divide(made, rest, first, first + len(items) - len(rest))
        return made.value, perf_counter() - begin

    def _absorb(self, made: Any, items: Sequence[Any], first: int, begin: float) -> list[Any]:
        """All of the items, but for those that are returned: the batch has taken too long."""
        feed = iter(items)
        try:
            length = len(items)
            results = self._apply(self._fn, feed)
            if self.limit < first:
                return []
            if length <= _WHOLE:
                made.absorb(results)
            else:
                done, step = 0, length // 8 or 1
                while done < length:
                    made.absorb(islice(results, step))
                    done += step
                    if length_hint(feed) != max(0, length - done):
                        break  # see below
                    if self.limit < first:
                        return []
                    if self.divides and done < length and perf_counter() - begin > _LONG:
                        return list(feed)
                    step = length if length <= _SOME else length // 4
            if made.value.__class__ is list and len(made.value) != length:
                raise RuntimeError(f"{self.name()}: the function raised StopIteration")
        except BaseException as error:
            if not isinstance(error, _ENDS):
                at = len(items) - length_hint(feed) - 1
                _tell(error, f"{self._what}: it was raised for item {first + at}", items[at] if at >= 0 else NOTHING)
                self._failed(first, made)
            raise
        return []

    def _failed(self, first: int, made: Any) -> None:
        self.partial[first] = made.value
        self.limit = min(self.limit, first) if self.ordered else -1
        flying = self._snapshot()
        if self.done is not None:  # before those that end because of it
            self.done.extend(batch for batch in flying if batch.first == first)
        for batch in flying:
            if batch.handle is not None and (batch.first > first or (not self.ordered and batch.first != first)):
                batch.handle.cancel()

    def _snapshot(self) -> list[Batch]:
        """What is on its way. What comes later finds the limit."""
        while True:
            try:
                return list(self.flying)
            except RuntimeError:  # without a GIL: the consumer was at it meanwhile
                continue

    def _divide(self, made: Any, rest: list[Any], first: int, at: int) -> None:
        size = -(-len(rest) // (2 * cores()))
        parts = [(at + i, self.spawn(self._value, rest[i : i + size], at + i)) for i in range(0, len(rest), size)]
        rest.clear()
        part = parts[0]
        try:
            for part in parts:
                made.merge(part[1].join()[0])
        except BaseException as error:
            for _, handle in parts:
                handle.cancel()
            if part[0] in self.partial:
                made.merge(self.partial.pop(part[0]))
                self._failed(first, made)
            elif not isinstance(error, _ENDS):
                self._failed(first, made)
            raise


def _tell(error: BaseException, what: str, item: Any) -> None:
    """Adds a note that names the item. Runs the item's and the exception's own code."""
    try:
        import reprlib

        error.add_note(what if item is NOTHING else f"{what}: {reprlib.repr(item)}")
    except Exception:  # the failure itself matters more
        with suppress(Exception):
            error.add_note(what)


class Flight:
    """The consumer's side. Closing it cancels and joins what is on its way; so does dropping it (G1)."""

    __slots__ = ("_bar", "_pace", "_scope", "_source", "_work")

    def __init__(self, source: Source, work: Work, pace: Pace, bar: Progress | None = None) -> None:
        self._source = source
        self._work = work
        self._pace = pace
        self._bar = bar
        self._scope: _core.Scope | None = None

    def open(self, workers: int | None, ordered: bool) -> None:
        """Before the first batch."""
        work = self._work
        if workers == 1:
            self._pace.one_by_one()
            return
        name = work.name()
        scope = _core.scope(name, on_error="wait")  # a failure is the consumer's, not that of what else it does
        scope.__enter__()
        self._scope = scope
        work.spawn = scope.options(name=name).spawn
        work.divides = workers is None and not self._pace.fixed
        if workers is not None:
            work.ready = deque()
            work.permits = deque(repeat(None, workers))
        if not ordered:
            work.ordered = False
            work.done = deque()

    def batches(self, workers: int | None = None, ordered: bool = True) -> Generator[Any]:
        """The values of the batches; then raises the first failure, of the function or of the source."""
        work = self._work
        failure: BaseException | None = None
        try:
            self.open(workers, ordered)
            self._fill()
            if self._pace.dear() and len(work.flying) > 1 and self._scope is not None:
                _core.sleep(0)  # wakes a thread that idles, which with a GIL no spawn does
            while failure is None:
                if not self._source.ended:
                    self._fill()
                if not work.flying:
                    failure = self._source.error
                    break
                batch = work.flying.popleft() if work.done is None else self._any()
                try:
                    value = self._land(batch)
                except BaseException as error:
                    failure = error
                    work.limit = min(work.limit, batch.first)
                    value = work.partial.pop(batch.first, NOTHING)
                if value is not NOTHING:
                    yield value
                    value = None
        except GeneratorExit:
            raise  # dropped, maybe by the collector: our own end, which comes now, knows what may be waited for
        except BaseException:
            self.close()
            raise
        self.close()
        self._pace.remember()
        if failure is not None:
            try:
                raise failure
            finally:
                del failure

    def _fill(self) -> None:
        source, work, pace = self._source, self._work, self._pace
        while not source.ended and len(work.flying) < pace.ahead and work.limit > source.first:
            first = source.first
            items = source.take(pace.size)
            if items:
                batch = Batch(items, first)
                work.flying.append(batch)
                work.launch(batch)

    def _land(self, batch: Batch) -> Any:
        while batch.handle is None:
            self._work.pump()
            if batch.handle is None:  # a task has just spawned it, and is about to say so; it may even have ended
                _core.sleep(1e-4)
        try:
            value, seconds = batch.handle.join()
        finally:
            if self._work.permits is not None:
                self._work.settle(batch)
        self._pace.measured(batch.length, seconds)
        if self._bar is not None:
            self._bar.update(batch.length)
        return value

    def _any(self) -> Batch:
        """Waits for a batch that has ended. Never runs one: it might take longer than those that others run."""
        work = self._work
        assert work.done is not None
        while True:
            with suppress(IndexError, ValueError):  # nothing there; one that was found by the look below
                batch = work.done.popleft()
                work.flying.remove(batch)
                return batch
            for batch in work.flying:
                if batch.handle is not None and batch.handle.done() and not work.done:
                    work.flying.remove(batch)
                    return batch
            try:
                wait_for(self._listen, lambda: bool(work.done), _SLICE)
            finally:
                work.bell = None

    def _listen(self, ring: Callable[[], object]) -> None:
        self._work.bell = ring

    def close(self) -> None:
        """Cancels what is on its way, and joins it. What that came to is of no interest any more."""
        work, scope = self._work, self._scope
        self._scope = None
        self._source.leave()
        work.limit = -1
        try:
            if scope is not None:
                if work.flying:
                    if work.permits is not None:
                        work.ready.clear()
                    work.flying.clear()
                    scope.cancel()
                scope.__exit__(None, None, None)
        except (BaseExceptionGroup, SystemExit, ForkedError):
            pass
        finally:
            if self._bar is not None:
                self._bar.close()

    def __del__(self) -> None:
        scope = self._scope
        if scope is None or _core is None:  # the interpreter is being taken apart: all tasks have ended
            return
        if _core._collecting():
            self._work.limit = -1
            scope.cancel()  # and its own end lets the tasks go on alone (G5)
            return
        try:
            self.close()
        except KeyboardInterrupt:
            _thread.interrupt_main()  # raised when the destructor is over
        except BaseException:
            pass  # it was dropped inside one of its own tasks, or this task was cancelled: that will be told elsewhere
