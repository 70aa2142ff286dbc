"""Real signals, sent in every way, while the main thread waits in every place (faults 5 and 6).

Each snippet has an interpreter of its own, whose main thread the signals are for.
"""

from __future__ import annotations

import pytest

PRELUDE = """
    import gc, os, select, signal, subprocess, sys, threading, time, traceback, weakref
    import tether
    from support import await_event, dedicated, poll

    MAIN = threading.main_thread().ident
    reading, writing = os.pipe()    # no lock: a signal may strike anywhere in the main thread

    def announce():
        os.write(writing, b"x")

    def shooter(count, shoot):
        '''Shoots once per announcement: the next only when the last was seen.'''
        def run():
            for _ in range(count):
                os.read(reading, 1)
                shoot()
        thread = threading.Thread(target=run)
        thread.start()
        return thread

    SENDERS = {
        "os.kill": lambda number: os.kill(os.getpid(), number),
        "pthread_kill": lambda number: signal.pthread_kill(MAIN, number),
        "raise_signal": signal.raise_signal,  # on the sending thread
    }

    def await_main_at(number):
        '''Until the main thread is on this line of the snippet.'''
        def there():
            frames = traceback.walk_stack(sys._current_frames()[MAIN])
            return any(at == number for frame, at in frames if frame.f_code.co_filename == "<string>")
        poll(there, f"the main thread on line {number}")

    def await_main_asleep():
        '''Until the main thread is in a call that blocks, and not only waits for the GIL.'''
        def moves():
            with open(f"/proc/self/task/{os.getpid()}/status") as status:
                return [at for at in status if at.startswith(("State", "voluntary"))]

        still, last = 0, None
        while still < 3:
            now = moves()
            still = still + 1 if now == last and "S (" in now[0] else 0
            last = now
            time.sleep(0.01)

    def line():
        return sys._getframe(1).f_lineno

    def nothing_left():
        gc.collect()
        poll(lambda: tether.statistics().tasks_live == 0, "the tasks to end")
        stats = tether.statistics()
        assert stats.guards == stats.scopes == 0, stats
        assert tether.current().id == 0
"""

SENDERS = ["os.kill", "pthread_kill", "raise_signal"]


@pytest.mark.parametrize("sender", SENDERS)
@pytest.mark.parametrize("shooting", ["a thread of the program", "a crew thread"])
def test_hundred_interrupts_of_a_join_are_hundred_keyboard_interrupts(shooting, sender, run_python):
    # fault 5: none is lost or doubled, wherever the signal was raised, and the guard is armed after each
    code = (
        PRELUDE
        + """
    send = SENDERS["@sender@"]
    release = threading.Event()
    guard = dedicated(await_event, release)

    def shoot_all():
        for _ in range(100):
            os.read(reading, 1)
            send(signal.SIGINT)

    if "@shooting@" == "a crew thread":
        other = dedicated(shoot_all)
    else:
        other = threading.Thread(target=shoot_all)
        other.start()
    hits = 0
    for n in range(100):
        try:
            announce()
            guard.join(timeout=None if n % 2 else 3600)
        except KeyboardInterrupt:
            hits += 1
        assert not guard.done()
    other.join()
    assert hits == 100, hits
    assert guard.task.parent is None
    release.set()
    assert guard.join() is None
    guard = other = None
    nothing_left()
    """.replace("@sender@", sender).replace("@shooting@", shooting)
    )
    run_python(code, check=True)


BLOCKING = {
    "bytecode": "while True: pass",
    "time.sleep": "time.sleep(3600)",
    "event": "threading.Event().wait()",
    "lock": "lock = threading.Lock(); lock.acquire(); lock.acquire()",
    "read": "os.read(never, 1)",
    "select": "select.select([never], [], [])",
    "tether.sleep": "tether.sleep(3600)",
    "join": "dedicated(tether.sleep, 0.3).join(); time.sleep(3600)",
    "scope": "exec('with tether.scope() as s: s.options(dedicated=True).spawn(tether.sleep, 3600)')",
}


