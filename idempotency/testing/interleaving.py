"""Steps runs through each other, in every order that their statements can take."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connections

from .moments import When, visited
from .races import Finish

PATIENCE = 0.1
"""Seconds after which a statement that has not returned counts as waiting for another run."""

GIVE_UP_AFTER = 60.0
"""Seconds after which runs that wait for each other are given up."""


@dataclass(frozen=True, slots=True)
class Interleaving:
    """One order: the *steps* (which run, which statement), and how each run came through."""

    number: int
    steps: tuple[tuple[int, str], ...]
    finishes: tuple[Finish, ...]

    def __str__(self) -> str:
        return f"{self.number}: " + " ".join(
            f"{'abcdefgh'[run]}:{sql.split(maxsplit=1)[0]}" for run, sql in self.steps
        )


def interleavings(
    *runs: Callable[[int], Any], using: Sequence[str] = ("default",), most: int = 5_000
) -> Iterator[Interleaving]:
    """
    Run all of *runs* together, again and again, until every order of their statements was tried.

    Each run has its own thread and connections, and stops before each statement, COMMIT and
    ROLLBACK until it is its turn. A statement that waits for another run's lock keeps waiting
    while the others go on. Each run is called with the number of the order.

    Raises: `RuntimeError` if there are more than *most* orders, or all runs wait for each other.
    """
    order: list[int] = []
    for number in range(most):
        interleaving, turns = _play(number, runs, using, order)
        yield interleaving
        while turns and turns[-1][0] + 1 == turns[-1][1]:
            turns.pop()
        if not turns:
            return
        order = [turn for turn, _ in turns[:-1]] + [turns[-1][0] + 1]
    raise RuntimeError(f"There are more than {most} orders.")


def _play(
    number: int, runs: tuple[Callable[[int], Any], ...], using: Sequence[str], order: list[int]
) -> tuple[Interleaving, list[tuple[int, int]]]:
    """Play one order; give it, and of each turn the choice and how many choices there were."""
    actors = [_Actor(run, number, using) for run in runs]
    steps: list[tuple[int, str]] = []
    turns: list[tuple[int, int]] = []
    try:
        _take_turns(actors, order, steps, turns)
    finally:
        for actor in actors:
            actor.abandon()
        for actor in actors:
            actor.join()
    finishes = tuple(actor.finish() for actor in actors)
    return Interleaving(number, tuple(steps), finishes), turns


def _take_turns(
    actors: list[_Actor],
    order: list[int],
    steps: list[tuple[int, str]],
    turns: list[tuple[int, int]],
) -> None:
    deadline = time.monotonic() + GIVE_UP_AFTER
    while not all(actor.is_done for actor in actors):
        ready = [actor for actor in actors if actor.waits(PATIENCE)]
        if ready:
            wanted = order[len(turns)] if len(turns) < len(order) else 0
            choice = min(wanted, len(ready) - 1)  # A slow statement may come late once.
            turns.append((choice, len(ready)))
            steps.append((actors.index(ready[choice]), ready[choice].sql))
            ready[choice].step()
        elif time.monotonic() > deadline:
            raise RuntimeError("All runs wait for each other.")


class _Actor:
    """A run in a thread of its own, which goes on by one statement when told."""

    def __init__(self, run: Callable[[int], Any], number: int, using: Sequence[str]) -> None:
        self.sql = ""
        self.is_done = False
        self._arrived = threading.Event()
        self._go = threading.Semaphore(0)
        self._finish = Finish()
        self._is_abandoned = False
        self._thread = threading.Thread(target=self._run, args=(run, number, using), daemon=True)
        self._thread.start()

    def waits(self, patience: float) -> bool:
        """Whether it stands before a statement; one that is under way gets *patience* seconds."""
        return not self.is_done and self._arrived.wait(patience) and not self.is_done

    def step(self) -> None:
        self._arrived.clear()
        self._go.release()

    def abandon(self) -> None:
        """Let it end by an error, so that it leaves neither a thread nor a lock behind."""
        self._is_abandoned = not self.is_done
        self._go.release()

    def join(self) -> None:
        self._thread.join(60)

    def finish(self) -> Finish:
        return self._finish

    def _run(self, run: Callable[[int], Any], number: int, using: Sequence[str]) -> None:
        try:
            with visited(self._visit, using):
                self._finish = Finish(result=run(number))
        except Exception as error:
            self._finish = Finish(error=error)
        finally:
            connections.close_all()
            self.is_done = True
            self._arrived.set()

    def _visit(self, when: When, sql: str) -> None:
        if when == "before" and not self._is_abandoned:
            self.sql = sql
            self._arrived.set()
            self._go.acquire()
        if self._is_abandoned and sql != "ROLLBACK":
            raise RuntimeError("This order was given up.")
