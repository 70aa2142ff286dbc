"""A task holds its function, and what that needs, until it ends, whatever happens to the module (G11, fault 35)."""

from __future__ import annotations

import gc
import importlib
import sys
import sysconfig
import threading
import types
import weakref

import pytest

import tether
from support import PLACES, Token, await_event, dedicated, poll

SOURCE = """
import {needs} as helper

WORD = "old"

class Part:
    def method(self):
        return WORD, helper.WORD

def inner():
    return Part().method()

def entry(started, go_on):
    started.set()
    go_on()
    return inner()

def generate(started, go_on):
    yield entry(started, go_on)

async def coroutine(started, go_on):
    return entry(started, go_on)
"""


# CPython 3.13 without a GIL makes modules and functions immortal when the first thread starts.
IMMORTAL = bool(sysconfig.get_config_var("Py_GIL_DISABLED")) and sys.version_info < (3, 14)


def gone(watch):
    gc.collect()  # without a GIL, functions and modules wait for the collector
    return IMMORTAL or watch() is None


def make_module(name, source):
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(source, f"<{name}>", "exec"), module.__dict__)
    return module


def forget(*names):
    for name in names:
        sys.modules.pop(name, None)
    gc.collect()


@pytest.mark.parametrize("collected", ["while it runs", "before it starts"])
@pytest.mark.parametrize("spawn", ["lazy", "dedicated"])
def test_task_finishes_when_its_module_is_deleted_and_collected(collected, spawn):
    # G11, fault 35: the module and the one that it imports; only what the function reaches stays
    make_module("fault35_helper", "WORD = 'needed'")
    module = make_module("fault35", SOURCE.format(needs="fault35_helper"))
    watch = weakref.ref(module)
    started, release = threading.Event(), threading.Event()
    options = tether.options(dedicated=spawn == "dedicated")
    guard = options.spawn(module.entry, started, lambda: await_event(release))
    if collected == "while it runs":
        await_event(started)
    del module
    forget("fault35", "fault35_helper")
    release.set()
    assert guard.join() == ("old", "needed")
    del guard
    poll(lambda: gone(watch), "the module to be gone when its task has ended")


def test_task_in_place_deletes_its_own_module():
    # G11, fault 35
    make_module("fault35_helper", "WORD = 'needed'")
    module = make_module("fault35", SOURCE.format(needs="fault35_helper"))
    entry = module.entry
    del module
    guard = tether.spawn(entry, threading.Event(), lambda: forget("fault35", "fault35_helper"))
    del entry
    assert guard.join() == ("old", "needed")


@pytest.mark.parametrize("kind", ["bound method", "lambda", "generator", "class"])
def test_any_kind_of_callable_outlives_its_module(kind):
    # G11, fault 35
    make_module("fault35_helper", "WORD = 'needed'")
    module = make_module("fault35", SOURCE.format(needs="fault35_helper"))
    started, release = threading.Event(), threading.Event()

    def wait():
        await_event(release)

    match kind:
        case "bound method":
            entry, args = module.Part().method, ()
        case "lambda":
            entry, args = eval("lambda *args: entry(*args)", module.__dict__), (started, wait)
        case "generator":
            entry, args = module.generate(started, wait).__next__, ()
        case _:
            entry, args = (
                eval("type('C', (), {'__call__': lambda self, *args: entry(*args)})()", module.__dict__),
                (
                    started,
                    wait,
                ),
            )
    guard = dedicated(entry, *args)
    del module, entry
    if kind != "bound method":
        await_event(started)
    forget("fault35", "fault35_helper")
    release.set()
    assert guard.join() == ("old", "needed")


def test_reloaded_module_is_new_for_new_tasks_and_running_ones_see_its_globals(tmp_path, monkeypatch):
    # G11, fault 35: reload works in the same namespace, as for any function that runs meanwhile
    path = tmp_path / "fault35_reloaded.py"
    path.write_text("WORD = 'old'\n\ndef entry(wait):\n    wait()\n    return WORD, 'old code'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    importlib.invalidate_caches()
    module = importlib.import_module("fault35_reloaded")
    release = threading.Event()
    try:
        guards = [spawn(module.entry, lambda: await_event(release)) for spawn in (dedicated, tether.spawn)]
        old = weakref.ref(module.entry)
        path.write_text("WORD = 'new'\n\ndef entry(wait):\n    wait()\n    return WORD, 'new code'\n")
        importlib.reload(module)
        release.set()
        assert [guard.join() for guard in guards] == [("new", "old code")] * 2
        for run in PLACES.values():
            assert run(module.entry, int) == ("new", "new code")
        del guards
        poll(lambda: gone(old), "the old function to be gone with the tasks that ran it")
    finally:
        forget("fault35_reloaded")


@pytest.mark.parametrize("run", PLACES.values(), ids=PLACES)
def test_function_of_code_in_a_dictionary_that_dies_runs_to_its_end(run):
    # G11, fault 35
    token = Token()
    watch = weakref.ref(token)
    namespace = {"token": token, "gc": gc}
    del token
    exec("def entry(wait):\n    wait()\n    gc.collect()\n    return type(token).__name__, helper()\n", namespace)
    exec("def helper():\n    return token is not None\n", namespace)
    entry = namespace["entry"]
    del namespace
    holder = [entry]
    del entry
    assert run(lambda: holder[0](holder.clear)) == ("Token", True)
    poll(lambda: gone(watch), "the namespace to be gone with the task")


def test_failure_out_of_a_collected_module_keeps_its_traceback():
    # G9, G11, fault 35
    module = make_module("fault35", "def entry(wait):\n    wait()\n    raise ValueError('lost module')\n")
    release = threading.Event()
    guard = dedicated(module.entry, lambda: await_event(release))
    del module
    forget("fault35")
    release.set()
    with pytest.raises(ValueError, match="lost module") as caught:
        guard.join()
    assert caught.traceback[-1].name == "entry"
