"""Shows the numbers of the page in the admin in the terminal."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connections

from ...statistics.blocking import row_locks
from ...statistics.figures import WINDOWS, HeldLocks, RowLocks, Summary
from ...statistics.holdings import held_locks
from ...statistics.jsons import Encoder, as_json
from ...statistics.listening import is_on
from ...statistics.summary import summarize
from ...words import duration
from ..terminal import columns


class Command(BaseCommand):
    help = "Show how many duplicates were stopped, which locks are held, and what is stuck."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--window", choices=WINDOWS, default="24h", help="how far to look back")
        parser.add_argument("--json", action="store_true", help="everything, for programs")
        parser.add_argument("--database", help="alias of the database that has the statistics")

    def handle(self, *args: Any, window: str, database: str | None, **options: Any) -> None:
        if database is not None and database not in connections:
            raise CommandError(f"There is no database {database!r} in DATABASES.")
        try:
            summary = summarize(WINDOWS[window], using=database)
            held, blocked = held_locks(), row_locks()
        except DatabaseError as error:
            raise CommandError(
                f"The statistics cannot be read: {error} Has `manage.py migrate` been run?"
            ) from error
        if options["json"]:
            self.stdout.write(json.dumps(as_json(summary, held, blocked), cls=Encoder, indent=2))
            return
        self._show_calls(summary)
        self._show_locks(summary, held, blocked)
        self._show_rest(summary)

    def _show_calls(self, summary: Summary) -> None:
        calls, name = summary.calls, summary.window.name
        title = f"{summary.duplicates:,} duplicates stopped in {name}"
        self.stdout.write(self.style.SUCCESS(title))
        if not is_on():
            self.stdout.write(self.style.WARNING("IDEMPOTENCY_STATISTICS counts nothing."))
        self.stdout.write(
            f"of {sum(calls.values()):,} calls; {duration(summary.saved)} of work was not repeated"
        )
        facts = [
            *calls.items(),
            *([("taken_over", summary.taken_over)] if summary.taken_over else []),
        ]
        self._table("", ("Outcome", "Calls"), [(_words(outcome), n) for outcome, n in facts])
        self._table(
            "Operations",
            ("Operation", "Calls", "Duplicates", "Mean", "Saved"),
            [
                (
                    one.name,
                    sum(one.counts.values()),
                    one.duplicates,
                    duration(one.mean),
                    duration(one.saved),
                )
                for one in summary.operations
            ],
        )
        self._table(
            "Callers with the most duplicates",
            ("Scope", "Duplicates"),
            [(caller.scope, caller.duplicates) for caller in summary.callers],
        )
        self._table(
            "Keys repeated the most",
            ("Operation", "Record", "Duplicates"),
            [(key.operation, str(key.record_id), key.duplicates) for key in summary.keys],
        )

    def _show_locks(
        self, summary: Summary, held: Sequence[HeldLocks], blocked: Sequence[RowLocks]
    ) -> None:
        for one in held:
            self._failure(f"Locks in {one.alias!r}", one.failure)
            self._table(
                f"Locks held now in {one.alias!r}",
                ("Name", "Token", "Held for", "Left", "Waiters"),
                [
                    (
                        lock.name,
                        str(lock.token),
                        duration(lock.held_for),
                        duration(lock.left),
                        lock.waiters,
                    )
                    for lock in one.locks
                ],
            )
        self._table(
            "Locks",
            ("Template", "Taken", "Waited", "Turned away", "Lost", "Mean wait", "Mean held"),
            [
                (
                    lock.template,
                    *(lock.counts.get(outcome, 0) for outcome in _OF_LOCKS),
                    duration(lock.mean_wait),
                    duration(lock.mean_held),
                )
                for lock in summary.locks
            ],
        )
        for database in blocked:
            self._failure(f"Row locks in {database.database!r}", database.failure)
            self._table(
                f"Waiting for row locks in {database.database!r}",
                ("Statement", "Session", "Blocked by", "For"),
                [
                    (
                        lock.statement,
                        str(lock.session),
                        ", ".join(map(str, lock.blocked_by)),
                        duration(lock.waits_for),
                    )
                    for lock in database.locks
                ],
            )

    def _show_rest(self, summary: Summary) -> None:
        self._table(
            "Guarded rows",
            ("Model or transition", "Moved", "Repeated", "Conflicts", "Stale"),
            [
                (row.name, *(row.counts.get(outcome, 0) for outcome in _OF_ROWS))
                for row in summary.rows
            ],
        )
        self._table(
            "Stuck: somebody should look",
            ("Operation", "Record", "State", "For"),
            [
                (
                    one.operation,
                    str(one.record_id),
                    _words(one.state),
                    duration(summary.until - one.since),
                )
                for one in summary.stuck
            ],
        )

    def _table(self, title: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        if not rows:
            return
        self.stdout.write("")
        if title:
            self.stdout.write(self.style.MIGRATE_HEADING(title))
        heading, *lines = columns(head, rows)
        self.stdout.write(self.style.MIGRATE_LABEL(heading))
        for line in lines:
            self.stdout.write(line)

    def _failure(self, what: str, failure: str) -> None:
        if failure:
            self.stdout.write("")
            self.stdout.write(self.style.ERROR(f"{what} are not known: {failure}"))


_OF_LOCKS = ("taken", "waited", "turned_away", "lost")
_OF_ROWS = ("moved", "repeated", "conflict", "stale")


def _words(outcome: str) -> str:
    return outcome.replace("_", " ")
