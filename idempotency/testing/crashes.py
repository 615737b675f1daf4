"""Kills a run at every statement, one after the other."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from .children import Child, Failure, Report
from .moments import When, visited


@dataclass(frozen=True, slots=True)
class CrashPoint:
    """
    Where a run was killed: *when* it stood to *sql*, a statement, COMMIT or ROLLBACK.

    The last point of all has no *sql*: that run came to its end.
    """

    number: int
    when: When
    sql: str

    def __str__(self) -> str:
        return f"{self.number}: {self.when} {' '.join(self.sql.split())[:60] or 'the end'}"


def crash_points(
    work: Callable[[int], object], *, using: Sequence[str] = ("default",), most: int = 500
) -> Iterator[CrashPoint]:
    """
    Run `work(number)` in process after process, and kill each one moment later than the last.

    It dies by SIGKILL before and after each statement, COMMIT and ROLLBACK; then the block of your
    loop looks at what is left, and retries. The last run is not killed. POSIX only.

    Args:
        work: what is to be cut short; *number* helps to take a new key each time.
        using: aliases of the databases whose statements count.
        most: points after which it gives up, as *work* seems to have no end.

    Raises: `Failure`, with the traceback, if *work* fails by itself.
    """
    for number in range(most):
        point = _crash(work, number, using)
        yield point
        if not point.sql:
            return
    raise Failure(f"The work has more than {most} moments.")


def _crash(work: Callable[[int], object], number: int, using: Sequence[str]) -> CrashPoint:
    reports, ended_by = Child(lambda report: _die_at(number, work, using, report)).join()
    for value in reports:
        if isinstance(value, Failure):
            raise value
    if ended_by == signal.SIGKILL and reports:
        return CrashPoint(number, *reports[-1])
    if ended_by:
        raise Failure(f"The process was ended by signal {ended_by}.")
    return CrashPoint(number, "after", "")


def _die_at(
    number: int, work: Callable[[int], object], using: Sequence[str], report: Report
) -> None:
    passed = 0

    def visit(when: When, sql: str) -> None:
        nonlocal passed
        if passed == number:
            report((when, sql))
            os.kill(os.getpid(), signal.SIGKILL)
        passed += 1

    with visited(visit, using):
        work(number)
