"""What crew threads are called, and how they stand in threading."""

from __future__ import annotations

import io
import logging
import re
import sys
import threading
from pathlib import Path

import pytest

import tether
from support import PLACES, Held, ThreadFailures, await_event, dedicated, entry_of, poll, run_dedicated, run_elsewhere

ON_CREW = {"elsewhere": run_elsewhere, "dedicated": run_dedicated}


@pytest.fixture(params=sorted(PLACES))
def run(request):
    return PLACES[request.param]


@pytest.fixture(params=sorted(ON_CREW))
def run_on_crew(request):
    return ON_CREW[request.param]


def os_name(native_id=None):
    return Path(f"/proc/self/task/{native_id or threading.get_native_id()}/comm").read_text().removesuffix("\n")


# ---- names ----------------------------------------------------------------------------------------------------------


def names_here():
    thread = threading.current_thread()
    return thread.name, thread._name, os_name(), tether.current().name


def test_crew_thread_has_the_name_of_its_task(run_on_crew):
    # G18
    for _ in range(3):
        name, stored, shown, task = run_on_crew(names_here)
        assert name == stored == task
        assert re.fullmatch(r"names_here-\d+", name)
        assert shown == "names_here"


def test_explicit_name_is_the_name_of_the_thread():
    # G18
    for name in ("loader", "a name much longer than fifteen bytes", "loader"):
        assert tether.options(name=name, dedicated=True).spawn(names_here).join() == (name, name, name[:15], name)


@pytest.mark.parametrize(
    ("name", "shown"),
    [("größe", "größe"), ("☃☃☃☃☃☃", "☃☃☃☃☃"), ("abcdefghijklmnö", "abcdefghijklmn"), ("🐍" * 4, "🐍" * 3)],
)
def test_name_is_cut_between_characters_for_the_system(name, shown):
    # G18
    assert tether.options(name=name, dedicated=True).spawn(names_here).join() == (name, name, shown, name)


def test_name_that_the_system_cannot_show_is_a_name_for_threading():
    name, stored, shown, task = tether.options(name="\udc80", dedicated=True).spawn(names_here).join()
    assert name == stored == task == "\udc80"
    assert re.fullmatch(r"tether(-\d+)?", shown)


def test_function_name_that_is_not_ascii_is_numbered_too():
    def größe():
        return names_here()

    name, stored, shown, task = run_dedicated(größe)
    assert name == stored == task
    assert name.startswith("größe-")
    assert shown == "größe"


def test_names_follow_one_another_on_one_thread(run_python):
    # G18: names are rewritten in place when nobody has kept them, so all kinds take turns, kept and not kept
    code = """
        import sys, threading, tether
        from support import Held, entry_of, await_event

        tether.configure(max_threads=1)

        def first():
            return threading.current_thread().name

        def second():
            return sys.intern(threading.current_thread().name)

        def größe():
            return hash(threading.current_thread().name), threading.current_thread().name

        def ninth():
            threading.current_thread().name

        kept, expected = [], []
        for n in range(300):
            fn = (first, first, second, größe, ninth, first, ninth, ninth)[n % 8]
            guard = tether.spawn(fn)
            task = guard.task.name
            said = guard.join(timeout=90)
            if fn is not ninth:
                kept.append(said if isinstance(said, str) else said[1])
                expected.append(task)
        assert kept == expected, (kept, expected)
        assert [hash(name) for name in kept] == [hash(name) for name in expected]
        assert {name: 1 for name in kept} == {name: 1 for name in expected}
    """
    run_python(code, check=True)


def test_name_is_seen_by_others_while_the_task_runs():
    # G18
    with Held() as guard:
        thread = entry_of(guard)
        assert thread.name == guard.task.name
        assert thread.name in repr(thread)
        assert os_name(thread.native_id) == "hold"
        assert thread.name in [other.name for other in threading.enumerate()]


def test_thread_has_its_own_name_again_after_the_task():
    # G18
    thread = dedicated(threading.current_thread).join()
    poll(lambda: re.fullmatch(r"tether-\d+", thread.name), "the thread's own name")


def test_sleeping_thread_has_its_own_name_for_the_system(run_python):
    # G18
    code = """
        import threading, tether
        from pathlib import Path
        from support import Held, entry_of, poll, run_dedicated

        thread = run_dedicated(threading.current_thread)

        def shown():
            try:
                return Path(f"/proc/self/task/{thread.native_id}/comm").read_text().strip()
            except OSError:  # it has retired: begin again
                global again
                again = True
                return thread.name

        for _ in range(20):
            again = False
            poll(lambda: shown() == thread.name, "the thread's own name")
            if not again:
                break
            thread = run_dedicated(threading.current_thread)
        else:
            raise AssertionError("the thread retired each time before it was looked at")
    """
    run_python(code, check=True)