@pytest.mark.parametrize("blocking", BLOCKING)
def test_interrupt_of_a_task_in_place_that_is_inside_a_call(blocking, run_python):
    # fault 5: the task ends with it, join raises it, the guard is reaped
    code = (
        PRELUDE
        + """
    never, _ = os.pipe()

    def entry():
        places.append(threading.get_ident())
        if places[-1] == MAIN:
            announce()
            @blocking@

    hits = 0

    def shoot():
        # a signal that comes just before a call that blocks does not wake it: that is CPython's to live with
        if "@blocking@" != "while True: pass":
            await_main_asleep()
        os.kill(os.getpid(), signal.SIGINT)

    shots = shooter(10, shoot)
    while hits < 10:
        places = []
        guard = tether.spawn(entry)
        try:
            guard.join()
        except KeyboardInterrupt as error:
            hits += 1
            assert places == [MAIN]
            assert any(frame.name == "entry" for frame in traceback.extract_tb(error.__traceback__))
        else:
            assert places != [MAIN]
        try:
            guard.join()
        except tether.ReapedError:
            pass
        else:
            raise AssertionError("not reaped")
    shots.join()
    del guard
    nothing_left()
    """.replace("@blocking@", BLOCKING[blocking])
    )
    run_python(code, check=True, env={"TETHER_PLACE": "inline"})


@pytest.mark.parametrize("sender", SENDERS)
def test_hundred_interrupts_while_scopes_are_left(sender, run_python):
    # fault 5: each is raised once, bare, after its scope has joined everything
    code = (
        PRELUDE
        + """
    send = SENDERS["@sender@"]
    def shoot():
        poll(lambda: leaving, 'the line')
        await_main_at(leaving)
        send(signal.SIGINT)

    shots = shooter(100, shoot)
    ended, hits, leaving = [], 0, None

    def child():
        try:
            tether.sleep(3600)
        finally:
            ended.append(True)

    for n in range(100):
        started = threading.Event()
        try:
            leaving = line() + 1
            with tether.scope() as s:
                s.options(dedicated=True).spawn(lambda: (started.set(), child()))
                queued = [s.spawn(child) for _ in range(3)]
                await_event(started)
                announce()
        except KeyboardInterrupt:
            hits += 1
        assert ended, n
        assert not any(handle.task.is_alive() for handle in queued)
        assert not s.tasks()
    shots.join()
    assert hits == 100, hits
    assert len(ended) >= 100
    del queued, s
    nothing_left()
    """.replace("@sender@", sender)
    )
    run_python(code, check=True)


def test_second_interrupt_of_a_scope_names_the_tasks_that_it_leaves(run_python):
    # fault 5: the interrupt is let through although a child does not listen; the child is joined at exit
    code = (
        PRELUDE
        + """
    def deaf():
        started.set()
        await_event(release)
        sys.stdout.write("ended\\n")

    started, release = threading.Event(), threading.Event()

    def twice(leaving):
        await_main_at(leaving)
        os.kill(os.getpid(), signal.SIGINT)
        poll(lambda: s.cancelled, "the first interrupt")
        os.kill(os.getpid(), signal.SIGINT)

    try:
        leaving = line() + 1
        with tether.scope(name="leaving") as s:
            s.options(dedicated=True, name="deaf child").spawn(deaf)
            await_event(started)
            helper = threading.Thread(target=twice, args=(leaving,))
            helper.start()
    except KeyboardInterrupt as error:
        (note,) = error.__notes__
        assert "twice" in note and "'leaving'" in note and "'deaf child'" in note and "<string>:" in note, note
    else:
        raise AssertionError("not interrupted")
    helper.join()
    assert tether.statistics().tasks_live == 1
    threading.Timer(0.05, release.set).start()
    """
    )
    assert run_python(code, check=True).out == "ended\n"


@pytest.mark.parametrize("sender", SENDERS)
def test_hundred_interrupts_of_destructors(sender, run_python):
    # fault 5, G6: raised once each, when the destructor is over; the task was asked to end, and has ended
    code = (
        PRELUDE
        + """
    send = SENDERS["@sender@"]
    def shoot():
        poll(lambda: dropping, 'the line')
        await_main_at(dropping)
        send(signal.SIGINT)

    shots = shooter(100, shoot)
    ended, hits, dropping = [], 0, None

    def entry():
        announce()
        try:
            tether.sleep(3600)
        finally:
            ended.append(True)

    for n in range(100):
        dropping = None
        try:
            guard = dedicated(entry)
            dropping = line() + 1
            guard = None
            poll(lambda: False, "an interrupt", 60)
        except KeyboardInterrupt:
            hits += 1
            guard = None
        poll(lambda: tether.statistics().tasks_live == 0, "the task to end")
        assert len(ended) == n + 1
    shots.join()
    assert hits == 100, hits
    nothing_left()
    """.replace("@sender@", sender)
    )
    run_python(code, check=True)


