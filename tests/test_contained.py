"""Whatever a task raises is contained and reported, and its thread survives (fault 29)."""

from __future__ import annotations

import asyncio
import threading

import pytest

import tether
from support import PLACES, ThreadFailures, Unraisables, dedicated, poll
from tether import Completed, Killed, KillReason


class Base(BaseException):
    pass


class BadStr(Exception):
    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __str__


class BadNote(Exception):
    def add_note(self, note):
        raise RuntimeError("no note")


class BadNotes(Exception):
    __notes__ = 5


class BadTraceback(Exception):
    @property
    def __traceback__(self):
        raise RuntimeError("no traceback")

    @__traceback__.setter
    def __traceback__(self, value):
        raise RuntimeError("no traceback")


class BadAttributes(Exception):
    def __getattribute__(self, name):
        raise RuntimeError("no attributes")


class Unmakeable(Exception):
    def __init__(self):
        raise KeyError("in its __init__")


ERRORS = {
    "SystemExit": (SystemExit, SystemExit),
    "SystemExit with a status": (lambda: SystemExit(3), SystemExit),
    "KeyboardInterrupt": (KeyboardInterrupt, KeyboardInterrupt),
    "GeneratorExit": (GeneratorExit, GeneratorExit),
    "StopIteration": (lambda: StopIteration(5), StopIteration),
    "StopAsyncIteration": (StopAsyncIteration, StopAsyncIteration),
    "asyncio.CancelledError": (asyncio.CancelledError, asyncio.CancelledError),
    "a BaseException": (Base, Base),
    "a bad __str__": (BadStr, BadStr),
    "a bad add_note": (BadNote, BadNote),
    "bad __notes__": (BadNotes, BadNotes),
    "a bad __traceback__": (BadTraceback, BadTraceback),
    "bad attributes": (BadAttributes, BadAttributes),
    "a bad __init__": (Unmakeable, KeyError),
    "no exception": (lambda: 5, TypeError),
    "a group": (lambda: BaseExceptionGroup("both", [SystemExit(), Base()]), BaseExceptionGroup),
    "MemoryError": (MemoryError, MemoryError),
}
EXITS = (SystemExit, KeyboardInterrupt)
every = pytest.mark.parametrize(("make", "kind"), ERRORS.values(), ids=ERRORS)


def fail(make):
    raise make()


def undisturbed():
    for run in PLACES.values():
        assert run(sum, range(100)) == 4950
    return True


def is_kind(error, kind):
    return issubclass(type(error), kind)  # isinstance() asks the exception, and some do not answer


@every
@pytest.mark.parametrize("run", PLACES.values(), ids=PLACES)
def test_join_raises_what_the_task_raised(make, kind, run):
    # fault 29
    for _ in range(3):
        try:
            run(fail, make)
        except BaseException as error:
            raised = type(error)
        else:
            raised = None
        assert raised is kind
    assert undisturbed()


@every
@pytest.mark.parametrize("spawn", [tether.spawn, dedicated], ids=["lazy", "dedicated"])
def test_exit_value_holds_what_the_task_raised(make, kind, spawn):
    # fault 29
    outcome = spawn(fail, make).exit_value()
    assert outcome.reason is KillReason.EXCEPTION
    assert is_kind(outcome.exception, kind)
    assert undisturbed()


@every
def test_scope_raises_what_its_child_raised(make, kind):
    # fault 29, G2: exits bare, all else in a group
    sibling = []
    try:
        with tether.scope(on_error="wait") as s:
            s.options(dedicated=True).spawn(fail, make)
            s.spawn(sibling.append, 1)
    except BaseExceptionGroup as group:
        assert not issubclass(kind, EXITS)
        (error,) = group.exceptions
        assert is_kind(error, kind)
    except EXITS as error:
        bare = type(error)
        assert bare is kind
    else:
        pytest.fail("it was lost")
    assert sibling == [1]
    assert undisturbed()