def test_task_in_place_leaves_the_name_alone():
    # G18: it is a call on its joiner's thread; the tree tells it apart
    before = threading.current_thread().name, os_name()

    def inner():
        return threading.get_ident(), threading.current_thread().name, os_name()

    def outer():
        ident, *names = tether.spawn(inner).join()
        return ident == threading.get_ident(), names, [tether.current().name, "outer"], names_here()[0]

    for _ in range(20):
        ident, *names = tether.spawn(inner).join()
        if ident == threading.get_ident():
            assert tuple(names) == before
        in_place, names, expected, afterwards = run_dedicated(outer)
        assert afterwards == expected[0]
        if in_place:
            assert names == expected


def test_name_that_a_task_sets_is_for_this_task():
    # G18
    def rename():
        threading.current_thread().name = "mine"
        return threading.current_thread(), threading.current_thread().name, os_name()

    for _ in range(3):
        thread, name, shown = run_dedicated(rename)
        assert name == "mine"
        assert shown == ("mine" if sys.version_info >= (3, 14) else "rename")
        poll(lambda thread=thread: re.fullmatch(r"tether-\d+", thread.name), "the thread's own name")
        assert run_dedicated(names_here)[2] == "names_here"


def test_name_kept_from_before_a_renaming_stays_as_it_was():
    def rename():
        thread = threading.current_thread()
        before = thread.name
        thread.name = "mine"
        return before, tether.current().name

    for _ in range(20):
        before, task = run_dedicated(rename)
        assert before == task


def test_logging_tells_the_task(run_on_crew):
    # G18
    out = io.StringIO()
    logger = logging.getLogger("tether-test")
    handler = logging.StreamHandler(out)
    handler.setFormatter(logging.Formatter("%(threadName)s|%(thread)d|%(message)s"))
    logger.addHandler(handler)
    logger.propagate = False
    try:

        def speak():
            logger.warning("hello")
            return tether.current().name, threading.get_ident()

        name, ident = run_on_crew(speak)
    finally:
        logger.removeHandler(handler)
    assert out.getvalue() == f"{name}|{ident}|hello\n"


def test_excepthook_is_told_the_name_of_the_detached_task():
    # G6, G18
    detached = threading.Event()

    def failing():
        await_event(detached)
        raise ValueError("nobody joins")

    with ThreadFailures() as failures:
        guard = dedicated(failing)
        name = guard.task.name
        guard.detach()
        del guard
        detached.set()
        poll(lambda: failures.types, "the report")
    assert failures.types == [ValueError]
    assert failures.texts[0].splitlines()[0] == name


def test_name_in_a_forked_child_is_that_of_the_forking_task(run_python):
    code = """
        import os, sys, threading, warnings, tether
        from support import Held, entry_of, run_dedicated

        warnings.simplefilter("ignore", DeprecationWarning)

        def forking():
            before = threading.current_thread().name
            pid = os.fork()
            if pid == 0:
                os._exit(0 if threading.current_thread().name == before == threading.main_thread().name else 1)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

        assert run_dedicated(forking) == 0
    """
    run_python(code, check=True)


def test_destructors_of_thread_locals_see_the_name_of_their_task():
    class Last:
        def __del__(self):
            names.append(threading.current_thread().name)

    names = []
    local = threading.local()

    def entry():
        local.last = Last()
        return tether.current().name

    assert [run_dedicated(entry)] == poll(lambda: names, "the destructor")


# ---- entries of threading -------------------------------------------------------------------------------------------


def test_entry_answers_as_a_thread_does():
    # G18
    before = threading.active_count()
    with Held() as guard:
        thread = entry_of(guard)
        assert threading.active_count() == len(threading.enumerate()) >= min(before, 1) + 1
        assert thread.is_alive()
        assert thread.daemon
        assert thread.ident in sys._current_frames()
        assert thread.native_id == guard.task.native_id
        assert thread is not threading.main_thread()
        assert threading.main_thread() is threading.current_thread()
        with pytest.raises(RuntimeError, match="join the task's guard"):
            thread.join()
    poll(lambda: not thread.is_alive(), "the end of the thread")
    assert thread not in threading.enumerate()


def test_ids_inside_a_task_are_those_of_its_entry(run):
    def entry():
        thread = threading.current_thread()
        return (thread.ident, thread.native_id) == (threading.get_ident(), threading.get_native_id())

    assert run(entry)


def test_exit_of_the_interpreter_with_named_threads_is_silent(run_python):
    # G18, G19
    code = """
        import threading, tether
        from support import Held, entry_of, dedicated

        release = threading.Event()
        guards = [tether.options(name=f"task {n}", dedicated=True).spawn(release.wait) for n in range(4)]
        dedicated(int).join()
        release.set()
    """
    assert run_python(code, check=True, args=("-W", "error", "-X", "dev")).out == ""