def test_handler_is_called_once_for_a_signal_that_strikes_a_destructor(run_python):
    # fault 5: a handler that lets the second Ctrl-C end the program must not take the first for it
    code = (
        PRELUDE
        + """
    calls, hits, dropping = [], 0, None

    def handler(*_):
        calls.append(True)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, handler)

    def entry():
        poll(lambda: dropping, 'the line')
        await_main_at(dropping)
        os.kill(os.getpid(), signal.SIGINT)
        tether.sleep(3600)

    for n in range(50):
        dropping = None
        try:
            guard = dedicated(entry)
            dropping = line() + 1
            guard = None
            poll(lambda: False, "an interrupt", 60)
        except KeyboardInterrupt:
            hits += 1
            guard = None
    assert (len(calls), hits) == (50, 50), (len(calls), hits)
    nothing_left()
    """
    )
    run_python(code, check=True)


def test_impatient_interrupts_of_a_destructor_are_one(run_python):
    # fault 5: the task does not listen, so the drop has to wait; then one KeyboardInterrupt
    code = (
        PRELUDE
        + """
    seen = []

    def handler(*_):
        seen.append(True)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, handler)

    def deaf():
        poll(lambda: dropping, 'the line')
        await_main_at(dropping)
        for n in range(5):
            os.kill(os.getpid(), signal.SIGINT)
            poll(lambda: len(seen) == n + 1, "the handler")

    dropping = None
    guard, hits = dedicated(deaf), 0
    try:
        dropping = line() + 1
        guard = None
        poll(lambda: False, "an interrupt", 60)
    except KeyboardInterrupt:
        hits += 1
    for _ in range(1_000):
        pass    # another one would strike here
    assert (len(seen), hits) == (5, 1), (seen, hits)
    nothing_left()
    """
    )
    run_python(code, check=True)


# ---- handlers that use tether ---------------------------------------------------------------------------------------

