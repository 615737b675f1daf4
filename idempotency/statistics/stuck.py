"""Claims that nobody renews, and outcomes that nobody knows: somebody should look."""

from __future__ import annotations

from collections.abc import Iterator

from django.db import connections
from django.db.models import F, QuerySet
from django.db.models.functions import Coalesce

from ..conf import settings
from ..models import IdempotencyRecord
from ..stores import get_store
from ..stores.dialects import clock
from ..stores.sql import NEVER
from .figures import Stuck
from .instants import moment

NEWEST = 100_000
"""Among how many records those are looked for that have no index; they end within days."""

MOST = 20


def stuck() -> list[Stuck]:
    """Give what is stuck in the databases of all stores, the oldest first of at most 20 each."""
    found = [one for using in record_databases() for one in _stuck_in(using)]
    return sorted(found, key=lambda one: one.since)


def record_databases() -> list[str]:
    """Give the aliases of the databases that have records."""
    stores = [get_store(alias) for alias in settings.STORES]
    return sorted({store.using for store in stores if store.using is not None})


def unknown(using: str) -> QuerySet[IdempotencyRecord]:
    """Give the records whose outcome nobody knows; the index of `purge_after` has them."""
    never = moment(NEVER.timestamp())
    return IdempotencyRecord.objects.using(using).filter(purge_after__gte=never, state="unknown")


def newest(using: str, count: int = NEWEST) -> QuerySet[IdempotencyRecord]:
    """Give the *count* newest records, as far as one can say by the index of `purge_after`."""
    records = IdempotencyRecord.objects.using(using).order_by("-purge_after")
    last = records.values_list("purge_after", flat=True)[count - 1 : count].first()
    return records if last is None else records.filter(purge_after__gte=last)


def abandoned(using: str) -> QuerySet[IdempotencyRecord]:
    """Give the claims among the newest records whose lease is over."""
    now = clock(connections[using])
    return newest(using).filter(state="in_progress", ends_at__lte=now)


def _stuck_in(using: str) -> Iterator[Stuck]:
    for records in (unknown(using), abandoned(using)):
        rows = records.annotate(since=Coalesce(F("ends_at"), F("completed_at"), F("created_at")))
        yield from (
            Stuck(*row)
            for row in rows.values_list("pk", "state", "operation", "scope", "since")[:MOST]
        )
