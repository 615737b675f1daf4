"""Deletes what is over, a bounded number at a time: records, locks long left, old statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any

from django.db import connections, transaction
from django.db.models import Q, QuerySet

from .conf import settings
from .exceptions import InvalidBackend
from .locks.aliases import get_backend
from .locks.database import DatabaseLockBackend
from .models import IdempotencyRecord, LockLease
from .statistics.flushing import options
from .statistics.rolling import outdated, roll_up
from .statistics.stuck import record_databases
from .stores.dialects import clock

GRACE = 86_400
"""Seconds after the end of a lease for which a claim that nobody completed is kept."""


def lock_and_record_databases() -> list[str]:
    """Give the aliases of the databases that have records or locks."""
    found = set(record_databases())
    for alias in settings.LOCKS:
        with suppress(InvalidBackend):  # The system checks tell, and each lock.
            backend = get_backend(alias)
            if isinstance(backend, DatabaseLockBackend):
                found.add(backend.using)
    return sorted(using for using in found if using in connections)


def statistics_database() -> str:
    """Give the alias of the database that has the statistics."""
    using: str = options()["USING"]
    return using


def purgeable(using: str, grace: float = GRACE) -> QuerySet[IdempotencyRecord]:
    """
    Give the records that may be deleted: those whose retention is over by the database's clock.

    Never a live claim, nor an unknown outcome; an abandoned claim once *grace* seconds have passed.
    """
    now = clock(connections[using])
    return IdempotencyRecord.objects.using(using).filter(
        Q(state__in=("completed", "released"), expires_at__lte=now)
        | Q(state="in_progress", ends_at__lte=now - timedelta(seconds=grace)),
        purge_after__lte=now,
    )


def purgeable_locks(using: str) -> QuerySet[LockLease]:
    """Give the locks that nobody has held for a day, so that tokens go on growing by the clock."""
    now = clock(connections[using])
    return LockLease.objects.using(using).filter(ends_at__lte=now - timedelta(seconds=GRACE))


def purge(using: str, *, batch_size: int = 1_000, grace: float = GRACE) -> Iterator[int]:
    """
    Delete all `purgeable` records, and give the size of each batch when it is committed.

    Walks the index of `purge_after`, skips rows that somebody has locked, and may be stopped at
    any point or run twice at once.
    """
    return _purge(using, lambda: purgeable(using, grace).order_by("purge_after"), batch_size)


def purge_locks(using: str, *, batch_size: int = 1_000) -> Iterator[int]:
    """Do what `purge` does, for the `purgeable_locks`; there is no index, and few of them."""
    return _purge(using, lambda: purgeable_locks(using), batch_size)


def purge_statistics(using: str, *, batch_size: int = 1_000) -> Iterator[int]:
    """Sum up old statistics, and delete those and the log entries that are older still."""
    yield from roll_up(using)
    for rows in outdated(using):
        yield from _purge(using, partial(_same, rows), batch_size)


def _same(rows: QuerySet[Any]) -> QuerySet[Any]:
    return rows.all()  # A queryset keeps what it has read once.


def _purge(using: str, find: Callable[[], QuerySet[Any]], batch_size: int) -> Iterator[int]:
    batch_size = min(batch_size, connections[using].features.max_query_params or batch_size)
    deleted = batch_size
    while deleted == batch_size:
        deleted = _delete_batch(using, find(), batch_size)
        yield deleted


def _delete_batch(using: str, rows: QuerySet[Any], batch_size: int) -> int:
    features = connections[using].features
    with transaction.atomic(using=using):
        if features.has_select_for_update:
            rows = rows.select_for_update(skip_locked=features.has_select_for_update_skip_locked)
        ids: Any = rows.values("pk")[:batch_size]
        if not features.allow_sliced_subqueries_with_in:
            ids = list(ids.values_list("pk", flat=True))
        deleted: int
        deleted, _ = rows.model._base_manager.using(using).filter(pk__in=ids).delete()
        return deleted
