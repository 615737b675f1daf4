"""Deletes idempotency records whose retention is over, locks long left, and old statistics."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from django.core.management.base import BaseCommand, CommandError
from django.db import connections
from django.db.models import Model

from ...models import IdempotencyRecord, LockLease, Statistic
from ...purge import (
    GRACE,
    lock_and_record_databases,
    purge,
    purge_locks,
    purge_statistics,
    purgeable,
    purgeable_locks,
    statistics_database,
)
from ...statistics.rolling import outdated
from ..progress import Progress


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise ArgumentTypeError(f"{text!r} is no number above 0.")
    return int(text)


class Kept(NamedTuple):
    """In which databases there is something to clear."""

    records: list[str]
    locks: list[str]
    statistics: list[str]


def _where_kept(only: str | None) -> Kept:
    if only is not None and only not in connections:
        raise CommandError(f"There is no database {only!r} in DATABASES.")
    records = lock_and_record_databases() if only is None else [only]
    statistics = [using for using in (only, statistics_database()) if using is not None][:1]
    return Kept(
        [using for using in records if _has(using, IdempotencyRecord)],
        [using for using in records if _has(using, LockLease)],
        [using for using in statistics if _has(using, Statistic)],
    )


def _has(using: str, model: type[Model]) -> bool:
    return model._meta.db_table in connections[using].introspection.table_names()


def _all(
    clear: Callable[..., Iterator[int]], databases: Sequence[str], batch_size: int
) -> Iterator[int]:
    for using in databases:
        yield from clear(using, batch_size=batch_size)


class Command(BaseCommand):
    help = (
        "Delete idempotency records whose retention is over, locks that nobody has held for a day,"
        " and sum up old statistics. Safe to run while calls are served, twice at once, and to"
        " stop at any point."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--database", help="only in the database with this alias")
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
        kept = _where_kept(options["database"])
        if not any(kept):
            raise CommandError("No table of this app is there. Has `manage.py migrate` been run?")
        grace, batch_size = options["grace"], options["batch_size"]
        total = sum(purgeable(using, grace).count() for using in kept.records)
        if options["dry_run"]:
            self._tell_plan(kept, total)
            return
        progress = Progress(self.stderr, total)
        deleted = 0
        try:
            for using in kept.records:
                for size in purge(using, batch_size=batch_size, grace=grace):
                    deleted += size
                    progress.show(deleted)
            locks = sum(_all(purge_locks, kept.locks, batch_size))
            old = sum(_all(purge_statistics, kept.statistics, batch_size))
        except KeyboardInterrupt:
            progress.end()
            self.stdout.write(f"Stopped: {deleted} of {total} records deleted.")
            return
        progress.end()
        self.stdout.write(self.style.SUCCESS(f"{deleted} records deleted."))
        self._tell_locks(locks, "deleted")
        self._tell_old(old, "summed up or deleted")

    def _tell_plan(self, kept: Kept, total: int) -> None:
        self.stdout.write(f"{total} records would be deleted.")
        locks = sum(purgeable_locks(using).count() for using in kept.locks)
        self._tell_locks(locks, "would be deleted")
        old = sum(rows.count() for using in kept.statistics for rows in outdated(using))
        self._tell_old(old, "would be deleted")

    def _tell_locks(self, count: int, what: str) -> None:
        if count:
            self.stdout.write(f"{count} locks {what}, which nobody has held for a day.")

    def _tell_old(self, count: int, what: str) -> None:
        if count:
            self.stdout.write(f"{count} rows of old statistics {what}.")
