"""A hundred live tasks of every kind, in a process that is about to end; snippets and `load/exits.py` import it.

Those that block do so until the interpreter exits: threading's exit functions run last-in first-out, so `begin`
registers one that opens the gate just before tether waits for its tasks.
"""

from __future__ import annotations

import atexit
import os
import queue
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import tether

TASKS = 100

gate = threading.Event()
ended: list[str] = []
guards: list[tether.JoinGuard[Any]] = []
dedicated = tether.options(dedicated=True)


def marked(kind: str, body: Callable[..., object], *args: Any) -> None:
    """Run a task's body, and note that it has run to its end."""
    body(*args)
    ended.append(kind)


def sleep() -> None:
    while not gate.is_set():
        tether.sleep(0.005)


def join() -> None:
    tether.spawn(marked, "inner", gate.wait).join()


def exit_value() -> None:
    dedicated.spawn(marked, "inner", gate.wait).exit_value(timeout=3600)


def leave_scope() -> None:
    with tether.scope() as s:
        s.spawn(marked, "inner", gate.wait)


def sleep_in_c() -> None:
    while not gate.is_set():
        time.sleep(0.005)


def put(line: queue.SimpleQueue[int]) -> None:
    gate.wait()
    line.put(1)


def send(end: socket.socket) -> None:
    with end:
        gate.wait()
        end.send(b"x")


def receive(end: socket.socket) -> None:
    with end:
        end.recv(1)


def compute() -> None:
    while not gate.is_set():
        sum(range(500))


def compute_a_while() -> None:
    for _ in range(20):
        sum(range(500))


def begin() -> None:
    """Start them all; guards stay in `guards`, except those that were detached."""
    atexit.register(say_who_ended)
    for kind in (join, exit_value, leave_scope):  # each has a task inside
        guards.extend(tether.spawn(marked, kind.__name__, kind) for _ in range(5))
    for kind in (sleep, sleep_in_c, gate.wait):
        guards.extend(tether.spawn(marked, "lazy", kind) for _ in range(5))
        guards.extend(dedicated.spawn(marked, "dedicated", kind) for _ in range(4))
        dedicated.spawn(marked, "detached", kind).detach()
    for _ in range(5):
        line: queue.SimpleQueue[int] = queue.SimpleQueue()
        guards.append(dedicated.spawn(marked, "get", line.get))
        guards.append(tether.spawn(marked, "put", put, line))
        here, there = socket.socketpair()
        guards.append(dedicated.spawn(marked, "receive", receive, here))
        guards.append(tether.spawn(marked, "send", send, there))
    guards.append(dedicated.spawn(marked, "compute", compute))
    threading._register_atexit(gate.set)
    while len(guards) + 3 + 15 < TASKS:  # last, so that most are still queued; 3 are detached, 15 inside others
        guards.append(tether.spawn(marked, "queued", compute_a_while))


def say_who_ended() -> None:
    """Run by atexit, which comes after tether's own exit function: everything must have ended by now."""
    os.write(1, f"{len(ended)} of {TASKS} ended\n".encode())


ALL = f"{TASKS} of {TASKS} ended\n"