HANDLERS = (
    PRELUDE
    + """
    class Own(Exception):
        pass

    class Round:
        '''One wait, and one signal that strikes it.'''
        def __init__(self, place, action):
            self.place, self.action = place, action
            self.released, self.calls, self.outcome, self.refused = False, 0, None, 0
            self.guard = self.scope = self.watch = self.other = self.struck = None

        def listen(self):
            '''The body of the task that is waited for: it has checkpoints.'''
            while not self.released:
                tether.checkpoint()
                time.sleep(0)
            return "released"

    def do_spawn(r):
        assert tether.spawn(int, 7).join() == 7
        assert dedicated(int, 8).join() == 8
        assert [g.join() for g in [tether.spawn(int, n) for n in range(20)]] == list(range(20))

    def do_leave_a_guard(r):
        r.left = dedicated(int, 3)

    def do_join_another(r):
        try:
            assert r.other.join() == "other"
        except tether.OwnershipError:   # in place, the handler runs as the task
            r.refused += 1

    def do_join_a_blocked_other(r):
        gate = threading.Event()
        guard = dedicated(await_event, gate)
        threading.Thread(target=gate.set).start()
        guard.join()

    def do_join_the_same(r):
        r.released = True
        guard = r.watch()
        if guard is not None and r.place != "in place":
            guard.join()
        elif guard is not None:
            try:
                guard.join()
            except tether.OwnershipError:
                r.refused += 1

    def do_cancel_the_scope(r):
        r.scope.cancel()
        r.released = r.place == "destructor"    # its task is not the scope's

    def do_cancel_the_guard(r):
        r.task.cancel()

    def do_kill_the_guard(r):
        guard = r.watch()
        if guard is None:
            r.task.cancel()     # it is being dropped: nobody can kill it any more
        else:
            guard.kill()
        del guard

    def do_raise(r):
        raise Own

    def do_open_a_scope(r):
        with tether.scope() as s:
            for n in range(5):
                s.spawn(tether.sleep, 0.001)
            assert s.options(dedicated=True).spawn(int, 5).join() == 5

    def do_spawn_on_the_scope(r):
        r.scope.spawn(r.late.append, 1)

    def do_drop_a_guard(r):
        guard = dedicated(tether.sleep, 0.005)
        del guard

    def do_collect(r):
        box = [dedicated(tether.sleep, 0.001)]
        box.append(box)
        del box
        gc.collect()

    def do_sleep(r):
        tether.sleep(0.005)

    ACTIONS = {name[3:]: action for name, action in globals().items() if name.startswith("do_")}
    RUN = []

    def handler(*_):
        (r,) = RUN
        r.calls += 1
        try:
            r.action(r)
        finally:
            if r.name not in ("cancel_the_scope", "cancel_the_guard", "kill_the_guard", "raise"):
                r.released = True

    signal.signal(signal.SIGUSR1, handler)

    def join_elsewhere(r):
        guard = dedicated(r.listen)
        r.watch, r.task = weakref.ref(guard), guard.task
        announce()
        try:
            r.struck = line() + 1
            return guard.join()
        except Own:
            assert not guard.done()     # armed
            r.released = True
            assert guard.join() == "released"
            raise

    def in_place(r):
        def entry():
            if threading.get_ident() == MAIN:
                announce()
            else:
                r.elsewhere = True
                r.released = True
            return r.listen()

        guard = tether.spawn(entry)
        r.watch, r.task = weakref.ref(guard), guard.task
        return guard.join()

    def scope_exit(r):
        r.struck = line() + 1
        with tether.scope() as r.scope:
            handle = r.scope.options(dedicated=True).spawn(r.listen)
            r.watch, r.task = weakref.ref(handle), handle.task
            announce()
        assert not r.task.is_alive()
        return "released"

    def sleeping(r):
        # the handler cannot end a sleep but by raising: it is long enough that the signal strikes it
        guard = dedicated(r.listen)
        r.watch, r.task = weakref.ref(guard), guard.task
        try:
            announce()
            r.struck = line() + 2
            for _ in range(1_000):
                tether.sleep(0.02)      # the signal strikes one of these
                if r.calls:
                    break
        except Own:
            r.released = True
            assert guard.join() == "released"
            raise
        return guard.join()

    def destructor(r):
        guard = dedicated(r.listen)
        r.watch, r.task = weakref.ref(guard), guard.task
        announce()
        r.struck = line() + 1
        del guard
        assert not r.task.is_alive()
        poll(lambda: r.calls, "the signal")
        return "released"

    PLACES = {"elsewhere": join_elsewhere, "in place": in_place, "scope exit": scope_exit, "sleep": sleeping,
              "destructor": destructor}

    KILLED = {"cancel_the_guard", "kill_the_guard"}

    def expected(place, name):
        if name == "raise":
            return "Own"
        if name in KILLED:
            return "released" if place in ("scope exit", "destructor") else "TaskKilled"
        if name == "cancel_the_scope":
            # the body is ended silently, and so is what runs in place on it; a destructor waits on, uncancelled
            ends = {"scope exit": "released", "destructor": "released", "in place": "TaskKilled"}
            return ends.get(place, "silent")
        if name == "join_the_same":
            return "released" if place in ("scope exit", "in place", "destructor") else "ReapedError"
        return "released"

    def attempt(place, name):
        r = Round(place, ACTIONS[name])
        r.name, r.late, r.elsewhere, r.left = name, [], False, None
        RUN[:] = [r]
        r.other = tether.spawn(str, "other")
        outcome = "silent"
        try:
            if place == "scope exit":
                outcome = PLACES[place](r)
            else:
                with tether.scope(on_error="wait") as r.scope:
                    try:
                        outcome = PLACES[place](r)
                    except (Own, tether.TetherError) as error:
                        outcome = type(error).__name__
                    finally:
                        # what is cancelled from without ends here, too
                        r.released = r.released or name == "cancel_the_scope"
        except Own as error:
            outcome = "Own"
        if r.elsewhere:     # the crew was faster: another round
            return False
        poll(lambda: r.calls == 1, "one call of the handler")
        assert outcome == expected(place, name), (place, name, outcome)
        if name == "spawn_on_the_scope":
            assert r.late == [1]
        if r.left is not None:
            assert r.left.join() == 3
        if not (name == "join_another" and r.refused == 0):
            assert r.other.join() == "other"
        return True

    def shoot():
        r = RUN[0]
        if r.place != "in place":   # there the task announces; elsewhere the signal must strike the wait, not before
            poll(lambda: r.struck is not None, "the line")
            await_main_at(r.struck)
        os.kill(os.getpid(), signal.SIGUSR1)

    def play(place, rounds):
        for name in ACTIONS:
            os.write(1, f"{place}: {name}\\n".encode())     # says where it hung
            done = 0
            for _ in range(rounds * 200):
                shots = shooter(1, shoot)
                hit = attempt(place, name)
                if not hit:
                    RUN[0].calls = 0
                    RUN[0].action = lambda r: None
                    announce()
                shots.join()
                poll(lambda: RUN[0].calls, "the handler")
                RUN.clear()
                done += hit
                if done == rounds:
                    break
            assert done == rounds, (place, name, done)
            nothing_left()
"""
)


@pytest.mark.parametrize("place", ["elsewhere", "in place", "scope exit", "sleep", "destructor"])
def test_signal_handler_may_use_tether_in_every_wait(place, run_python):
    # fault 6: spawn, join another and the same, cancel, kill, raise, open a scope, drop, collect: none of it deadlocks
    run_python(HANDLERS + f"    play({place!r}, 2)\n", check=True)


