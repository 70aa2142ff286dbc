"""G19: with nothing to do there are no threads, no timers and no entries left behind."""

from __future__ import annotations

SETTLE = """
    import os, sys, threading, time
    import tether
    from support import await_event, dedicated, os_threads, poll

    assert os_threads() == 1
    TICKER = 1      # may stay, asleep without a timer

    def retired():
        return os_threads() <= 1 + TICKER and threading.enumerate() == [threading.main_thread()]

    def settle():
        poll(retired, "the threads to retire")
        assert tether.statistics().threads == 0
"""


def test_threads_retire_after_blocked_work(run_python):
    code = (
        SETTLE
        + """
    barrier = threading.Barrier(101)
    with tether.scope() as s:
        for _ in range(100):
            s.spawn(barrier.wait, 60)
        barrier.wait(60)
    settle()
    """
    )
    run_python(code, check=True)


def test_threads_retire_after_dedicated_work(run_python):
    code = (
        SETTLE
        + """
    release = threading.Event()
    guards = [dedicated(await_event, release) for _ in range(50)]
    release.set()
    for guard in guards:
        guard.join()
    settle()
    """
    )
    run_python(code, check=True)


def test_threads_of_one_task_do_not_pile_up(run_python):
    # A thread with a stack of its own leaves after its task. Those who leave do not queue for one another, else they
    # become more and more: the tasks here are 60 at once.
    code = (
        SETTLE
        + """
    sys.setswitchinterval(0.0005)
    most = 0

    def rounds():
        global most
        for _ in range(100):
            with tether.scope() as s:
                for _ in range(20):
                    s.options(dedicated=True, stack_size=1 << 18).spawn(int)
            most = max(most, os_threads())

    with tether.scope() as s:
        for _ in range(3):
            s.options(dedicated=True).spawn(rounds)
    assert most < 600, most
    settle()
    """
    )
    run_python(code, check=True)


def test_retired_crew_serves_again(run_python):
    # G8
    code = (
        SETTLE
        + """
    for _ in range(3):
        assert dedicated(int, 5).join() == 5
        assert tether.spawn(int, 6).join(timeout=60) == 6
        settle()
    """
    )
    run_python(code, check=True)


def test_work_in_place_needs_no_thread(run_python):
    code = (
        SETTLE
        + """
    for n in range(1_000):
        assert tether.spawn(int, n).join() == n
    settle()
    """
    )
    run_python(code, check=True)


def test_nothing_wakes_up_when_there_is_nothing_to_do(run_python):
    # eventually there is half a second in which no thread but this one was switched to
    code = (
        SETTLE
        + """
    def switches():
        total = 0
        for tid in os.listdir("/proc/self/task"):
            if int(tid) != os.getpid():
                try:
                    with open(f"/proc/self/task/{tid}/status") as status:
                        total += sum(int(line.split()[1]) for line in status if "ctxt_switches" in line)
                except (FileNotFoundError, ProcessLookupError):
                    pass
        return total

    def quiet():
        before, threads = switches(), os_threads()
        time.sleep(0.5)
        return (switches(), os_threads()) == (before, threads)

    with tether.scope() as s:
        for _ in range(200):
            s.spawn(tether.sleep, 0.001)
    poll(quiet, "half a second without a wake-up")
    """
    )
    run_python(code, check=True)


def test_idle_guard_costs_no_timer(run_python):
    # a queued task keeps the ticker going; an ended one that was not joined does not
    code = (
        SETTLE
        + """
    guard = dedicated(int, 3)
    poll(guard.done, "the end of the task")
    settle()
    assert guard.join() == 3
    """
    )
    run_python(code, check=True)
