"""Claims that nobody renews, and outcomes that nobody knows: somebody should look."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from uuid import UUID

from django.db import connections
from django.db.models import F, QuerySet
from django.db.models.functions import Coalesce

from ..conf import settings
from ..exceptions import InvalidBackend
from ..models import IdempotencyRecord
from ..stores import get_store
from ..stores.dialects import clock
from ..stores.sql import NEVER
from .figures import Stuck
from .instants import moment

Records = QuerySet[IdempotencyRecord]

NEWEST = 100_000
"""Among how many records those are looked for that have no index; they end within days."""

MOST = 20


def stuck() -> list[Stuck]:
    """Give what is stuck in the databases of all stores, the oldest first of at most 20 each."""
    found = [one for using in record_databases() for one in _stuck_in(using)]
    return sorted(found, key=lambda one: one.since)


def record_databases() -> list[str]:
    """Give the aliases of the databases that have records."""
    found = set()
    for alias in settings.STORES:
        with suppress(InvalidBackend):  # The system checks tell, and each call.
            found.add(get_store(alias).using)
    return sorted(using for using in found if using is not None)


def keys_of(record_ids: Collection[UUID]) -> dict[UUID, str]:
    """Give the keys of those of *record_ids* whose records are still there."""
    found: dict[UUID, str] = {}
    for using in record_databases() if record_ids else ():
        records = IdempotencyRecord.objects.using(using).filter(pk__in=record_ids)
        found.update(records.values_list("pk", "key"))
    return found


def unknown(records: Records) -> Records:
    """Give those of *records* whose outcome nobody knows; the index of `purge_after` has them."""
    return records.filter(purge_after__gte=moment(NEVER.timestamp()), state="unknown")


def newest(records: Records, count: int = NEWEST) -> Records:
    """Give those of *records* that are among the *count* newest, by the index of `purge_after`."""
    of_all = IdempotencyRecord.objects.using(records.db).order_by("-purge_after")
    last = of_all.values_list("purge_after", flat=True)[count - 1 : count].first()
    return records if last is None else records.filter(purge_after__gte=last)


def abandoned(records: Records) -> Records:
    """Give those of the newest *records* whose lease is over."""
    now = clock(connections[records.db])
    return newest(records).filter(state="in_progress", ends_at__lte=now)


def _stuck_in(using: str) -> Iterator[Stuck]:
    records = IdempotencyRecord.objects.using(using).order_by("-purge_after")
    for some in (unknown(records), abandoned(records)):
        rows = some.annotate(since=Coalesce(F("ends_at"), F("completed_at"), F("created_at")))
        yield from (
            Stuck(*row)
            for row in rows.values_list("pk", "state", "operation", "scope", "since")[:MOST]
        )
