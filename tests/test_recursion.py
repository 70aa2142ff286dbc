"""Small stacks, runaway recursion and deep nesting: an exception or a result, never a crash (fault 17).

What could crash has an interpreter of its own.
"""

from __future__ import annotations

import json
import re
import sys

import pytest

import tether
from support import WAIT, dedicated

LEAST = 256 * 1024


@pytest.mark.parametrize("size", [64 * 1024, 0, 1, -1, LEAST - 1, 2**63, 2**64, -(2**63)])
def test_stack_that_is_too_small_or_absurd_is_refused_before_anything_starts(size):
    # fault 17
    live = tether.statistics().tasks_live
    with pytest.raises(ValueError, match="stack_size"):
        tether.options(stack_size=size)
    with tether.scope() as s, pytest.raises(ValueError, match="stack_size"):
        s.options(stack_size=size)
    assert tether.statistics().tasks_live == live


@pytest.mark.parametrize("size", [LEAST, LEAST + 1, 2 * LEAST - 1, 1 << 20])
def test_smallest_stacks_do_ordinary_work(size):
    # fault 17
    def work():
        nested = {"key": [1, {"deep": (2, 3)}]}
        text = json.dumps(nested)
        assert re.findall(r"(\d)", text) == ["1", "2", "3"]
        with tether.scope() as s:
            handles = [s.spawn(sorted, [3, 1, 2], key=lambda n: -n) for _ in range(3)]
        assert [handle.join() for handle in handles] == [[3, 2, 1]] * 3
        return repr(json.loads(text))

    assert tether.options(stack_size=size).spawn(work).join() == "{'key': [1, {'deep': [2, 3]}]}"


RUNAWAYS = """
    import copy, functools, json, operator, pickle, re, sys
    import tether
    from support import PLACES, WAIT

    def places():
        yield from PLACES.items()
        for size in (256 * 1024, 512 * 1024, 1 << 20, 4 << 20):
            yield f"stack of {size}", lambda fn, size=size: tether.options(stack_size=size).spawn(fn).join()

    def plain():
        return plain() + 1

    def by_sorted():
        return sorted([1, 2], key=lambda n: by_sorted())

    def by_reduce():
        return functools.reduce(lambda a, b: by_reduce(), [1, 2, 3])

    def by_map():
        return list(map(lambda n: by_map(), [1]))

    def by_partial():
        return functools.partial(by_partial)()

    def by_getattr():
        class Chain:
            def __getattr__(self, name):
                return getattr(self, name + "x")
        return Chain().a

    def by_getattr_of_operator():
        class Chain:
            def __getattr__(self, name):
                return operator.attrgetter("b")(self)
        return Chain().a

    def by_property():
        class Chain:
            @property
            def a(self):
                return self.a
        return Chain().a

    def by_repr():
        class Nest:
            def __repr__(self):
                return repr([self])
        return repr(Nest())

    def nested(kind, depth=100_000):
        value = []
        for _ in range(depth):
            value = kind(value)
        return value

    def by_repr_of_nested():
        return repr(nested(lambda inner: [inner]))

    def by_eq():
        class Nest:
            def __eq__(self, other):
                return [self] == [other]
        return Nest() == Nest()

    def by_eq_of_nested():
        return nested(lambda inner: [inner]) == nested(lambda inner: [inner])

    def by_hash():
        class Nest:
            def __hash__(self):
                return hash((self,))
        return hash(Nest())

    def by_json():
        return json.dumps(nested(lambda inner: [inner]))

    def by_json_loads():
        return json.loads("[" * 100_000 + "]" * 100_000)

    def by_json_default():
        class Odd:
            pass
        return json.dumps(Odd(), default=lambda odd: [Odd()])

    def by_pickle():
        return pickle.dumps(nested(lambda inner: [inner]))

    def by_pickle_of_instances():
        class Nest:
            def __reduce__(self):
                return (list, ([Nest()],))
        return pickle.dumps(Nest())

    def by_deepcopy():
        return copy.deepcopy(nested(lambda inner: [inner]))

    def by_re():
        return re.compile("(" * 100_000 + ")" * 100_000)

    def by_re_sub():
        return re.sub("a", lambda match: by_re_sub(), "a")

    def by_compile():
        return compile("+" * 100_000 + "1", "deep", "eval")

    def by_compile_at_the_bottom():
        try:
            return sorted([1], key=lambda n: by_compile_at_the_bottom())
        except RecursionError:
            return by_compile()

    def by_eval():
        return eval("by_eval()")

    def by_call():
        class Chain:
            def __call__(self):
                return self()
        return Chain()()

    def by_next():
        def generate():
            yield from generate()
        return next(generate())

    def by_isinstance():
        kinds = int
        for _ in range(100_000):
            kinds = (kinds,)
        return isinstance("text", kinds)

    def by_index():
        class Number:
            def __index__(self):
                return operator.index(Number())
        return [1][Number()]

    def by_format():
        class Text:
            def __format__(self, spec):
                return f"{self}"
        return f"{Text()}"

    def by_str():
        class Text:
            def __str__(self):
                return str(self)
        return str(Text())

    def by_min():
        return min([1, 2], key=lambda n: by_min())

    def by_cached():
        @functools.lru_cache
        def cached(n):
            return cached(n + 1)
        return cached(0)

    def by_init():
        class Chain:
            def __init__(self):
                Chain()
        return Chain()

    def by_contains():
        class Chain:
            def __contains__(self, value):
                return value in self
        return 1 in Chain()

    def by_super():
        class Chain:
            def __getattribute__(self, name):
                return getattr(self, name)
        return Chain().a

    RUNAWAY = {name: fn for name, fn in globals().items() if name == "plain" or name.startswith("by_")}

    # what the interpreter itself runs out of in some versions, or does not recurse for
    OUTCOMES = (RecursionError, MemoryError, SyntaxError, re.error, OverflowError)
"""


