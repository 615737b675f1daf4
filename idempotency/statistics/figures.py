"""The numbers that a person sees, as one value: page, command and tests show the same."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from ..locks.base import LiveLock


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of time up to now, and the length of its bars; both are seconds."""

    name: str
    length: int
    step: int


WINDOWS = {
    window.name: window
    for window in (
        Window("1h", 3_600, 60),
        Window("24h", 86_400, 3_600),
        Window("7d", 7 * 86_400, 7_200),
        Window("30d", 30 * 86_400, 43_200),
    )
}

DUPLICATES = ("replayed", "in_progress", "reused", "unavailable", "unknown")
"""The outcomes of calls that were not the first with their key, in the order of the chart."""


@dataclass(frozen=True, slots=True)
class Bar:
    """What was counted in one step of the window: duplicates by their outcome."""

    starts_at: datetime
    counts: dict[str, int]


@dataclass(frozen=True, slots=True)
class OperationFigures:
    """The calls of one operation by their outcome; *mean* is that of "executed", in seconds."""

    name: str
    counts: dict[str, int]
    duplicates: int
    mean: float | None
    saved: float  # Seconds: what its replays would have taken to run again.


@dataclass(frozen=True, slots=True)
class LockFigures:
    """The locks of one template by their outcome; durations are seconds."""

    template: str
    counts: dict[str, int]
    mean_wait: float | None
    longest_wait: float | None
    mean_held: float | None
    longest_held: float | None


@dataclass(frozen=True, slots=True)
class RowFigures:
    """Refused, repeated and made changes of the rows of one model, or by one transition."""

    name: str
    counts: dict[str, int]


@dataclass(frozen=True, slots=True)
class CallerFigures:
    """How many duplicates one scope sent, as far as they were logged."""

    scope: str
    duplicates: int


@dataclass(frozen=True, slots=True)
class KeyFigures:
    """How often one key was repeated, as far as that was logged."""

    record_id: UUID
    operation: str
    scope: str
    duplicates: int
    last_at: datetime


@dataclass(frozen=True, slots=True)
class Stuck:
    """A claim whose lease is over, or an outcome that nobody knows: somebody should look."""

    record_id: UUID
    state: str
    operation: str
    scope: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Summary:
    """What happened in one window, up to *until*."""

    window: Window
    until: datetime
    calls: dict[str, int]  # By outcome; without "taken_over", which is no end of a call.
    taken_over: int
    duplicates: int  # Effects that did not take place twice.
    saved: float  # Seconds.
    bars: list[Bar]
    operations: list[OperationFigures]  # Those with the most duplicates first.
    callers: list[CallerFigures]
    keys: list[KeyFigures]
    locks: list[LockFigures]
    rows: list[RowFigures]
    stuck: list[Stuck]


@dataclass(frozen=True, slots=True)
class HeldLocks:
    """What one lock backend holds now; *failure* says why that is not known."""

    alias: str
    locks: list[LiveLock]
    failure: str = ""


@dataclass(frozen=True, slots=True)
class RowLock:
    """A database session that waits for another one's lock; *blocked_by* names sessions."""

    database: str
    session: int
    blocked_by: list[int]
    table: str
    waits_for: float | None  # Seconds.
    statement: str  # Without its values.


@dataclass(frozen=True, slots=True)
class RowLocks:
    """Who blocks whom in one database; *failure* says why that is not known."""

    database: str
    locks: list[RowLock]
    failure: str = ""
