"""Tasks with at_exit="cancel": asked to end when the interpreter exits, and waited for all the same (G1, G12)."""

from __future__ import annotations

import pytest

PRELUDE = """
    import os, threading, time
    import tether
    from support import await_event, dedicated, poll

    leaving = tether.options(at_exit="cancel")
    leaving_alone = tether.options(at_exit="cancel", dedicated=True)
    exiting, started = threading.Event(), threading.Semaphore(0)

    def say(word):
        os.write(1, f"{word}\\n".encode())

    def watched(block):
        started.release()
        try:
            block()
        except BaseException as error:
            say(type(error).__name__)
            exiting.set()
            raise
        else:
            say("ended")

    def wait_in_scope():
        with tether.scope() as s:
            s.options(dedicated=True).spawn(tether.sleep, 3600)

    kept = []

    def other():
        kept.append(dedicated(await_event, exiting))  # not dropped, and so not waited for, by what is cancelled
        return kept[-1]

    def compute():
        while not exiting.is_set():
            sum(range(500))

    def compute_with_checkpoints():
        while True:
            tether.checkpoint()

    def begin(block, option=leaving_alone):
        guard = option.spawn(watched, block)
        started.acquire()
        return guard
"""

BLOCKS = {
    "asleep": ("tether.sleep(3600)", "Cancelled"),
    "in a join": ("other().join()", "Cancelled"),
    "in a join with a timeout": ("other().join(3600)", "Cancelled"),
    "in exit_value": ("other().exit_value()", "Cancelled"),
    "leaving a scope": ("wait_in_scope()", "Cancelled"),
    "computing with checkpoints": ("compute_with_checkpoints()", "Cancelled"),
    "computing": ("compute()", "ended"),
    "blocked in C": ("exiting.wait()", "ended"),
}


@pytest.mark.parametrize("option", ["leaving", "leaving_alone"], ids=["lazy", "dedicated"])
@pytest.mark.parametrize(("block", "end"), BLOCKS.values(), ids=BLOCKS)
def test_task_told_to_cancel_at_exit_ends_wherever_it_is(block, end, option, run_python):
    # G12, fault 10: what is not tether's is waited for, no more
    code = PRELUDE + f"    guard = begin(lambda: {block}, {option})\n"
    if end == "ended":
        code += "    threading._register_atexit(exiting.set)\n"
    assert run_python(code, check=True).out == end + "\n"


@pytest.mark.parametrize("let_go", ["", "; guards.pop().detach()", "; guards.append(guards)"])
def test_queued_tasks_told_to_cancel_at_exit_never_run(let_go, run_python):
    # G7, fault 10: behind a task that has the only thread
    code = (
        PRELUDE
        + f"""
    tether.configure(max_threads=1)
    blocker = begin(exiting.wait, tether)
    guards = []
    for _ in range(99):
        guards.append(leaving.spawn(say, "ran")){let_go}
    threading._register_atexit(exiting.set)
    """
    )
    # With room for one thread, the hundred are cancelled while they wait for it.
    assert run_python(code, check=True).out == "ended\n"


def test_queued_tasks_not_told_to_cancel_all_run_at_exit(run_python):
    # G1, fault 10
    code = (
        PRELUDE
        + """
    tether.configure(max_threads=1)
    blocker = begin(exiting.wait, tether)
    guards = [tether.spawn(say, "ran") for _ in range(99)]
    threading._register_atexit(exiting.set)
    """
    )
    assert run_python(code, check=True).out == "ended\n" + "ran\n" * 99


def test_task_told_to_cancel_that_is_spawned_during_exit_is_cancelled(run_python):
    # fault 10: by another task, when tether has asked all there were already
    code = (
        PRELUDE
        + """
    def late():
        poll(lambda: cancelled, "the exit to begin")
        kept.append(leaving.spawn(watched, lambda: tether.sleep(3600)))
        kept.append(leaving_alone.spawn(watched, lambda: tether.sleep(3600)))
        with tether.scope() as s:
            s.options(at_exit="cancel").spawn(tether.sleep, 3600)

    def first():
        try:
            tether.sleep(3600)
        finally:
            cancelled.append(True)

    cancelled = []
    guards = [dedicated(late), begin(first)]
    """
    )
    result = run_python(code, check=True)
    assert result.out.count("Cancelled\n") >= 1
    assert set(result.out.split()) == {"Cancelled"}


def test_children_of_a_task_told_to_cancel_are_not_forgotten(run_python):
    # G1, G2, fault 10
    code = (
        PRELUDE
        + """
    def parent():
        kept.append(dedicated(owned))
        with tether.scope() as s:
            s.options(dedicated=True).spawn(watched, compute_with_checkpoints)

    def owned():
        await_event(exiting)  # until its sibling was cancelled
        tether.checkpoint()
        say("free")

    guard = begin(parent)
    started.acquire()
    """
    )
    assert sorted(run_python(code, check=True).out.split()) == ["Cancelled", "Cancelled", "free"]


def test_failure_in_the_clean_up_of_a_task_told_to_cancel_is_reported(run_python):
    # G6, fault 10
    code = (
        PRELUDE
        + """
    def block():
        try:
            tether.sleep(3600)
        finally:
            raise ValueError("while cleaning up")

    begin(block)
    """
    )
    result = run_python(code.replace("begin(block)", "guard = begin(block)"))
    assert (result.rc, result.out) == (0, "ValueError\n")
    assert "ValueError: while cleaning up" in result.err