# ---- storms ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timer", ["ITIMER_REAL", "ITIMER_PROF"])
def test_storm_of_signals_loses_no_wake_up(timer, run_python):
    # fault 5: a thousand signals a second through a second of everything
    code = (
        PRELUDE
        + """
    seen = []
    number = {"ITIMER_REAL": signal.SIGALRM, "ITIMER_PROF": signal.SIGPROF}["@timer@"]
    signal.signal(number, lambda *_: seen.append(True))
    signal.setitimer(signal.@timer@, 0.001, 0.001)

    def fib(n):
        if n < 2:
            return n
        left = tether.spawn(fib, n - 1)
        return fib(n - 2) + left.join()

    def mixed():
        with tether.scope() as s:
            handles = [s.spawn(tether.sleep, 0.001) for _ in range(4)]
            handles.append(s.options(dedicated=True).spawn(time.sleep, 0.001))
        assert [handle.join() for handle in handles] == [None] * 5
        assert dedicated(int, 5).join(timeout=60) == 5
        gate = threading.Event()
        guard = dedicated(await_event, gate)
        try:
            guard.join(timeout=0.002)
        except TimeoutError:
            pass
        gate.set()
        del guard
        assert tether.spawn(fib, 8).join() == 21
        tether.sleep(0.001)

    end = time.monotonic() + 1
    while time.monotonic() < end or len(seen) < 50:
        mixed()                             # on the main thread
        dedicated(mixed).join()             # and on the crew
    signal.setitimer(signal.@timer@, 0)
    nothing_left()
    """.replace("@timer@", timer)
    )
    run_python(code, check=True)


# ---- crew threads and signals ---------------------------------------------------------------------------------------


def test_signal_raised_in_a_task_reaches_its_handler(run_python):
    # G18: as in any thread, the handler runs on the main thread
    code = (
        PRELUDE
        + """
    seen = []
    signal.signal(signal.SIGUSR1, lambda *_: seen.append(threading.get_ident()))

    def entry(n):
        signal.raise_signal(signal.SIGUSR1)
        poll(lambda: len(seen) > n, "the handler")

    for n in range(100):
        dedicated(entry, n).join()
    assert seen == [MAIN] * 100
    """
    )
    run_python(code, check=True)


def test_signal_sent_to_a_crew_thread_reaches_its_handler(run_python):
    # fault 5: pthread_kill to the thread of a task, blocked in tether or in C
    code = (
        PRELUDE
        + """
    seen = []
    signal.signal(signal.SIGUSR1, lambda *_: seen.append(threading.get_ident()))

    def target(wait):
        box.append(threading.get_ident())
        wait(0.02)

    for n in range(40):
        box = []
        guard = dedicated(target, time.sleep if n % 2 else tether.sleep)
        poll(lambda: box, "the thread")
        signal.pthread_kill(box[0], signal.SIGUSR1)
        guard.join()
        poll(lambda: len(seen) == n + 1, "the handler")
    assert set(seen) == {MAIN}
    del guard
    nothing_left()
    """
    )
    run_python(code, check=True)


@pytest.mark.parametrize("run", ["lazy", "elsewhere", "dedicated"])
def test_process_started_in_a_task_can_be_ended_by_a_signal(run, run_python):
    # G18: a signal mask is inherited by what the task starts
    code = (
        PRELUDE
        + f"""
    from support import PLACES

    def entry():
        child = subprocess.Popen([sys.executable, "-c", "import time; print(flush=True); time.sleep(3600)"],
                                 stdout=subprocess.PIPE)
        child.stdout.read(1)
        child.terminate()
        child.communicate(timeout=60)
        return child.returncode, signal.pthread_sigmask(signal.SIG_BLOCK, [])

    assert PLACES[{run!r}](entry) == (-signal.SIGTERM, set())
    """
    )
    run_python(code, check=True)


def test_crew_threads_block_what_the_program_blocks(run_python):
    # G18: who keeps a signal for sigwait blocks it before it starts threads; tether's are threads
    code = (
        PRELUDE
        + """
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    masks = [guard.join(timeout=60) for guard in
             [tether.spawn(signal.pthread_sigmask, signal.SIG_BLOCK, []) for _ in range(10)]]
    masks.append(dedicated(signal.pthread_sigmask, signal.SIG_BLOCK, []).join())
    assert masks == [{signal.SIGUSR1}] * 11, masks
    os.kill(os.getpid(), signal.SIGUSR1)
    assert signal.sigwait([signal.SIGUSR1]) == signal.SIGUSR1
    """
    )
    run_python(code, check=True)
