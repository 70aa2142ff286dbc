"""G10: static checkers see functions, arguments and results from head to tail."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import tether

# Wrong lines carry the error they must give: an ignore that nothing needs is an error too.
USES = """
    from typing import Any, assert_type

    import tether
    from tether import Completed, JoinGuard, Killed, KillReason, Scope, TaskRef, TaskState


    def load(path: str, *, limit: int = 0) -> bytes:
        return path.encode()[:limit]


    def pair(a: int, b: str) -> tuple[int, str]:
        return a, b


    def index(i: int) -> None:
        pass


    guard = tether.spawn(load, "x", limit=3)
    assert_type(guard, JoinGuard[bytes])
    assert_type(guard.join(), bytes)
    assert_type(guard.join(timeout=1.5), bytes)
    assert_type(guard.done(), bool)
    assert_type(guard.is_static, bool)
    assert_type(guard.cancel("why"), bool)
    assert_type(guard.kill(), bool)
    assert_type(guard.detach(), TaskRef)
    assert_type(guard.task, TaskRef)

    tether.spawn(load, 5)  # type: ignore[arg-type]
    tether.spawn(load)  # type: ignore[call-arg]
    tether.spawn(load, "x", limits=3)  # type: ignore[call-arg]
    tether.spawn(load, "x", limit="3")  # type: ignore[arg-type]
    tether.spawn(5)  # type: ignore[arg-type]
    JoinGuard()  # type: ignore[call-arg, misc, abstract, no-untyped-call, var-annotated, unused-ignore]

    named = tether.options(name="n", dedicated=True, stack_size=1 << 20, at_exit="cancel", must_join=True)
    assert_type(named.spawn(load, "x"), JoinGuard[bytes])
    named.spawn(load, 5)  # type: ignore[arg-type]
    tether.options(at_exit="never")  # type: ignore[arg-type]
    tether.options(nam="n")  # type: ignore[call-arg]

    assert_type(list(tether.par_map(load, ["a", "b"], workers=2)), list[bytes])
    assert_type(next(tether.par_map(pair, [1], ["x"])), tuple[int, str])
    tether.par_map(load, [1])  # type: ignore[arg-type]
    tether.par_map(load, ["x"], isolation="process")  # type: ignore[call-overload]
    tether.par_for(10, index)
    tether.par_for(10, load)  # type: ignore[arg-type]
    assert_type(tether.par_reduce(len, max, ["a"], 0), int)
    assert_type(tether.join(lambda: 1, lambda: "x"), tuple[int, str])
    with tether.Executor(2) as pool:
        assert_type(pool.submit(load, "x", limit=3).result(), bytes)
        assert_type(list(pool.map(load, ["x"], buffersize=2)), list[bytes])

    with tether.spawn(load, "x") as entered:
        assert_type(entered, JoinGuard[bytes])

    match tether.spawn(load, "x").exit_value():
        case Completed(value):
            assert_type(value, bytes)
        case Killed(reason, exception):
            assert_type(reason, KillReason)
            assert_type(exception, BaseException | None)

    with tether.scope("name", on_error="wait", timeout=3) as s:
        assert_type(s, Scope)
        assert_type(s.spawn(load, "x"), JoinGuard[bytes])
        assert_type(s.options(name="n").spawn(load, "x"), JoinGuard[bytes])
        s.spawn(load, 5)  # type: ignore[arg-type]
        assert_type(s.tasks(), list[TaskRef])
    tether.scope(on_error="explode")  # type: ignore[arg-type]


    def body(s: Scope) -> str:
        return s.name or ""


    assert_type(tether.scoped(body), str | None)  # None: cancelled, and ended silently
    assert_type(tether.spawn(lambda: 3).join(), int)
    assert_type(tether.current(), TaskRef)
    assert_type(tether.current().state, TaskState)
    assert_type(tether.current().parent, TaskRef | None)
    assert_type(tether.current().native_id, int | None)
    assert_type(tether.tasks(), list[TaskRef])
    assert_type(tether.statistics().tasks_live, int)


    class Loader:
        def __call__(self, n: int) -> str:
            return str(n)

        def method(self, n: int) -> float:
            return float(n)


    assert_type(tether.spawn(Loader(), 5), JoinGuard[str])
    assert_type(tether.spawn(Loader().method, 5), JoinGuard[float])
    assert_type(tether.spawn(Loader), JoinGuard[Loader])


    def joined(guards: list[JoinGuard[bytes]]) -> bytes:
        return b"".join(guard.join() for guard in guards)


    def anything(guard: JoinGuard[Any]) -> object:
        return guard.join()


    def covariant(guard: JoinGuard[bool]) -> JoinGuard[int]:
        return guard
"""


@pytest.mark.timeout(300)
@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="no mypy here: the test extra has it up to 3.12")
def test_checker_sees_types_from_head_to_tail(tmp_path):
    # G10
    (tmp_path / "uses.py").write_text(textwrap.dedent(USES))
    (tmp_path / "mypy.ini").write_text("[mypy]\nstrict = true\nwarn_unused_ignores = true\n")
    command = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "--cache-dir", ".cache", "uses.py"]
    source = Path(tether.__file__).parents[1]
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    if source.name != "site-packages":  # where the checker looks by itself, and may not be told to
        env["MYPYPATH"] = str(source)
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, cwd=tmp_path, env=env, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_package_says_that_it_is_typed():
    # G10
    package = Path(tether.__file__).parent
    assert (package / "py.typed").is_file()
    assert (package / "_core.pyi").is_file()


def test_stub_and_extension_agree_on_their_names():
    # G10
    from tether import _core

    tree = ast.parse((Path(tether.__file__).parent / "_core.pyi").read_text())
    stubbed = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            members = [item for item in node.body if isinstance(item, ast.FunctionDef)]
            stubbed[node.name] = {item.name for item in members if not item.name.startswith("_")}
        elif isinstance(node, ast.FunctionDef):
            stubbed[node.name] = set()
    missing = [name for name in stubbed if not name.startswith("_") and not hasattr(_core, name)]
    assert missing == []
    for name, members in stubbed.items():
        if hasattr(_core, name):
            assert [member for member in members if not hasattr(getattr(_core, name), member)] == []
