"""Lets many processes do the same thing at the same moment."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from .children import Child, Failure, Report


@dataclass(frozen=True, slots=True)
class Finish:
    """How one process came through a race: with a *result*, or an *error*."""

    result: Any = None
    error: Exception | None = None


def race(work: Callable[[int], Any], *, processes: int = 8) -> list[Finish]:
    """
    Run `work(number)` in *processes* processes that start together; give how each came through.

    Results and errors must be picklable. POSIX only.

    Raises: `Failure` if a process dies.
    """
    ready, told = os.pipe()
    start, gun = os.pipe()
    children = [
        Child(partial(_start, work, number, told, start, gun)) for number in range(processes)
    ]
    os.close(told)
    os.close(start)
    for _ in children:
        os.read(ready, 1)
    os.close(gun)  # The end of the pipe, which all wait for, comes to all at once.
    os.close(ready)
    return [_finish(*child.join()) for child in children]


def _start(
    work: Callable[[int], Any], number: int, told: int, start: int, gun: int, report: Report
) -> None:
    os.close(gun)
    os.write(told, b"r")
    os.read(start, 1)
    try:
        finish = Finish(result=work(number))
    except Exception as error:
        finish = Finish(error=error)
    report(finish)


def _finish(reports: list[Any], ended_by: int) -> Finish:
    for value in reports:
        if isinstance(value, Failure):
            raise value
    if ended_by or not reports:
        raise Failure(f"A process was ended by signal {ended_by}.")
    finish: Finish = reports[-1]
    return finish
