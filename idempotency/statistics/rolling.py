"""Old minutes summed up to hours, old hours to days; what is older still is deleted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import timedelta

from django.db import connections, transaction
from django.db.models import F, QuerySet

from ..models import CallLog, Statistic
from ..stores.dialects import clock
from .counting import MINUTE, Counted, Tally
from .instants import moment, seconds_of
from .writing import PARAMETERS, add, in_parts

HOUR = 3_600
DAY = 86_400

MINUTES_KEPT = 3 * HOUR
HOURS_KEPT = 35 * DAY
DAYS_KEPT = 400 * DAY
CALLS_KEPT = 35 * DAY
"""Seconds after which each is summed up or deleted; the longest window is shown in full."""


def roll_up(using: str) -> Iterator[int]:
    """
    Sum up what is old, and give after each transaction how many rows it took away.

    It may be stopped at any point, or run twice at once: each row is added to another in the
    transaction that deletes it.
    """
    for length, into, kept in ((MINUTE, HOUR, MINUTES_KEPT), (HOUR, DAY, HOURS_KEPT)):
        while (first := _oldest(using, length, kept, into)) is not None:
            yield _sum_up(using, length, into, first)


def outdated(using: str) -> list[QuerySet[Statistic] | QuerySet[CallLog]]:
    """Give the rows that are too old to be shown."""
    now = clock(connections[using])
    return [
        Statistic.objects.using(using).filter(starts_at__lt=now - timedelta(seconds=DAYS_KEPT)),
        CallLog.objects.using(using).filter(at__lt=now - timedelta(seconds=CALLS_KEPT)),
    ]


def _oldest(using: str, length: int, kept: int, into: int) -> int | None:
    """Give when the oldest stretch of *into* seconds begins that has rows to sum up."""
    until = clock(connections[using]) - timedelta(seconds=kept + into)
    old = Statistic.objects.using(using).filter(length=length, starts_at__lt=until)
    found = old.order_by("starts_at").values_list("starts_at", flat=True).first()
    return None if found is None else int(seconds_of(found)) // into * into


def _sum_up(using: str, length: int, into: int, first: int) -> int:
    rows = Statistic.objects.using(using).filter(
        length=length, starts_at__gte=moment(first), starts_at__lt=moment(first + into)
    )
    with transaction.atomic(using=using):
        sums: dict[Counted, Tally] = defaultdict(Tally)
        read = _locked(rows)
        for row in read:
            counted = Counted(first, into, row.kind, row.name, row.outcome)
            sums[counted].add(Tally(row.count, row.seconds, row.longest))
        add(sums, using)
        for some in in_parts([row.pk for row in read], PARAMETERS):
            Statistic.objects.using(using).filter(pk__in=some).delete()
    return len(read)


def _locked(rows: QuerySet[Statistic]) -> list[Statistic]:
    """Read *rows* so that nobody else reads or changes them until the transaction ends."""
    if connections[rows.db].features.has_select_for_update:
        return list(rows.select_for_update())
    rows.update(length=F("length"))  # Takes the one lock of a SQLite file.
    return list(rows)
