"""Old minutes summed up to hours, old hours to days; what is older still is deleted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial

from django.db import connections
from django.db.models import F, Q, QuerySet

from ..models import CallLog, Statistic
from ..retries import is_undone, run_again
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

ATTEMPTS = 5
"""How often one stretch is tried: others may write its rows at the same time."""


def roll_up(using: str) -> Iterator[int]:
    """
    Sum up what is old, and give after each transaction how many rows it took away.

    It may be stopped at any point, or run twice at once: each row is added to another in the
    transaction that deletes it.
    """
    for length, into, kept in ((MINUTE, HOUR, MINUTES_KEPT), (HOUR, DAY, HOURS_KEPT)):
        while (oldest := _oldest(using, length, kept, into)) is not None:
            yield run_again(
                partial(_sum_up, using, length, into, oldest),
                may_retry=is_undone,
                attempts=ATTEMPTS,
                using=using,
            )


def outdated(using: str) -> list[QuerySet[Statistic] | QuerySet[CallLog]]:
    """Give the rows that are too old to be shown."""
    now = clock(connections[using])
    return [
        Statistic.objects.using(using).filter(starts_at__lt=now - timedelta(seconds=DAYS_KEPT)),
        CallLog.objects.using(using).filter(at__lt=now - timedelta(seconds=CALLS_KEPT)),
    ]


def _oldest(using: str, length: int, kept: int, into: int) -> datetime | None:
    """Give the oldest instant of which there are rows to sum up."""
    until = clock(connections[using]) - timedelta(seconds=kept + into)
    old = Statistic.objects.using(using).filter(length=length, starts_at__lt=until)
    return old.order_by("starts_at").values_list("starts_at", flat=True).first()


def _sum_up(using: str, length: int, into: int, oldest: datetime) -> int:
    """Add up the stretch of *into* seconds around *oldest*, in the transaction that is open."""
    first = int(seconds_of(oldest)) // into * into
    # Where instants are kept as local times, an hour that comes twice looks empty.
    within = Q(starts_at__gte=moment(first), starts_at__lt=moment(first + into))
    rows = Statistic.objects.using(using).filter(within | Q(starts_at=oldest), length=length)
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
        return list(rows.order_by("pk").select_for_update())  # As those who add to them.
    rows.update(length=F("length"))  # Takes the one lock of a SQLite file.
    return list(rows)