class _Kinds:
    """Hook that notes types only: some of these exceptions cannot be printed."""

    def __init__(self):
        self.kinds = []

    def __call__(self, report):
        self.kinds.append(report.exc_type)


@every
def test_dropped_guard_reports_what_its_task_raised_as_unraisable(make, kind, monkeypatch):
    # fault 29, G6: SystemExit too: a drop is no place to leave from, and silence would lose it
    kinds = _Kinds()
    monkeypatch.setattr("sys.unraisablehook", kinds)
    guard = dedicated(fail, make)
    poll(guard.done, "the end of the task")
    del guard
    assert kinds.kinds == [kind]
    assert undisturbed()


@every
def test_detached_task_reports_what_it_raised_to_threading(make, kind, monkeypatch):
    # fault 29, G6: as a Thread would; the hook that is there by default ignores SystemExit
    kinds = _Kinds()
    monkeypatch.setattr("threading.excepthook", kinds)
    for _ in range(3):
        dedicated(fail, make).detach()
    poll(lambda: len(kinds.kinds) == 3, "the reports")
    assert kinds.kinds == [kind] * 3
    poll(lambda: tether.statistics().threads == 0, "its thread to be free again")
    assert undisturbed()


def test_system_exit_of_a_detached_task_is_silent_and_ends_nothing(run_python):
    # fault 29, G6
    code = """
    import sys, tether
    from support import dedicated, poll

    dedicated(sys.exit, 3).detach()
    dedicated(sys.exit, "text").detach()
    poll(lambda: tether.statistics().tasks_live == 0, "the ends")
    assert dedicated(int, 5).join() == 5
    """
    run_python(code, check=True)


def test_exception_whose_text_fails_is_reported_by_the_hooks_that_are_there_by_default(run_python):
    # fault 29, G6
    code = """
    import tether
    from support import dedicated, poll
    from test_contained import BadStr, BadTraceback, fail

    for error in (BadStr, BadTraceback):
        dedicated(fail, error).detach()
        guard = dedicated(fail, error)
        del guard
    poll(lambda: tether.statistics().tasks_live == 0, "the ends")
    assert dedicated(int, 5).join() == 5
    """
    result = run_python(code)
    assert (result.rc, result.out) == (0, "")
    assert "BadStr" in result.err


@pytest.mark.parametrize("error", [tether.Cancelled, tether.KilledTask])
@pytest.mark.parametrize("run", PLACES.values(), ids=PLACES)
def test_cancelled_raised_by_hand_ends_the_task_as_a_cancellation(error, run):
    # fault 29: the task says that it was asked to end; the joiner is not cancelled
    with pytest.raises(tether.TaskKilled) as caught:
        run(fail, error)
    assert caught.value.reason is KillReason.REQUESTED
    assert type(caught.value.__cause__) is error
    tether.checkpoint()
    with tether.scope() as s:
        s.spawn(fail, error)  # and is no failure
    with Unraisables() as unraisables, ThreadFailures() as failures:
        guard = dedicated(fail, error)
        poll(guard.done, "the end of the task")
        del guard
        dedicated(fail, error).detach()
        poll(lambda: tether.statistics().tasks_live == 0, "the end of the task")
    assert unraisables.types == failures.types == []
    assert undisturbed()


def test_thread_serves_on_after_every_one_of_them():
    # fault 29: the very same thread
    idents = set()

    def entry(make):
        idents.add(threading.get_ident())
        fail(make)

    tether.spawn(int).join(timeout=60)
    for make, _ in ERRORS.values():
        assert isinstance(dedicated(entry, make).exit_value(), Killed)
    assert dedicated(lambda: threading.get_ident() in idents).exit_value() in (Completed(True), Completed(False))
    assert len(idents) <= len(ERRORS)
    poll(lambda: tether.statistics().threads == 0, "the threads to be free")
