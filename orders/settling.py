"""The nightly settlement: all money that moved until the end of a day, once."""

from __future__ import annotations

import datetime as dt

from django.db import models, transaction
from django.db.models import Sum
from django.utils import timezone

from idempotency.locks import LiveLock, get_backend

from .ledger import Payment, Refund, Settlement

LOCK = "settlement"


def yesterday() -> dt.date:
    return timezone.localdate() - dt.timedelta(days=1)


def settle(day: dt.date) -> tuple[Settlement, bool]:
    """
    Give the settlement of *day*, and whether this call made it.

    It takes what no earlier one has: also what was late for it, or of nights without a run. The
    database decides that; the lock `LOCK` around it only saves a second run the work.
    """
    with transaction.atomic():
        settlement, created = Settlement.objects.get_or_create(day=day)
        if created:
            midnight = dt.datetime.combine(day + dt.timedelta(days=1), dt.time.min)
            end = timezone.make_aware(midnight)
            # Taken first and summed up after that: what is paid meanwhile is in both or in none.
            for kind in (Payment, Refund):
                kind.objects.filter(settlement=None, created_at__lt=end).update(
                    settlement=settlement
                )
            settlement.total = _sum(settlement.payments) - _sum(settlement.refunds)
            settlement.save(update_fields=["total"])
    return settlement, created


def _sum(movements: models.Manager[Payment] | models.Manager[Refund]) -> int:
    total: int = movements.aggregate(sum=Sum("amount", default=0))["sum"]
    return total


def running() -> LiveLock | None:
    """Give who settles right now."""
    return next((live for live in get_backend().live() if live.name == LOCK), None)
