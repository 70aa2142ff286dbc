"""What is raised when a scope is left: the choice among the body's exception, the tasks' failures and the clock.

It is chosen here, and raised by the caller, in C: what a signal handler raises in between must not take its place.
"""

from __future__ import annotations

from ._errors import Cancelled, KilledTask

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._core import Scope, TaskRef, _report_unraisable

__all__ = ["nothing", "settle"]

# _report_unraisable is put here by _core, which imports this module: a block may be left when the interpreter is being
# taken apart (a suspended generator's), and nothing can be imported any more.


def settle(
    scope: Scope,
    body: BaseException | None,
    failures: list[BaseException] | None,
    raised: BaseException | None,
    timed_out: bool,
    cancelled_outside: bool,
    abandoned: list[TaskRef] | None,
    late: list[TaskRef] | None,
) -> bool | BaseException:
    """What leaving ``scope`` raises, or whether ``__exit__`` swallows the body's exception (G2).

    ``raised`` came out of a signal handler while the tasks were joined; ``abandoned`` are the tasks that a second one
    left running; ``late`` those that ended after the timeout without having noticed it. ``cancelled_outside``: the
    caller is cancelled by more than this scope.
    """
    failed = failures[:] if failures else []
    if raised is not None:
        if abandoned:
            raised.add_note(f"interrupted twice: scope {scope.name!r} stopped waiting for {_names(abandoned)}")
        _report(failed)
        return raised
    for failure in failed:
        if issubclass(type(failure), (SystemExit, KeyboardInterrupt)):  # isinstance() would ask it, and it may refuse
            failed.remove(failure)
            _report(failed)
            return failure
    if body is not None:
        if isinstance(body, (Cancelled, KilledTask)):
            if not failed and not timed_out:
                return not cancelled_outside
        else:  # an Exception: others go on bare (pyscope.c), unless a task's exit took precedence above
            failed.insert(0, body)
    if timed_out:
        text = f"the scope took longer than {scope.timeout} s; its tasks were cancelled and have ended"
        if late:
            text += f". It had to wait for {_names(late)}: long code needs a tether.checkpoint() now and then"
        if not failed:
            return _from_none(TimeoutError(text))
        failed.append(TimeoutError(text))
    what = f"scope {scope.name!r}" if scope.name else "a scope"
    return _from_none(BaseExceptionGroup(f"failures in {what}", failed))


def nothing() -> None:
    """Does nothing: a place where an asynchronous exception that came too late can be raised and dropped."""


def _from_none(error: BaseException) -> BaseException:
    error.__suppress_context__ = True
    return error


def _report(failures: list[BaseException]) -> None:
    """An exception that must go on bare leaves no room for these; they are not lost, either (G6)."""
    for failure in failures:
        _report_unraisable(failure, "<failure in a scope that was left by another exception>")


def _names(tasks: list[TaskRef]) -> str:
    return ", ".join([f"'{task.name}' (spawned at {task.spawned_at})" for task in tasks])
