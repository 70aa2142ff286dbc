"""Puppets: tasks and plain threads that do what they are told, one order at a time, and say how it went.

Between orders a puppet sits in a foreign wait, which tether does not see. So the machine decides what runs beside what,
and the order of events is the order of the orders.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

Order = Callable[[], Any]

PATIENCE = float(os.environ.get("TETHER_MODEL_PATIENCE", 30.0))
"""Seconds after which what must happen has not happened."""


class Answer(NamedTuple):
    """How an order went: a value, or what was raised, as plain data. A kept exception's frames could hold guards."""

    kind: str
    value: Any


class Boom(Exception):
    """The failure that puppets are told to raise."""


class Fall(NamedTuple):
    """The last order of a puppet: return `value()`, or raise what `error()` makes."""

    value: Callable[[], Any] | None
    error: Callable[[], BaseException] | None


def describe(error: BaseException) -> tuple[str, Any]:
    """Reduce an exception to what a model can predict: the class, the tags of failures, the parts of a group."""
    if isinstance(error, BaseExceptionGroup):
        return ("group", tuple(sorted(describe(part) for part in error.exceptions)))
    told = isinstance(error, Boom | SystemExit | TypeError | RuntimeError | AssertionError)
    return (type(error).__name__, str(error) if told else "")


class Puppet:
    """One actor. Everything is public to the machine; the puppet's own thread touches only the two queues."""

    def __init__(self) -> None:
        self.orders: queue.SimpleQueue[Order | Fall] = queue.SimpleQueue()
        self.answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()

    def run(self) -> Any:
        """The function of the task, or of the plain thread."""
        self.answers.put(Answer("started", threading.get_ident()))
        while True:
            order = self.orders.get()
            if isinstance(order, Fall):
                if order.error is not None:
                    raise order.error()
                return order.value() if order.value is not None else None
            answer = perform(order)
            del order  # what it closes over must not stay until the next one
            self.answers.put(answer)

    def tell(self, order: Order | Fall) -> None:
        self.orders.put(order)

    def answer(self) -> Answer:
        """Wait for an answer that the model says must come."""
        try:
            return self.answers.get(timeout=PATIENCE)
        except queue.Empty:
            raise AssertionError("the model says that this must be answered, and it is not") from None

    def silent(self) -> bool:
        return self.answers.empty()


def perform(order: Order) -> Answer:
    try:
        value = order()
    except BaseException as error:
        return Answer("raised", describe(error))
    return Answer("returned", value)


def entry(puppet: Puppet, given: list[Any]) -> Any:
    """What is spawned. The puppet is a plain instance, so the capture walk does not look into it, but into `given`."""
    given.clear()  # ownership has come; the references are the stage's
    return puppet.run()
