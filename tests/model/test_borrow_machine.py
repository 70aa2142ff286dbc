"""The rules of borrows, through the Python API, against a model that keeps a list and looks at all of it (G13, G14)."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from effort import effort
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

import tether
from support import await_event, dedicated

SIZE = 24
BOUND = st.integers(0, SIZE)


@dataclass(eq=False)
class Loan:
    """What the model knows of a handle. It is in the book while it is live, viewed, or lent further."""

    handle: Any
    start: int
    stop: int
    exclusive: bool
    lender: Loan | None = None
    live: bool = True
    moved: bool = False
    views: int = 0
    parts: list[Loan] = field(default_factory=list)

    def in_book(self) -> bool:
        return self.live or self.views > 0 or any(part.in_book() for part in self.parts)

    def lent(self) -> bool:
        return any(part.in_book() for part in self.parts)

    def usable(self) -> bool:
        return self.live and not self.moved and not self.lent()


class Keeper:
    """A task that has a borrow until it is told to end."""

    def __init__(self, handle: Any) -> None:
        self.go, self.inside = threading.Event(), threading.Event()
        self.guard = dedicated(self._keep, handle, self.inside, self.go)
        await_event(self.inside)

    @staticmethod
    def _keep(handle: Any, inside: threading.Event, go: threading.Event) -> None:
        inside.set()
        await_event(go)

    def end(self) -> None:
        self.go.set()
        self.guard.join()


class BorrowMachine(RuleBasedStateMachine):
    loans = Bundle("loans")
    views = Bundle("views")
    keepers = Bundle("keepers")

    def __init__(self) -> None:
        super().__init__()
        self.region = tether.Region(SIZE)
        self.memory = bytearray(SIZE)
        self.roots: list[Loan] = []
        self.all: list[Loan] = []
        self.open_views: list[tuple[Loan, memoryview]] = []
        self.open_keepers: list[tuple[Loan, Keeper]] = []

    def conflicts(self, start: int, stop: int, exclusive: bool) -> bool:
        return any(
            loan.in_book() and (exclusive or loan.exclusive) and max(loan.start, start) < min(loan.stop, stop)
            for loan in self.roots
        )

    def note(self, loan: Loan) -> Loan:
        (self.roots if loan.lender is None else loan.lender.parts).append(loan)
        self.all.append(loan)
        return loan

    @rule(target=loans, a=BOUND, b=BOUND, exclusive=st.booleans())
    def borrow(self, a: int, b: int, exclusive: bool) -> Loan:
        start, stop = min(a, b), max(a, b)
        lend = self.region.borrow_mut if exclusive else self.region.share
        if self.conflicts(start, stop, exclusive):
            with pytest.raises(tether.BorrowError):
                lend(start, stop)
            return Loan(None, start, stop, exclusive, live=False)
        return self.note(Loan(lend(start, stop), start, stop, exclusive))

    @rule(loan=loans)
    def end_silently(self, loan: Loan) -> None:
        if loan.handle is not None:
            loan.handle.__exit__(None, None, None)
            loan.live = loan.live and loan.moved

    @rule(loan=loans)
    def release(self, loan: Loan) -> None:
        if loan.handle is None:
            return
        if not loan.live:
            loan.handle.release()
        elif loan.moved:
            with pytest.raises(tether.MovedError):
                loan.handle.release()
        elif loan.views or loan.lent():
            with pytest.raises(tether.BorrowError):
                loan.handle.release()
        else:
            loan.handle.release()
            loan.live = False

    @rule(target=views, loan=loans)
    def view(self, loan: Loan) -> tuple[Loan, memoryview] | None:
        if loan.handle is None:
            return None
        if not loan.usable():
            with pytest.raises(tether.TetherError):
                memoryview(loan.handle)
            return None
        loan.views += 1
        self.open_views.append((loan, memoryview(loan.handle)))
        return self.open_views[-1]

    @rule(view=consumes(views))
    def let_go(self, view: tuple[Loan, memoryview] | None) -> None:
        if view is not None:
            view[1].release()
            view[0].views -= 1
            self.open_views = [other for other in self.open_views if other[1] is not view[1]]

    @rule(loan=loans, value=st.integers(0, 255))
    def write(self, loan: Loan, value: int) -> None:
        if loan.handle is None or not loan.exclusive:
            return
        if loan.usable():
            loan.handle[:] = bytes([value]) * (loan.stop - loan.start)
            self.memory[loan.start : loan.stop] = bytes([value]) * (loan.stop - loan.start)
        else:
            with pytest.raises(tether.TetherError):
                loan.handle[:] = b""

    @rule(loan=loans)
    def read(self, loan: Loan) -> None:
        if loan.handle is None:
            return
        if loan.usable():
            assert loan.handle[:] == self.memory[loan.start : loan.stop]
        else:
            with pytest.raises(tether.TetherError):
                loan.handle[:]

    def lend_further(self, loan: Loan, act: Any, cuts: list[int]) -> list[Loan]:
        if loan.handle is None or not loan.exclusive:
            return []
        if not loan.usable() or loan.views:
            with pytest.raises(tether.TetherError):
                act()
            return []
        made = act()
        handles = list(made) if isinstance(made, (list, tuple)) else [made]
        bounds = list(pairwise(cuts))
        assert [handle.range for handle in handles] == bounds
        return [self.note(Loan(h, a, b, True, loan)) for h, (a, b) in zip(handles, bounds, strict=True)]

    @rule(target=loans, loan=loans)
    def lend(self, loan: Loan) -> Loan:
        made = self.lend_further(loan, lambda: loan.handle.lend(), [loan.start, loan.stop])
        return made[0] if made else loan

    @rule(target=loans, loan=loans, data=st.data(), second=st.booleans())
    def split(self, loan: Loan, data: st.DataObject, second: bool) -> Loan:
        at = data.draw(st.integers(0, loan.stop - loan.start))
        made = self.lend_further(loan, lambda: loan.handle.split_at(at), [loan.start, loan.start + at, loan.stop])
        return made[second] if made else loan

    @rule(target=loans, loan=loans, n=st.integers(1, 4))
    def chunks(self, loan: Loan, n: int) -> Loan:
        size, more = divmod(loan.stop - loan.start, n)
        cuts = [loan.start + size * i + min(i, more) for i in range(n + 1)]
        made = self.lend_further(loan, lambda: loan.handle.chunks(n), cuts)
        return made[-1] if made else loan

    @rule(target=loans, loan=loans)
    def downgrade(self, loan: Loan) -> Loan:
        if loan.handle is None or not loan.exclusive:
            return loan
        if not loan.usable() or loan.views:
            with pytest.raises(tether.TetherError):
                loan.handle.downgrade()
            return loan
        shared = Loan(loan.handle.downgrade(), loan.start, loan.stop, False, loan.lender)
        loan.live = False
        return self.note(shared)

    @rule(target=loans, loan=loans)
    def clone(self, loan: Loan) -> Loan:
        if loan.handle is None or loan.exclusive:
            return loan
        if not loan.usable():
            with pytest.raises(tether.TetherError):
                loan.handle.clone()
            return loan
        return self.note(Loan(loan.handle.clone(), loan.start, loan.stop, False, loan.lender))

    @rule(target=keepers, loan=loans)
    def give_to_a_task(self, loan: Loan) -> tuple[Loan, Keeper] | None:
        if loan.handle is None or len(self.open_keepers) >= 4 or (not loan.live and not loan.moved):
            return None
        if not loan.usable() or loan.views:
            with pytest.raises(tether.TetherError):
                dedicated(lambda _: None, loan.handle).join()
            return None
        loan.moved = True
        self.open_keepers.append((loan, Keeper(loan.handle)))
        return self.open_keepers[-1]

    @rule(keeper=consumes(keepers))
    def task_ends(self, keeper: tuple[Loan, Keeper] | None) -> None:
        if keeper is not None:
            keeper[1].end()
            keeper[0].live = False
            self.open_keepers.remove(keeper)

    @rule()
    def close(self) -> None:
        if any(loan.in_book() and loan.stop > loan.start for loan in self.roots):
            with pytest.raises(tether.BorrowError):
                self.region.close()

    @rule(n=st.integers(1, 3), exclusive=st.booleans())
    def all_or_none(self, n: int, exclusive: bool) -> None:
        chunks = self.region.chunks_mut if exclusive else self.region.chunks
        if self.conflicts(0, SIZE, exclusive):
            with pytest.raises(tether.BorrowError):
                chunks(n)
        else:
            assert len(chunks(n)) == n

    @invariant()
    def handles_agree(self) -> None:
        for loan in self.all:
            assert loan.handle.expired == (not loan.live)
            assert loan.handle.range == (loan.start, loan.stop)

    def teardown(self) -> None:
        for _, view in self.open_views:
            view.release()
        for _, keeper in self.open_keepers:
            keeper.end()
        self.open_views.clear()
        self.open_keepers.clear()
        self.all.clear()
        self.roots.clear()


TestBorrows = BorrowMachine.TestCase
TestBorrows.settings = effort(60, 40)
