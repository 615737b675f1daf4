"""What was counted, added to the rows that all processes share."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any
from uuid import UUID

from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Count

from ..keys import record_id
from ..models import CallLog, Statistic
from ..signals import CallEvent
from .counting import Batch, Counted, Tally
from .instants import moment

ROWS = 100
"""Rows of one statement: SQLite takes at most 999 parameters in some of its builds."""

_COLUMNS = (
    "id",
    "starts_at",
    "length",
    "kind",
    "name",
    "outcome",
    "count",
    "seconds",
    "longest",
)


def write(batch: Batch, using: str, calls_per_record: int) -> None:
    """Add *batch* to the database *using*, all of it or nothing."""
    with transaction.atomic(using=using):
        add(batch.tallies, using)
        log(batch.calls, using, calls_per_record)


def add(tallies: Mapping[Counted, Tally], using: str) -> None:
    """Add *tallies* to the rows of what was counted."""
    connection = connections[using]
    # In one order everywhere, so that two processes wait for each other and do not deadlock.
    rows = sorted((_row_id(counted), counted, tally) for counted, tally in tallies.items())
    for some in _in_parts(rows):
        marks = ", ".join([f"({', '.join(['%s'] * len(_COLUMNS))})"] * len(some))
        values = [value for row in some for value in _values(connection, *row)]
        with connection.cursor() as cursor:
            cursor.execute(_insert(connection).format(marks), values)


def log(calls: Iterable[CallEvent], using: str, most: int) -> None:
    """Log *calls* of records that have fewer than *most* entries."""
    known = [(call.record_id, call) for call in calls if call.record_id is not None]
    logged = Counter(_logged([record for record, _ in known], using))
    entries = []
    for record, call in known:
        if logged[record] < most:
            logged[record] += 1
            entries.append(_entry(record, call))
    CallLog.objects.using(using).bulk_create(entries, batch_size=ROWS)


def _logged(records: Iterable[UUID], using: str) -> dict[UUID, int]:
    counts: dict[UUID, int] = {}
    for some in _in_parts([*dict.fromkeys(records)]):
        entries = CallLog.objects.using(using).filter(record_id__in=some).order_by()
        counts.update(entries.values_list("record_id").annotate(Count("pk")))
    return counts


def _entry(record: UUID, call: CallEvent) -> CallLog:
    return CallLog(
        record_id=record,
        scope=call.scope,
        operation=call.operation,
        outcome=call.outcome,
        status=call.status,
        seconds=call.seconds,
        request_id=call.request_id,
        worker=worker(),
        differences=None if call.differences is None else list(call.differences),
        at=moment(call.at),
    )


def worker() -> str:
    """Give the name of this process: host and number."""
    return f"{_host()}:{os.getpid()}"


@cache
def _host() -> str:
    return socket.gethostname()[:64]


def _row_id(counted: Counted) -> UUID:
    starts_at, length, kind, name, outcome = counted
    return record_id(f"{length} {kind} {outcome}", name, str(starts_at))


def _values(
    connection: BaseDatabaseWrapper, row: UUID, counted: Counted, tally: Tally
) -> list[Any]:
    starts_at, length, kind, name, outcome = counted
    return [
        Statistic._meta.pk.get_db_prep_value(row, connection),
        connection.ops.adapt_datetimefield_value(moment(starts_at)),
        length,
        kind,
        name,
        outcome,
        tally.count,
        tally.seconds,
        tally.longest,
    ]


def _insert(connection: BaseDatabaseWrapper) -> str:
    """Give the statement that inserts rows, at a pair of braces, or adds to those there are."""
    quote = connection.ops.quote_name
    table = quote(Statistic._meta.db_table)
    if connection.vendor == "mysql":
        new, old, on_conflict, greater = "VALUES({})", "{}", "ON DUPLICATE KEY UPDATE", "GREATEST"
    else:
        new, old, on_conflict = "excluded.{}", f"{table}.{{}}", "ON CONFLICT (id) DO UPDATE SET"
        greater = "MAX" if connection.vendor == "sqlite" else "GREATEST"
    count, seconds, longest = (
        (quote(name), old.format(quote(name)), new.format(quote(name)))
        for name in ("count", "seconds", "longest")
    )
    return (
        f"INSERT INTO {table} ({', '.join(map(quote, _COLUMNS))}) VALUES {{}} {on_conflict}"
        f" {count[0]} = {count[1]} + {count[2]}, {seconds[0]} = {seconds[1]} + {seconds[2]},"
        f" {longest[0]} = {greater}({longest[1]}, {longest[2]})"
    )


def _in_parts(rows: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(rows), ROWS):
        yield rows[start : start + ROWS]
