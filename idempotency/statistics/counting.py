"""Counts and log entries in memory, until they are written."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import NamedTuple

from ..keys import MAX_LENGTH
from ..signals import CallEvent

MINUTE = 60

MOST_NAMES = 500
"""Names of one kind that a process counts apart; further ones are `OTHER`."""

MOST_COUNTS = 20_000
"""Counts that are kept while they cannot be written; further ones are dropped."""

MOST_CALLS = 10_000
"""Log entries that are kept until they are written; further ones are dropped."""

OTHER = "(other)"


class Counted(NamedTuple):
    """What is counted together; *starts_at* and *length* are seconds, the former since 1970."""

    starts_at: int
    length: int
    kind: str
    name: str
    outcome: str


@dataclass(slots=True)
class Tally:
    """How often, and what it took in seconds."""

    count: int = 0
    seconds: float = 0.0
    longest: float = 0.0

    def add(self, other: Tally) -> None:
        self.count += other.count
        self.seconds += other.seconds
        self.longest = max(self.longest, other.longest)


@dataclass(slots=True)
class Batch:
    """What is written at once."""

    tallies: dict[Counted, Tally] = field(default_factory=dict)
    calls: list[CallEvent] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.tallies or self.calls)


class Counters:
    """Counts from any thread, in a few microseconds and bounded memory."""

    def __init__(self) -> None:
        self._mutex = threading.RLock()  # A signal may interrupt a thread that counts, and count.
        self._batch = Batch()
        self._names: dict[str, set[str]] = {}

    def count(self, kind: str, name: str, outcome: str, seconds: float, at: float) -> None:
        """Count one event that took place *at* an instant, in seconds since 1970."""
        starts_at = int(at) // MINUTE * MINUTE
        with self._mutex:
            counted = Counted(starts_at, MINUTE, kind, self._known(kind, name), outcome)
            self._add(counted, Tally(1, seconds, seconds))

    def log(self, event: CallEvent) -> None:
        """Keep *event* for the log of its record."""
        with self._mutex:
            if len(self._batch.calls) < MOST_CALLS:
                self._batch.calls.append(event)

    def take(self) -> Batch:
        """Give all there is, and begin anew."""
        with self._mutex:
            taken, self._batch = self._batch, Batch()
            return taken

    def put_back(self, batch: Batch) -> None:
        """Keep what could not be written, together with what came meanwhile."""
        with self._mutex:
            for counted, tally in batch.tallies.items():
                self._add(counted, tally)
            self._batch.calls = [*batch.calls, *self._batch.calls][:MOST_CALLS]

    @property
    def is_empty(self) -> bool:
        return not self._batch

    def _add(self, counted: Counted, tally: Tally) -> None:
        tallies = self._batch.tallies
        if counted in tallies:
            tallies[counted].add(tally)
        elif len(tallies) < MOST_COUNTS:
            tallies[counted] = tally

    def _known(self, kind: str, name: str) -> str:
        names = self._names.setdefault(kind, set())
        if name not in names:
            if len(names) >= MOST_NAMES:
                return OTHER
            names.add(name)
        return name[:MAX_LENGTH]