RUNAWAY_COUNT = 1 + RUNAWAYS.count("\n    def by_")


def test_runaway_recursion_in_python_and_through_c_is_an_exception_everywhere(run_python):
    # fault 17: lazily placed, elsewhere, dedicated, and on stacks of every size; the thread serves on
    code = (
        RUNAWAYS
        + """
    import os
    for name, fn in RUNAWAY.items():
        for place, run in places():
            os.write(1, f"{name} on {place}\\n".encode())     # says where it crashed
            try:
                run(fn)
            except OUTCOMES:
                pass
            assert run(int) == 0
    stats = tether.statistics()
    assert stats.tasks_live == stats.guards == 0, stats
    """
    )
    ran = run_python(code, check=True)
    assert len(ran.out.splitlines()) == 7 * RUNAWAY_COUNT


def test_runaway_recursion_through_tether_is_an_exception(run_python):
    # fault 17: a runaway of spawns would not end by itself; the interpreter's own limit ends what recurses on one stack
    code = (
        RUNAWAYS
        + """
    def by_hand():
        with tether.scope() as s:
            return recurse(s)

    def recurse(s):
        s.spawn(int)
        return recurse(s)

    for place, run in places():
        try:
            run(by_hand)
        except BaseExceptionGroup as group:
            assert [type(error) for error in group.exceptions] == [RecursionError], group
        else:
            raise AssertionError(place)
    stats = tether.statistics()
    assert stats.tasks_live == stats.guards == stats.scopes == 0, stats
    """
    )
    run_python(code, check=True)


def test_recursion_error_is_recoverable_inside_the_task(run_python):
    # fault 17: again and again on one thread, with handlers that recurse themselves
    code = (
        RUNAWAYS
        + """
    def entry():
        hits = 0
        for _ in range(20):
            for fn in (plain, by_sorted, by_repr, by_getattr):
                try:
                    fn()
                except RecursionError:
                    hits += 1
                    try:
                        plain()
                    except RecursionError:
                        hits += 1
        return hits

    for place, run in places():
        assert run(entry) == 160, place
    """
    )
    run_python(code, check=True)


