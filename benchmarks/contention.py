"""Many processes that want one lock at once: how often they get it, and how long each waits."""

from __future__ import annotations

import multiprocessing
import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.sharedctypes import RawValue
from statistics import median
from typing import Any

from idempotency.testing import race

from .lockers import Locker

fork = multiprocessing.get_context("fork")


@dataclass(slots=True)
class Contention:
    """What one contender reached in all contests; durations are seconds."""

    rates: list[float] = field(default_factory=list)  # Turns per second of each contest.
    waits: list[float] = field(default_factory=list)
    overlaps: int = 0

    @property
    def median(self) -> float:
        return median(self.waits)

    @property
    def worst(self) -> float:
        return max(self.waits)


@dataclass(frozen=True, slots=True)
class Share:
    """What one process had of a contest."""

    began_at: float
    ended_at: float
    waits: list[float]


@dataclass(frozen=True, slots=True)
class Contest:
    """*turns* for each of *processes*, which end after *seconds* however many are left."""

    processes: int
    turns: int
    seconds: int

    def hold(self, locker: Locker) -> tuple[list[Share], int]:
        """Give each process's share, and how many turns took place while another one did."""
        barrier, done = fork.Barrier(self.processes), RawValue("l", 0)
        name = f"contested-{random.randrange(10**12)}"  # noqa: S311 - not a secret.

        def work(number: int) -> Share:
            signal.alarm(3 * self.seconds)  # Whatever hangs.
            hold = locker.prepare(name, waits=True)
            with hold():
                pass  # Connects.
            barrier.wait()
            return self._take_turns(hold, done)

        finishes = race(work, processes=self.processes)
        for finish in finishes:
            if finish.error is not None:
                raise finish.error
        shares = [finish.result for finish in finishes]
        return shares, sum(len(share.waits) for share in shares) - done.value

    def _take_turns(self, hold: Callable[[], Any], done: Any) -> Share:
        waits: list[float] = []
        began_at = time.monotonic()
        while len(waits) < self.turns and time.monotonic() < began_at + self.seconds:
            asked_at = time.monotonic()
            with hold():
                before = done.value
                waits.append(time.monotonic() - asked_at)
                done.value = before + 1  # Lost if another process did the same meanwhile.
        return Share(began_at, time.monotonic(), waits)


def contend(
    lockers: Sequence[Locker], contest: Contest, times: int, advance: Callable[[], None]
) -> dict[Locker, Contention]:
    """Hold *contest* *times* for each of *lockers*, in random order."""
    found = {locker: Contention() for locker in lockers}
    for _ in range(times):
        for locker in random.sample(lockers, len(lockers)):
            shares, overlaps = contest.hold(locker)
            note(found[locker], shares, overlaps)
            advance()
    return found


def note(contention: Contention, shares: Sequence[Share], overlaps: int) -> None:
    waits = [wait for share in shares for wait in share.waits]
    duration = max(share.ended_at for share in shares) - min(share.began_at for share in shares)
    contention.waits += waits
    contention.rates.append(len(waits) / duration)
    contention.overlaps += overlaps
