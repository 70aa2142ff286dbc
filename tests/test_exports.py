"""The public surface: curated, documented, and with the error classes users can rely on."""

from __future__ import annotations

import inspect
import types

import pytest

import tether

NAMES = [
    "spawn",
    "options",
    "scope",
    "scoped",
    "current",
    "tasks",
    "dump",
    "checkpoint",
    "sleep",
    "statistics",
    "configure",
    "par_map",
    "par_for",
    "par_reduce",
    "join",
    "Executor",
    "JoinGuard",
    "TaskRef",
    "TaskState",
    "Scope",
    "ExitValue",
    "Completed",
    "Killed",
    "KillReason",
    "TetherError",
    "OwnershipError",
    "TaskKilled",
    "ReapedError",
    "ScopeClosedError",
    "ForkedError",
    "ShutdownError",
    "DeadlockError",
    "Cancelled",
    "KilledTask",
]

ERRORS = {
    "OwnershipError": tether.TetherError,
    "TaskKilled": tether.TetherError,
    "ReapedError": tether.TetherError,
    "ScopeClosedError": tether.TetherError,
    "ForkedError": tether.TetherError,
    "ShutdownError": tether.TetherError,
    "DeadlockError": tether.TetherError,
    "TetherError": Exception,
    "Cancelled": BaseException,
    "KilledTask": BaseException,
}


FROM_TYPING = {"annotations", "TYPE_CHECKING"}


def documentable(value: object) -> bool:
    return inspect.isclass(value) or inspect.isroutine(value)


@pytest.mark.parametrize("name", NAMES)
def test_documented_name_is_exported(name):
    assert name in tether.__all__
    assert hasattr(tether, name)


def test_all_names_exist_once():
    assert len(tether.__all__) == len(set(tether.__all__))
    assert [name for name in tether.__all__ if not hasattr(tether, name)] == []


def test_nothing_public_is_missing_from_all():
    public = {
        name
        for name, value in vars(tether).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType) and name not in FROM_TYPING
    }
    assert public <= set(tether.__all__)


def test_every_public_name_has_a_docstring():
    bare = [
        name
        for name in tether.__all__
        if documentable(getattr(tether, name)) and not (getattr(tether, name).__doc__ or "").strip()
    ]
    assert bare == []


def test_every_public_method_has_a_docstring():
    bare = []
    for name in tether.__all__:
        cls = getattr(tether, name)
        if not inspect.isclass(cls) or issubclass(cls, BaseException):
            continue
        for member, value in vars(cls).items():
            if member.startswith("_") or isinstance(value, types.MemberDescriptorType):
                continue  # a plain field is described where its class is
            is_member = inspect.isroutine(value) or inspect.isdatadescriptor(value)
            if is_member and not (value.__doc__ or "").strip():
                bare.append(f"{name}.{member}")
    assert bare == []


def test_public_objects_say_that_they_live_in_tether():
    strange = [
        name
        for name in tether.__all__
        if inspect.isclass(value := getattr(tether, name)) and value.__module__.split(".")[0] != "tether"
    ]
    assert strange == []


@pytest.mark.parametrize(("name", "base"), ERRORS.items())
def test_error_class_has_its_base(name, base):
    cls = getattr(tether, name)
    assert issubclass(cls, base)
    assert (base is not BaseException) == issubclass(cls, Exception)


def test_task_states_are_the_documented_ones():
    assert [state.name for state in tether.TaskState] == ["NEW", "QUEUED", "RUNNING", "BLOCKED", "EXITED", "REAPED"]
    assert {"REQUESTED", "EXCEPTION"} <= {reason.name for reason in tether.KillReason}


def test_import_is_light_and_silent(run_python):
    # G19: importing starts no thread and says nothing.
    code = """
        import os, sys
        before = len(os.listdir("/proc/self/task"))
        import tether
        assert len(os.listdir("/proc/self/task")) == before
        heavy = {"asyncio", "multiprocessing", "subprocess", "typing_extensions"} & set(sys.modules)
        assert not heavy, heavy
    """
    assert run_python(code, check=True).out == ""