@pytest.mark.parametrize("limit", [200, 5_000, 50_000])
def test_recursion_limit_of_the_program_holds_in_every_place(limit, run_python):
    # fault 17, G18: also one that a small stack has no room for
    code = (
        RUNAWAYS
        + f"""
    sys.setrecursionlimit({limit})

    for place, run in places():
        for fn in (plain, by_sorted, by_reduce, by_getattr, by_repr):
            if {limit} > 5_000 and sys.version_info < (3, 12) and not place.startswith("stack"):
                continue    # there C recursion counts the same, and the program has asked for more than its stack holds
            try:
                run(fn)
            except (RecursionError, MemoryError):
                pass
            else:
                raise AssertionError((place, fn))
    """
    )
    run_python(code, check=True)


# ---- nesting --------------------------------------------------------------------------------------------------------


def by_join(n):
    return 0 if n == 0 else 1 + tether.spawn(by_join, n - 1).join()


def by_exit_value(n):
    return 0 if n == 0 else 1 + tether.spawn(by_exit_value, n - 1).exit_value().value


def by_with(n, box=None):
    box = []
    if n == 0:
        return 0
    with tether.spawn(lambda: box.append(by_with(n - 1))):
        pass
    return 1 + box[0]


def by_scope(n):
    if n == 0:
        return 0
    with tether.scope() as s:
        child = s.spawn(by_scope, n - 1)
    return 1 + child.join()


def by_drop(n):
    box = []
    if n == 0:
        return 0
    guard = tether.spawn(lambda: box.append(by_drop(n - 1)))
    del guard
    return 1 + box[0]


@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("nest", [by_join, by_exit_value, by_with, by_scope, by_drop], ids=lambda nest: nest.__name__)
@pytest.mark.parametrize("where", ["main thread", "lazy", "elsewhere", "dedicated", "small stack"])
def test_nesting_ten_thousand_deep_completes(where, nest):
    # fault 17: where the stack is deep, another thread takes over
    depth = 10_000
    starts = {
        "main thread": lambda: nest(depth),
        "lazy": lambda: tether.spawn(nest, depth).join(),
        "elsewhere": lambda: tether.spawn(nest, depth).join(timeout=3 * WAIT),
        "dedicated": lambda: dedicated(nest, depth).join(),
        "small stack": lambda: tether.options(stack_size=LEAST).spawn(nest, depth).join(),
    }
    assert starts[where]() == depth


@pytest.mark.timeout(300)
def test_failure_at_the_bottom_of_deep_nesting_comes_up():
    # fault 17
    def fail_below(n):
        if n == 0:
            raise ValueError("bottom")
        return tether.spawn(fail_below, n - 1).join()

    with pytest.raises(ValueError, match="bottom") as caught:
        tether.spawn(fail_below, 2_000).join()
    assert len(caught.value.__notes__) == 2_001
    assert sys.exc_info() == (None, None, None)


@pytest.mark.timeout(300)
def test_runaway_recursion_at_the_bottom_of_nested_joins_is_an_exception(run_python):
    # fault 17: every level in place takes stack, and each has a recursion budget of its own
    code = (
        RUNAWAYS
        + """
    def nest(n, fn):
        return fn() if n == 0 else tether.spawn(nest, n - 1, fn).join()

    def at_depth(levels, n, fn):
        return nest(n, fn) if levels == 0 else at_depth(levels - 1, n, fn)

    for place, run in places():
        for fn in (plain, by_sorted, by_reduce, by_repr, by_getattr, by_json):
            for n in (1, 3, 30):
                for levels in (0, 20, 40):
                    try:
                        run(lambda: at_depth(levels, n, fn))
                    except RecursionError:
                        pass
                    else:
                        raise AssertionError((place, fn, n))
    """
    )
    run_python(code, check=True)
