"""What hostile reviewers broke once: user code where the library did not expect any, and races of its callers.

Each test notes the guarantee (G) or the fault that was violated. What crashed runs in an interpreter of its own.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import warnings

import pytest

import tether
from support import Unraisables, await_event, poll, run_lazy

# --- hooks and destructors that call back into tether


# fault 23, G6: the hook runs on a crew thread that has no task any more, while somebody waits in tether
def test_excepthook_for_a_detached_task_may_spawn_and_join(run_python):
    ran = run_python(
        """
        import threading, tether

        seen = []

        def hook(args):
            seen.append(tether.spawn(lambda: 1).join())
            [n for n in range(10_000)]

        def bad():
            raise ValueError

        threading.excepthook = hook
        for n in range(200):
            tether.spawn(bad).detach()
            while len(seen) <= n or tether.statistics().tasks_live:
                tether.sleep(0.0002)
        print(sum(seen))
        """,
        timeout=60,
        check=True,
    )
    assert ran.out == "200\n"


# fault 23, G9: the same in the destructor of an exit value that nobody wants
def test_destructor_of_a_detached_tasks_value_may_spawn_and_join(run_python):
    ran = run_python(
        """
        import tether

        seen = []

        class Value:
            def __del__(self):
                seen.append(tether.spawn(lambda: 1).join())
                [n for n in range(1_000)]

        def entry():
            return Value()

        for n in range(200):
            tether.spawn(entry).detach()
            while len(seen) <= n or tether.statistics().tasks_live:
                tether.sleep(0.0002)
        print(sum(seen))
        """,
        timeout=60,
        check=True,
    )
    assert ran.out == "200\n"


# fault 23, G9: destructors of a failed task's locals cut the traceback that is being walked to clear them
def test_destructor_may_cut_the_traceback_of_a_failed_task(run_python):
    ran = run_python(
        """
        import tether

        class Cutter:
            def __init__(self, error):
                self.error = error

            def __del__(self):
                at = self.error.__traceback__
                while at is not None and at.tb_next is not None:
                    following, at.tb_next = at.tb_next, None
                    at = following
                [bytearray(64) for _ in range(100)]

        def recurse(error, depth):
            local = Cutter(error)
            if depth == 0:
                raise error
            recurse(error, depth - 1)

        def entry():
            recurse(tether.Cancelled(), 20)

        print(sum(isinstance(tether.spawn(entry).exit_value(), tether.Killed) for _ in range(50)))
        """,
        timeout=60,
        check=True,
    )
    assert ran.out == "50\n"


# fault 23: __name__ is a property, and the task ends (and lets go of its function) while it is being asked
def test_task_may_end_while_its_functions_name_is_asked(run_python):
    ran = run_python(
        """
        import threading, tether
        from support import await_event, dedicated, poll

        main = threading.get_ident()
        junk = []

        class Entry:
            def __call__(self):
                await_event(may_end)

            @property
            def __name__(self):
                if threading.get_ident() == main and box:
                    may_end.set()
                    poll(box[0].done)
                    poll(lambda: tether.statistics().tasks_live == 0)
                    junk.append([bytes(48) for _ in range(100)])
                raise AttributeError

        for _ in range(30):
            box, may_end = [], threading.Event()
            box.append(dedicated(Entry()))
            repr(box[0])
            may_end.set()
            box[0].join()
        print("ok")
        """,
        timeout=60,
        check=True,
    )
    assert ran.out == "ok\n"


# fault 23: a second call of __float__ answers otherwise
def test_scope_timeout_is_converted_once():
    class Fickle:
        calls = 0

        def __float__(self):
            self.calls += 1
            if self.calls > 1:
                raise ValueError("asked again")
            return 3600.0

    timeout = Fickle()
    scope = tether.scope(timeout=timeout)
    assert scope.timeout == 3600.0
    assert timeout.calls == 1


# fault 17, G9: exit values that are guards whose exit values are guards ...: dropped all at once on the smallest stack
def test_long_chain_of_guards_in_exit_values_dies_on_a_small_stack(run_python):
    ran = run_python(
        """
        import tether
        from support import poll

        def build():
            guard = tether.spawn(lambda: 0)
            for n in range(5_000):
                if n % 500 == 0:
                    poll(guard.done)
                guard = tether.spawn(lambda inner: inner, guard)
            poll(guard.done)
            print("built", flush=True)
            del guard

        tether.options(stack_size=256 * 1024).spawn(build).join()
        poll(lambda: tether.statistics().tasks_live == 0)
        print("dropped", tether.statistics().guards)
        """,
        timeout=60,
        check=True,
    )
    assert ran.out == "built\ndropped 0\n"


# fault 17, G9: the interpreter puts off freeing what is nested deeply; with too small a budget it never came back to it
@pytest.mark.parametrize("kind", ["list", "tuple", "dict"])
def test_deeply_nested_value_is_freed_on_a_small_stack(run_python, kind):
    ran = run_python(
        """
        import weakref, tether
        from support import Token

        nest = {"list": lambda inner: [inner], "tuple": lambda inner: (inner,), "dict": lambda inner: {1: inner}}

        def entry(kind):
            token = Token()
            watch, value = weakref.ref(token), token
            del token
            for _ in range(5_000):
                value = nest[kind](value)
            return watch

        watch = tether.options(stack_size=256 * 1024).spawn(entry, "KIND").join()
        print(watch())
        """.replace("KIND", kind),
        timeout=60,
        check=True,
    )
    assert ran.out == "None\n"


# --- where a task may run


# G12: a join with a timeout waits: a task run in place, below the joined one or not, could keep it longer
def test_join_with_a_timeout_runs_no_task_in_place(run_python):
    ran = run_python(
        """
        import threading, tether
        from support import await_event, dedicated

        tether.configure(max_threads=1)  # some of the children stay queued
        joiner, threads = threading.get_ident(), []
        spawned, release = threading.Event(), threading.Event()

        def child():
            threads.append(threading.get_ident())
            if threads[-1] != joiner:
                await_event(release)

        def parent():
            with tether.scope() as scope:
                for _ in range(6):
                    scope.spawn(child)
                spawned.set()

        guard = dedicated(parent)
        await_event(spawned)
        try:
            guard.join(timeout=0.05)
        except TimeoutError:
            print("timed out")
        print(joiner in threads)
        release.set()
        guard.join()
        print(len(threads))
        """,
        timeout=60,
        check=True,
    )
    assert ran.out == "timed out\nFalse\n6\n"


# fault 17, G18: a thread with a stack of its own would take a queued task, without the recursion budget it expects
def test_thread_with_a_small_stack_serves_only_its_own_task(run_python):
    ran = run_python(
        """
        import sys, threading, tether
        from support import WAIT, await_event

        sys.setrecursionlimit(1000)
        tether.configure(max_threads=1)  # ordinary tasks queue up
        small, ordinary = [], []  # Thread objects: kept, so that none can be taken for another

        def recurse(depth):
            return 0 if depth == 0 else 1 + recurse(depth - 1)

        def on_small_stack(release):
            small.append(threading.current_thread())
            await_event(release)

        def plain():
            ordinary.append(threading.current_thread())
            return recurse(800)

        for _ in range(20):
            release = threading.Event()
            owned = [tether.options(stack_size=256 * 1024).spawn(on_small_stack, release) for _ in range(4)]
            queued = [tether.spawn(plain) for _ in range(20)]
            release.set()
            assert [guard.join(timeout=WAIT) for guard in queued] == [800] * 20
            for guard in owned:
                guard.join()
        print(len(small), len(ordinary), len({*map(id, small)} & {*map(id, ordinary)}))
        """,
        timeout=60,
        check=True,
    )
    assert ran.out == "80 400 0\n"


# G18: in place on a thread whose event loop runs, asyncio.run() of the task would fail
def test_guard_dropped_under_a_running_event_loop_runs_elsewhere():
    results, threads = [], []

    def entry():
        threads.append(threading.get_ident())
        results.append(asyncio.run(asyncio.sleep(0, "fine")))

    async def main():
        guard = tether.spawn(entry)
        del guard

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # dropped without a join, started or not
        asyncio.run(main())
    assert results == ["fine"]
    assert threads != [threading.get_ident()]


# fault 32
@pytest.mark.parametrize("kind", ["trace", "profile"])
def test_joiners_trace_function_does_not_see_the_task(kind):
    get, set_ = getattr(sys, f"get{kind}"), getattr(sys, f"set{kind}")
    seen = []

    def hook(frame, event, arg):
        seen.append(frame.f_code.co_name)

    def secret():
        return get()

    for run in [run_lazy, lambda entry: tether.spawn(entry).exit_value().value] * 5:
        before = get()
        set_(hook)
        try:
            inside, afterwards = run(secret), get()
        finally:
            set_(before)
        assert inside is None
        assert afterwards is hook
    assert "secret" not in seen
    assert seen  # the hook did work around it


# fault 32: up to 3.12 thread-locals live in the dict of the thread state, under a key made of the local's address
def test_thread_local_that_died_in_a_task_is_not_inherited_by_the_next_at_its_address(run_python):
    ran = run_python(
        """
        import threading, tether
        from concurrent.futures import ThreadPoolExecutor

        def bear():
            return [threading.local() for _ in range(20)]

        with ThreadPoolExecutor(1) as elsewhere:
            elsewhere.submit(bear).result()
            for n in range(200):
                local = threading.local()
                local.x = ["old", n]
                box = [local]
                del local
                tether.spawn(box.clear).join()
                for fresh in elsewhere.submit(bear).result():
                    assert not hasattr(fresh, "x"), fresh.x
                    fresh.y = n
                    assert fresh.__dict__ == {"y": n}
                del fresh
                [{i: i} for i in range(50)]
        print("ok")
        """,
        timeout=60,
        check=True,
    )
    assert ran.out == "ok\n"


# --- ownership, and races of those who share it


# G3: what was to move into a task that was refused goes back to whom it came from
def test_guard_offered_to_a_closed_scope_stays_with_the_offering_task():
    with tether.scope() as closed:
        pass

    def entry():
        guard = tether.spawn(lambda: 7)
        with pytest.raises(tether.ScopeClosedError):
            closed.spawn(lambda inner: inner, guard)
        return guard.join()

    assert tether.spawn(entry).join() == 7


# G3: one of two threads of the same owner gets the guard, the other learns that it is gone
def test_join_racing_detach_has_one_winner(run_python):
    ran = run_python(
        """
        import threading, tether
        from support import await_event, dedicated, poll

        def rounds():
            for n in range(200):
                release, start = threading.Event(), threading.Barrier(2)
                guard = dedicated(await_event, release)
                won = []

                def join():
                    start.wait()
                    try:
                        guard.join()
                        won.append("join")
                    except tether.ReapedError:
                        pass

                thread = threading.Thread(target=join)
                thread.start()
                start.wait()
                if n % 2:
                    release.set()
                try:
                    guard.detach()
                    won.append("detach")
                except tether.ReapedError:
                    pass
                release.set()
                thread.join()
                assert len(won) == 1, won

        rounds()
        poll(lambda: tether.statistics().tasks_live == 0)
        guard = tether.spawn(lambda: 5)  # the books are still right: it is owned, counted, and can be moved
        print(tether.statistics().guards)
        print(tether.spawn(lambda inner: inner.join(), guard).join())
        """,
        timeout=60,
        check=True,
    )
    assert ran.out == "1\n5\n"


# G2: two threads leave one scope at once: one does, the other is told
def test_scope_left_by_two_threads_at_once_is_left_once(run_python):
    ran = run_python(
        """
        import sys, threading, tether

        sys.setswitchinterval(1e-6)

        def leave(scope, start, left):
            start.wait()
            try:
                scope.__exit__(None, None, None)
                left.append(True)
            except RuntimeError:
                left.append(False)

        for _ in range(300):
            scope, start, left = tether.scope(), threading.Barrier(2), []
            scope.__enter__()
            scope.spawn(int)
            threads = [threading.Thread(target=leave, args=(scope, start, left)) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert sorted(left) == [False, True], left
        del scope
        stats = tether.statistics()
        print(stats.tasks_live, stats.guards, stats.scopes)
        """,
        timeout=60,
        check=True,
    )
    assert ran.out == "0 0 0\n"


# fault 3, G2: the child would wait for itself
def test_child_that_closes_the_generator_holding_its_scope_gets_deadlock_error(run_python):
    ran = run_python(
        """
        import tether

        def holder():
            with tether.scope() as scope:
                yield scope

        generator = holder()
        scope = next(generator)
        child = scope.spawn(lambda: generator.close())
        try:
            child.join()
        except tether.DeadlockError as error:
            print("deadlock", error.__class__ is tether.DeadlockError)
        """,
        timeout=60,
    )
    assert (ran.rc, ran.out) == (0, "deadlock True\n"), ran.err


# G2, G6: nobody is left who could raise it
def test_failure_in_a_scope_dropped_without_leaving_it_is_unraisable():
    def bad():
        raise ValueError("lost")

    scope = tether.scope(on_error="wait")
    scope.__enter__()
    task = scope.spawn(bad).task
    poll(lambda: not task.is_alive())
    with Unraisables() as reports:
        del scope
    assert reports.types == [ValueError]
    assert "lost" in reports.texts[0]


# G16, G20: the walk over a closure borrowed what others replace meanwhile (without a GIL)
def test_closure_cells_may_change_while_a_spawn_looks_at_them(run_python):
    ran = run_python(
        """
        import threading, warnings, tether

        warnings.simplefilter("ignore")  # the closure is plain and shared: that is the point
        stop = threading.Event()

        def make():
            cell = [object()]

            def entry():
                return cell

            def replace():
                nonlocal cell
                while not stop.is_set():
                    cell = [[n] for n in range(3)]

            return entry, replace

        entry, replace = make()
        keeper = tether.spawn(tether.sleep, 3600)
        threads = [threading.Thread(target=replace) for _ in range(2)]
        for thread in threads:
            thread.start()
        for _ in range(2_000):
            assert type(tether.spawn(entry).join()) is list
        stop.set()
        for thread in threads:
            thread.join()
        keeper.cancel()
        print(type(keeper.exit_value()).__name__)
        """,
        timeout=60,
        check=True,
    )
    assert ran.out == "Killed\n"


# --- kills


# fault 33: at every moment, with tasks in place above one another: the target only, or nobody
def test_kill_at_any_moment_never_hits_a_bystander(run_python):
    ran = run_python(
        """
        import random, sys, threading, tether

        sys.setswitchinterval(5e-6)
        rng = random.Random(33)

        def spin(count):
            for _ in range(count):
                pass

        def inner(log):
            try:
                for _ in range(5):
                    spin(20)
            except tether.KilledTask:
                log.append("inner killed")
                raise

        def outer(log):
            try:
                spin(20)
                for _ in range(3):
                    guard = tether.spawn(inner, log)
                    try:
                        guard.join()
                    except tether.TaskKilled:
                        pass
                spin(50)
            except tether.KilledTask:
                log.append("outer killed")
                raise

        def bystander():
            for _ in range(5):
                spin(10)

        def kill(guard, after):
            spin(after)
            guard.kill()
            guard.kill()

        for n in range(400):
            log = []
            guard = tether.options(dedicated=n % 2 == 0).spawn(outer, log)
            killer = threading.Thread(target=kill, args=(guard, rng.randrange(3_000)))
            killer.start()
            try:  # a KilledTask that reaches any of this ends the script
                guard.join()
            except tether.TaskKilled:
                pass
            bystander()
            tether.spawn(bystander).join()
            killer.join()
            bystander()
            assert log.count("outer killed") <= 1, log
        stats = tether.statistics()
        print(stats.tasks_live, stats.guards)
        """,
        timeout=60,
        check=True,
    )
    assert ran.out == "0 0\n"


# fault 33, G20: the thread has a state in the main interpreter, too, and it may be the newer one
@pytest.mark.skipif(
    sys.version_info < (3, 12),
    reason="CPython 3.11 refuses to destroy a sub-interpreter that has several thread states",
)
def test_kill_reaches_a_task_in_place_in_a_subinterpreter(run_python):
    ran = run_python(
        '''
        try:
            import _interpreters as interpreters  # 3.13 and later
        except ImportError:
            import _xxsubinterpreters as interpreters

        SCRIPT = """if True:
            import threading, time
            import tether
            from support import await_event, dedicated

            box, spins, ended = [], threading.Event(), threading.Event()

            def spin():
                spins.set()
                while not ended.is_set():
                    time.sleep(0)

            def kill():
                await_event(spins)
                box[0].kill()
                ended.wait(10)  # lost, when nobody but us sets it
                ended.set()

            box.append(tether.spawn(spin))
            killer = dedicated(kill)
            try:
                box[0].join()
                print("lost", flush=True)
            except tether.TaskKilled:
                print("killed", flush=True)
            ended.set()
            killer.join()
        """
        ident = interpreters.create()
        failure = interpreters.run_string(ident, SCRIPT)
        assert failure is None, failure
        interpreters.destroy(ident)
        ''',
        timeout=60,
        check=True,
    )
    assert ran.out == "killed\n"


# G2, G6: a signal that came as the last task ended was handled while it was being chosen what to raise
def test_interrupt_as_a_scope_is_left_loses_no_failure(run_python):
    ran = run_python(
        """
        import signal, tether
        from support import Unraisables

        def child():
            signal.raise_signal(signal.SIGINT)  # its handler runs when the main thread is back from its wait
            raise ValueError("kept")

        lost = 0
        for _ in range(20):
            with Unraisables() as seen:
                try:
                    with tether.scope() as s:
                        s.options(dedicated=True).spawn(child)
                except KeyboardInterrupt as error:
                    lost += ValueError not in seen.types and error.__context__ is None
        print(lost)
        """,
        timeout=60,
        check=True,
    )
    assert ran.out == "0\n"


# fault 13, 28, G20: a task whose thread did not start was taken out of a list that its canceller had taken it out of
def test_cancel_of_a_task_whose_thread_does_not_start(run_python):
    ran = run_python(
        """
        import threading, time, tether
        from tether import _core

        def cancel():
            while not over.is_set():
                for task in tether.tasks():
                    task.cancel()
                    task.name, task.spawned_at

        tether.spawn(int).join()
        over = threading.Event()
        threads = [threading.Thread(target=cancel) for _ in range(2)]
        for thread in threads:
            thread.start()
        _core._fail_nth("thread", -1)
        end = time.monotonic() + 2
        while time.monotonic() < end:
            try:
                tether.options(dedicated=True).spawn(int).exit_value()
            except RuntimeError:
                pass
        _core._fail_nth("thread", 0)
        over.set()
        for thread in threads:
            thread.join()
        stats = tether.statistics()
        print(stats.tasks_live, stats.guards)
        """,
        timeout=60,
        check=True,
    )
    assert ran.out == "0 0\n"


# fault 23, G6: whoever sets threading.excepthook frees the one that is being called
def test_excepthook_may_be_replaced_while_it_is_looked_up(run_python):
    ran = run_python(
        """
        import threading, tether
        from support import poll

        class Hook:
            def __init__(self):
                self.pad = [0] * 100

            def __call__(self, args):
                seen.append(args.exc_type)

        def current():
            threading.excepthook = None
            junk.append([bytearray(64) for _ in range(1000)])
            return real()

        def bad():
            raise ValueError

        seen, junk, real = [], [], threading.current_thread
        for n in range(20):
            threading.excepthook = Hook()
            threading.current_thread = current
            tether.options(dedicated=True).spawn(bad).detach()
            poll(lambda: len(seen) > n)
            threading.current_thread = real
        print(len(seen))
        """,
        timeout=60,
        check=True,
    )
    assert ran.out == "20\n"


# fault 32, G20: the hook for new threads was borrowed while others set another
def test_thread_hooks_may_be_set_while_tasks_begin(run_python):
    ran = run_python(
        """
        import threading, time, tether

        class Hook:
            def __init__(self):
                self.pad = [0] * 50

            def __call__(self, *args):
                return None

        def setter():
            while not over:
                threading._profile_hook = Hook()  # as threading.setprofile does, and quicker
                threading._profile_hook = Hook()

        over = []
        threads = [threading.Thread(target=setter) for _ in range(2)]
        for thread in threads:
            thread.start()
        end = time.monotonic() + 2
        while time.monotonic() < end:
            tether.spawn(int).join()
        over.append(1)
        for thread in threads:
            thread.join()
        print("ok")
        """,
        timeout=60,
        check=True,
    )
    assert ran.out == "ok\n"


# G6: an abandoned scope collects nothing any more, and the handle left the failure to it
def test_failure_after_its_scope_was_dropped_is_unraisable_when_its_handle_goes():
    inside, go = threading.Event(), threading.Event()

    def child():
        inside.set()
        await_event(go)
        raise ValueError("late")

    scope = tether.scope()
    handle = scope.__enter__().options(dedicated=True).spawn(child)
    await_event(inside)
    with Unraisables() as seen:
        del scope
        go.set()
        poll(handle.done)
        poll(lambda: not tether.statistics().tasks_live)
        assert seen.types == []  # it can still be joined
        del handle
    assert seen.types == [ValueError]


# G9: cancelled after an attempt and before the next, a task said that it had never started
def test_cancel_between_attempts_keeps_the_history():
    def failing():
        calls.append(1)
        raise OSError("flaky")

    policy = tether.Restart(max_restarts=10**9, backoff=0)
    for n in range(200):
        calls: list[int] = []
        guard = tether.options(dedicated=True, restart=policy).spawn(failing)
        poll(lambda: len(calls) > n % 3)  # noqa: B023
        guard.cancel()
        match guard.exit_value():
            case tether.Killed(_, tether.Cancelled()) as killed:
                assert "OSError: flaky" in killed.notes[0]
            case other:
                raise AssertionError(other)


# fault 6, 23: what calls into the books of a supervisor while they are kept may spawn there
def test_spawn_on_a_supervisor_while_it_stops_a_group(run_python):
    ran = run_python(
        """
        import threading, tether

        def tracer(frame, event, arg):
            caller = frame.f_back and frame.f_back.f_code.co_name  # a comprehension has a frame of its own up to 3.11
            if frame.f_code.co_name == "_stops" and caller in ("_go_on", "<listcomp>") and not spawned:
                spawned.append(supervisor.spawn(int))

        def flaky():
            calls.append(1)
            if len(calls) < 3:
                raise OSError("flaky")
            return "done"

        spawned, calls = [], []
        threading.settrace(tracer)
        with tether.supervisor("one_for_all") as supervisor:
            handle = supervisor.spawn(flaky)
        print(handle.join(), spawned[0].join())
        """,
        timeout=60,
        check=True,
    )
    assert ran.out == "done 0\n"


# fault 6: a handler that came while the books were open for a spawn waited for a task that waited for the books
def test_signal_handler_joins_a_supervised_task_while_another_is_spawned(run_python):
    ran = run_python(
        """
        import signal, threading, tether
        from support import await_event
        from tether import _supervisor

        def handler(*args):
            go.set()
            joined.append(first.join())

        class Seat(_supervisor._Seat):  # made inside of spawn, and before it is in the books
            def __setattr__(self, name, value):
                super().__setattr__(name, value)
                if name == "run" and value is not None and armed:
                    armed.clear()
                    signal.raise_signal(signal.SIGUSR1)

        armed, joined, go = [], [], threading.Event()
        signal.signal(signal.SIGUSR1, handler)
        _supervisor._Seat = Seat
        with tether.supervisor() as s:
            first = s.options(dedicated=True).spawn(await_event, go)
            armed.append(1)
            s.spawn(int)
        print(joined)
        """,
        timeout=60,
        check=True,
    )
    assert ran.out == "[None]\n"


# G12, fault 28: the kill of a task that lets supervised ones go was raised in a callback of ours, and dropped there
def test_kill_is_not_lost_where_a_supervised_task_goes(run_python):
    ran = run_python(
        """
        import time, tether
        from support import dedicated

        class Slow:
            def __deepcopy__(self, memo):
                return Slow()

        def entry():
            while True:
                with tether.supervisor("one_for_all") as s:
                    for _ in range(10):
                        s.spawn(lambda a: None, Slow())

        with tether.supervisor("one_for_all") as s:
            s.spawn(lambda a: None, Slow())  # imports what is needed: a kill may be lost to importlib's callbacks

        for n in range(40):
            guard = dedicated(entry)
            time.sleep(0.002 + n * 0.0002)
            guard.kill()
            assert isinstance(guard.exit_value(), tether.Killed)
        """,
        timeout=60,
        check=True,
    )
    assert ran.out == ""
