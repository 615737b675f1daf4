"""The tables of the page "Locks and duplicates": figures in, words and links out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.utils.translation import gettext as _

from ..statistics.figures import KeyFigures, LockFigures, Stuck, Summary
from ..words import count, duration, outcome


@dataclass(frozen=True, slots=True)
class Cell:
    """One value in words; *url* leads to more, *at* is an instant that is shown as one."""

    text: str = ""
    url: str = ""
    at: datetime | None = None
    is_number: bool = False
    is_code: bool = False
    action: str = ""  # What the link does, for those who hear it without its row.


RecordCell = Callable[[UUID], Cell]
"""Names a record, with a link to its page if this reader may see it."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table with its caption; its first column names the rows."""

    name: str
    caption: str
    head: list[Cell]
    rows: list[list[Cell]]
    nothing: str  # Said in place of the rows if there are none.
    failure: str = ""


def text(value: str) -> Cell:
    return Cell(value)


def code(value: str, url: str = "") -> Cell:
    """Give a name that a program chose."""
    return Cell(value, url, is_code=True)


def figure(value: int) -> Cell:
    return Cell(count(value), is_number=True)


def length(seconds: float | None) -> Cell:
    return Cell(duration(seconds), is_number=True)


def heads(*labels: str, numbers: int) -> list[Cell]:
    """Give the cells of a head, of which the last *numbers* are above numbers."""
    first = len(labels) - numbers
    return [Cell(label, is_number=place >= first) for place, label in enumerate(labels)]


def stuck_claims(summary: Summary, record_cell: RecordCell) -> Table:
    """Give the claims whose lease is over, and the outcomes that nobody knows."""
    return Table(
        "stuck",
        _("Stuck claims"),
        heads(_("Key"), _("Operation"), _("Caller"), _("State"), _("For"), numbers=1),
        [_stuck(one, summary, record_cell) for one in summary.stuck],
        _("No claim is stuck: no lease ran out unnoticed, and no outcome is unknown."),
    )


def _stuck(one: Stuck, summary: Summary, record_cell: RecordCell) -> list[Cell]:
    states = {"in_progress": _("Lease is over"), "unknown": _("Outcome unknown")}
    return [
        record_cell(one.record_id),
        code(one.operation),
        code(one.scope),
        text(states.get(one.state, one.state)),
        length((summary.until - one.since).total_seconds()),
    ]


def operations(summary: Summary) -> Table:
    labels = (_("Operation"), _("Calls"), _("Duplicates"), _("Mean time"), _("Time saved"))
    return Table(
        "operations",
        _("Operations with the most duplicates"),
        heads(*labels, numbers=4),
        [
            [
                code(one.name),
                figure(sum(one.counts.values())),
                figure(one.duplicates),
                length(one.mean),
                length(one.saved),
            ]
            for one in summary.operations
        ],
        _("No operation has been called with a key in this time."),
    )


def callers(summary: Summary) -> Table:
    return Table(
        "callers",
        _("Callers with the most duplicates"),
        heads(_("Caller"), _("Duplicates"), numbers=1),
        [[code(one.scope), figure(one.duplicates)] for one in summary.callers],
        _("No caller has sent a duplicate in this time."),
    )


def keys(summary: Summary, record_cell: RecordCell) -> Table:
    labels = (_("Key"), _("Operation"), _("Caller"), _("Last"), _("Duplicates"))
    return Table(
        "keys",
        _("Keys repeated the most"),
        heads(*labels, numbers=1),
        [_key(one, record_cell) for one in summary.keys],
        _("No key has been repeated in this time."),
    )


def _key(one: KeyFigures, record_cell: RecordCell) -> list[Cell]:
    return [
        record_cell(one.record_id),
        code(one.operation),
        code(one.scope),
        Cell(at=one.last_at),
        figure(one.duplicates),
    ]


OF_LOCKS = ("taken", "waited", "turned_away", "lost")
OF_ROWS = ("stale", "repeated", "conflict")


def locks(summary: Summary) -> Table:
    """Give the locks by template: how they ended, and how long they were waited for and held."""
    labels = (_("Lock"), _("Taken at once"), _("Waited for"), _("Turned away"), _("Lost"))
    times = (_("Mean wait"), _("Longest wait"), _("Mean hold"), _("Longest hold"))
    return Table(
        "locks",
        _("Locks by the template of their name"),
        heads(*labels, *times, numbers=8),
        [_lock(one) for one in summary.locks],
        _("No lock has been asked for in this time."),
    )


def _lock(one: LockFigures) -> list[Cell]:
    times = (one.mean_wait, one.longest_wait, one.mean_held, one.longest_held)
    return [code(one.template), *_counts(one.counts, OF_LOCKS), *map(length, times)]


def rows(summary: Summary) -> Table:
    """Give what was refused, or was done already, by model and transition."""
    labels = (_("Model or transition"), _("Stale"), _("Repeated"), _("Conflict"))
    return Table(
        "rows",
        _("Rows whose change was refused or repeated"),
        heads(*labels, numbers=3),
        [[code(one.name), *_counts(one.counts, OF_ROWS)] for one in summary.rows],
        _("No row has been changed under guard in this time."),
    )


def _counts(counts: dict[str, int], outcomes: Iterable[str]) -> list[Cell]:
    return [figure(counts.get(name, 0)) for name in outcomes]


def bars(summary: Summary, kinds: Sequence[str]) -> Table:
    """Give the numbers of the chart; steps in which nothing was stopped have no row."""
    shown = [bar for bar in summary.bars if any(bar.counts.values())]
    labels: list[Any] = [_("From"), *map(outcome, kinds), _("All")]
    return Table(
        "bars",
        _("Duplicates by the time they came"),
        heads(*labels, numbers=len(labels) - 1),
        [
            [Cell(at=bar.starts_at), *_counts(bar.counts, kinds), figure(sum(bar.counts.values()))]
            for bar in shown
        ],
        _("No duplicate came in this time."),
    )
