"""The numbers of one window, read in a few statements however much there is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.db import connections
from django.db.models import Count, Max, QuerySet, Sum

from ..models import CallLog, Statistic
from ..stores.dialects import clock
from .counting import Tally
from .figures import (
    DUPLICATES,
    Bar,
    CallerFigures,
    KeyFigures,
    LockFigures,
    OperationFigures,
    RowFigures,
    Summary,
    Window,
)
from .flushing import options
from .instants import moment, seconds_of
from .stuck import stuck

MOST = 10
"""How many operations, callers, keys, templates and models are shown."""

LOGGED = 50_000
"""Among how many log entries the callers and keys with the most duplicates are looked for."""

Tallies = dict[str, dict[str, Tally]]
"""What was counted, by name and by outcome."""


def summarize(window: Window, *, using: str | None = None) -> Summary:
    """
    Give what happened in *window*, up to now by the clock of the database.

    It begins with its first whole bar, so that its numbers are the sums of its bars.
    """
    using = using or options()["USING"]
    until = clock(connections[using])
    starts = _starts(window, until)
    since = moment(starts[0])
    found = _tallies(Statistic.objects.using(using).filter(starts_at__gte=since))
    logged = _newest(CallLog.objects.using(using)).filter(at__gte=since, outcome__in=DUPLICATES)
    operations = [_operation(name, tallies) for name, tallies in found["call"].items()]
    calls = _totals(found["call"])
    taken_over = calls.pop("taken_over", 0)
    return Summary(
        window=window,
        until=until,
        calls=calls,
        taken_over=taken_over,
        duplicates=sum(operation.duplicates for operation in operations),
        saved=sum(operation.saved for operation in operations),
        bars=_bars(Statistic.objects.using(using).filter(starts_at__gte=since), window, starts),
        operations=sorted(operations, key=_by_duplicates)[:MOST],
        callers=_callers(logged),
        keys=_keys(logged),
        locks=sorted(map(_lock, *_split(found["lock"])), key=_by_use)[:MOST],
        rows=sorted(map(_row, *_split(found["row"])), key=_by_refusals)[:MOST],
        stuck=stuck(),
    )


def _starts(window: Window, until: datetime) -> list[int]:
    """Give when each bar begins, in seconds since 1970."""
    last = int(seconds_of(until)) // window.step * window.step
    count = window.length // window.step
    return [last - window.step * number for number in reversed(range(count))]


def _tallies(rows: QuerySet[Statistic]) -> dict[str, Tallies]:
    found: dict[str, Tallies] = defaultdict(lambda: defaultdict(dict))
    sums = rows.order_by().values_list("kind", "name", "outcome")
    for kind, name, outcome, *sizes in sums.annotate(Sum("count"), Sum("seconds"), Max("longest")):
        found[kind][name][outcome] = Tally(*map(_number, sizes))
    return found


def _number(value: Any) -> Any:
    return int(value) if hasattr(value, "as_tuple") else value  # MariaDB sums up to a Decimal.


def _totals(tallies: Tallies) -> dict[str, int]:
    totals: dict[str, int] = defaultdict(int)
    for outcomes in tallies.values():
        for outcome, tally in outcomes.items():
            totals[outcome] += tally.count
    return dict(totals)


def _bars(rows: QuerySet[Statistic], window: Window, starts: list[int]) -> list[Bar]:
    counts: dict[int, dict[str, int]] = {start: {} for start in starts}
    duplicates = rows.filter(kind="call", outcome__in=DUPLICATES).order_by()
    sums = duplicates.values_list("starts_at", "outcome").annotate(Sum("count"))
    for starts_at, outcome, count in sums:
        start = int(seconds_of(starts_at)) // window.step * window.step
        bar = counts.get(start, counts[starts[-1]])  # A clock ahead of the database's.
        bar[outcome] = bar.get(outcome, 0) + _number(count)
    return [Bar(moment(start), bar) for start, bar in counts.items()]


def _operation(name: str, tallies: dict[str, Tally]) -> OperationFigures:
    counts = _counts(tallies)
    executed = tallies.get("executed", Tally())
    mean = executed.seconds / executed.count if executed.count else None
    return OperationFigures(
        name=name,
        counts=counts,
        duplicates=sum(counts.get(outcome, 0) for outcome in DUPLICATES),
        mean=mean,
        saved=counts.get("replayed", 0) * (mean or 0.0),
    )


def _lock(template: str, tallies: dict[str, Tally]) -> LockFigures:
    waits = _sum(tallies, "taken", "waited", "turned_away")
    holds = _sum(tallies, "released", "lost")
    return LockFigures(
        template=template,
        counts=_counts(tallies),
        mean_wait=_mean(waits),
        longest_wait=waits.longest if waits.count else None,
        mean_held=_mean(holds),
        longest_held=holds.longest if holds.count else None,
    )


def _row(name: str, tallies: dict[str, Tally]) -> RowFigures:
    return RowFigures(name, _counts(tallies))


def _counts(tallies: dict[str, Tally]) -> dict[str, int]:
    return {outcome: tally.count for outcome, tally in sorted(tallies.items())}


def _sum(tallies: dict[str, Tally], *outcomes: str) -> Tally:
    total = Tally()
    for outcome in outcomes:
        total.add(tallies.get(outcome, Tally()))
    return total


def _mean(tally: Tally) -> float | None:
    return tally.seconds / tally.count if tally.count else None


def _split(tallies: Tallies) -> tuple[Iterable[str], Iterable[dict[str, Tally]]]:
    return tallies.keys(), tallies.values()


def _by_duplicates(operation: OperationFigures) -> tuple[int, int, str]:
    return -operation.duplicates, -sum(operation.counts.values()), operation.name


def _by_use(lock: LockFigures) -> tuple[int, str]:
    return -sum(lock.counts.values()), lock.template


def _by_refusals(row: RowFigures) -> tuple[int, str]:
    return row.counts.get("moved", 0) - sum(row.counts.values()), row.name


def _newest(calls: QuerySet[CallLog]) -> QuerySet[CallLog]:
    """Give the newest entries, as many as can be counted while a person waits."""
    last = calls.aggregate(last=Max("pk"))["last"] or 0
    return calls.filter(pk__gt=last - LOGGED).order_by()


def _callers(calls: QuerySet[CallLog]) -> list[CallerFigures]:
    counted = calls.values_list("scope").annotate(count=Count("pk"))
    return [CallerFigures(*row) for row in counted.order_by("-count", "scope")[:MOST]]


def _keys(calls: QuerySet[CallLog]) -> list[KeyFigures]:
    counted = calls.values("record_id").annotate(count=Count("pk"), last=Max("pk"))
    found = {row["last"]: row["count"] for row in counted.order_by("-count", "-last")[:MOST]}
    latest = calls.model._base_manager.using(calls.db).in_bulk(found)
    return [
        KeyFigures(entry.record_id, entry.operation, entry.scope, found[key], entry.at)
        for key, entry in ((key, latest[key]) for key in found)
    ]
