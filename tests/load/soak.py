"""Everything at once, for as long as asked: `python tests/load/soak.py --minutes 15 [--seed S]`.

Several plain threads and the main thread each do random acts, drawn from a seed. Samples of native threads, descriptors
and memory are taken all the while. After a minute of warm-up they must be flat: between the first and the last quarter
of the samples the median of the resident memory grows by less than 5 % and 4 MiB, and those of threads and descriptors
hardly (vitals.py). At the end every counter of `tether.statistics()` is zero. The last line says how often each act was
done; the exit code is 0, or 1 after a line that says what was wrong. A watchdog prints all stacks and exits when an act
hangs.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import os
import random
import signal
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import acts
from vitals import Vitals

import tether
from support import busy_statistics, poll

HANG = 120.0
"""Seconds that one act may take: acts wait for milliseconds."""


class Watchdog:
    """Every worker says now and then that it gets on. When one does not, stacks are printed and the process ends."""

    def __init__(self, names: list[str]) -> None:
        self._seen = dict.fromkeys(names, time.monotonic())
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def beat(self, name: str) -> None:
        self._seen[name] = time.monotonic()

    def done(self, name: str) -> None:
        self._seen.pop(name, None)

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(1.0):
            # Should the interpreter itself hang, this thread with it, the dump comes from a thread without Python.
            faulthandler.dump_traceback_later(2 * HANG, exit=True)
            late = [name for name, at in list(self._seen.items()) if time.monotonic() - at > HANG]
            if late:
                print(f"soak: {late} made no progress for {HANG} s", file=sys.stderr, flush=True)
                tether.dump(sys.stderr)
                faulthandler.dump_traceback(all_threads=True)
                os._exit(1)
        faulthandler.cancel_dump_traceback_later()


class Soak:
    """The workers, their seeds, and what went wrong."""

    def __init__(self, seed: int, threads: int) -> None:
        self.seed = seed
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.names = [f"worker-{n}" for n in range(threads)]
        self.over = threading.Event()
        self._lock = threading.Lock()

    def work(self, name: str, menu: list[acts.Act], rounds: int | None, watchdog: Watchdog) -> None:
        """Do acts from the menu until the time or the rounds are over, or something is wrong."""
        dice = random.Random(f"{self.seed}/{name}")
        done: Counter[str] = Counter()
        weights = [weight for weight, _ in menu]
        try:
            while not self.over.is_set() and (rounds is None or done.total() < rounds):
                watchdog.beat(name)
                _, act = dice.choices(menu, weights)[0]
                done[act.__name__] += 1
                act(dice)
        except BaseException:
            self.fail(f"{name}: {traceback.format_exc()}")
        finally:
            watchdog.done(name)
            with self._lock:
                self.done += done

    def fail(self, what: str) -> None:
        self.wrong.append(what)
        self.over.set()

    def run(self, seconds: float | None, rounds: int | None) -> Vitals:
        watchdog = Watchdog([*self.names, "main"])
        vitals = Vitals(warm_up=60.0 if seconds is None or seconds > 90 else seconds / 3)
        threads = [
            threading.Thread(target=self.work, args=(name, acts.ANYWHERE, rounds, watchdog), name=name)
            for name in self.names
        ]
        timer = threading.Timer(seconds, self.over.set) if seconds is not None else None
        with vitals:
            for thread in threads:
                thread.start()
            if timer is not None:
                timer.start()
            with acts.ticking():
                self.work("main", [*acts.ANYWHERE, *acts.MAIN_ONLY], rounds, watchdog)
            for thread in threads:
                thread.join()
        if timer is not None:
            timer.cancel()
        watchdog.stop()
        return vitals

    def settle(self) -> None:
        """Afterwards nothing is left."""
        gc.collect()
        try:
            poll(lambda: not busy_statistics(), "counters back to zero", 30.0)
        except AssertionError:
            tether.dump(sys.stderr)
            self.wrong.append(f"left behind: {busy_statistics()}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, help="how long")
    parser.add_argument("--rounds", type=int, help="instead: how many acts each thread does")
    parser.add_argument("--seed", type=int, default=None, help="of all random choices; printed")
    parser.add_argument("--threads", type=int, default=3, help="plain threads beside the main thread")
    options = parser.parse_args()
    if (options.minutes is None) == (options.rounds is None):
        parser.error("either --minutes or --rounds")
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    print(f"soak: seed {seed}, CPython {sys.version.split()[0]}", flush=True)
    faulthandler.enable()
    warnings.simplefilter("ignore")  # dropped guards, forks beside threads: on purpose, here
    signal.signal(signal.SIGINT, signal.default_int_handler)
    acts.watch_hooks()
    threading.Thread(target=acts.striker, name="striker", daemon=True).start()

    soak = Soak(seed, options.threads)
    vitals = soak.run(60 * options.minutes if options.minutes is not None else None, options.rounds)
    soak.settle()
    soak.wrong += [f"reported to a hook: {text}" for text in acts.unexpected()]
    if options.minutes is not None:
        soak.wrong += vitals.complaints()
    for what in soak.wrong:
        print(f"soak: WRONG: {what}", file=sys.stderr)
    counts = ", ".join(f"{name} {n}" for name, n in sorted(soak.done.items()))
    verdict = f"{'FAILED' if soak.wrong else 'ok'}, {soak.done.total()} acts"
    print(f"soak: {verdict}: {counts}; {vitals.summary()}; ticks {acts.TICKS.total()}")
    return 1 if soak.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
