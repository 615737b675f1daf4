"""Deletes idempotency records whose retention is over, locks long left, and old statistics."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections

from ...purge import (
    GRACE,
    purge,
    purge_locks,
    purge_statistics,
    purgeable,
    purgeable_locks,
)
from ...statistics.rolling import outdated
from ..progress import Progress


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise ArgumentTypeError(f"{text!r} is no number above 0.")
    return int(text)


class Command(BaseCommand):
    help = (
        "Delete idempotency records whose retention is over, locks that nobody has held for a day,"
        " and sum up old statistics. Safe to run while calls are served, twice at once, and to"
        " stop at any point."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--database", default=DEFAULT_DB_ALIAS, help="alias of the database")
        parser.add_argument(
            "--batch-size", type=positive, default=1_000, help="rows in one transaction"
        )
        parser.add_argument(
            "--grace",
            type=positive,
            default=GRACE,
            help="seconds after the end of its lease for which an abandoned claim is kept",
        )
        parser.add_argument("--dry-run", action="store_true", help="only count")

    def handle(self, *args: Any, **options: Any) -> None:
        using, grace = options["database"], options["grace"]
        if using not in connections:
            raise CommandError(f"There is no database {using!r} in DATABASES.")
        try:
            total = purgeable(using, grace).count()
        except DatabaseError as error:
            raise CommandError(f"{error} Is this the --database of the records?") from error
        if options["dry_run"]:
            self.stdout.write(f"{total} records would be deleted.")
            self._tell_locks(purgeable_locks(using).count(), "would be deleted")
            self._tell_old(sum(rows.count() for rows in outdated(using)), "would be deleted")
            return
        progress = Progress(self.stderr, total)
        deleted = 0
        try:
            for size in purge(using, batch_size=options["batch_size"], grace=grace):
                deleted += size
                progress.show(deleted)
            locks = sum(purge_locks(using, batch_size=options["batch_size"]))
            old = sum(purge_statistics(using, batch_size=options["batch_size"]))
        except KeyboardInterrupt:
            progress.end()
            self.stdout.write(f"Stopped: {deleted} of {total} records deleted.")
            return
        progress.end()
        self.stdout.write(self.style.SUCCESS(f"{deleted} records deleted."))
        self._tell_locks(locks, "deleted")
        self._tell_old(old, "summed up or deleted")

    def _tell_locks(self, count: int, what: str) -> None:
        if count:
            self.stdout.write(f"{count} locks {what}, which nobody has held for a day.")

    def _tell_old(self, count: int, what: str) -> None:
        if count:
            self.stdout.write(f"{count} rows of old statistics {what}.")
