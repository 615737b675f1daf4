"""What was counted, added to the rows that all processes share."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any
from uuid import UUID

from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Count, Model

from ..keys import record_id
from ..models import CallLog, Statistic
from ..signals import CallEvent
from .counting import Batch, Counted, Tally
from .instants import moment

PARAMETERS = 999
"""Values of one statement: SQLite takes no more in some of its builds."""

_STATISTIC = (
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
_CALL = (
    "record_id",
    "scope",
    "operation",
    "outcome",
    "status",
    "seconds",
    "request_id",
    "worker",
    "differences",
    "by",
    "note",
    "at",
)


def write(batch: Batch, using: str, calls_per_record: int) -> None:
    """Add *batch* to the database *using*, all of it or nothing."""
    with transaction.atomic(using=using, durable=True):
        add(batch.tallies, using)
        log(batch.calls, using, calls_per_record)


def add(tallies: Mapping[Counted, Tally], using: str) -> None:
    """Add *tallies* to the rows of what was counted."""
    # In one order everywhere, so that two processes wait for each other and do not deadlock.
    rows = sorted((_row_id(counted), counted, tally) for counted, tally in tallies.items())
    connection = connections[using]
    _insert(connection, Statistic, _STATISTIC, [_row(*row) for row in rows], _or_add(connection))


def log(calls: Iterable[CallEvent], using: str, most: int) -> None:
    """Log *calls* of records that have fewer than *most* entries."""
    known = [(call.record_id, call) for call in calls if call.record_id is not None]
    logged = Counter(_logged([record for record, _ in known], using))
    rows = []
    for record, call in known:
        if logged[record] < most:
            logged[record] += 1
            rows.append(_entry(record, call))
    _insert(connections[using], CallLog, _CALL, rows)


def _logged(records: Iterable[UUID], using: str) -> dict[UUID, int]:
    counts: dict[UUID, int] = {}
    for some in in_parts([*dict.fromkeys(records)], PARAMETERS):
        entries = CallLog.objects.using(using).filter(record_id__in=some).order_by()
        counts.update(entries.values_list("record_id").annotate(Count("pk")))
    return counts


def _entry(record: UUID, call: CallEvent) -> tuple[Any, ...]:
    """Give the values of `_CALL`."""
    return (
        record,
        call.scope,
        call.operation,
        call.outcome,
        call.status,
        call.seconds,
        call.request_id,
        worker(),
        None if call.differences is None else list(call.differences),
        "",
        "",
        moment(call.at),
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


def _row(row: UUID, counted: Counted, tally: Tally) -> tuple[Any, ...]:
    """Give the values of `_STATISTIC`."""
    starts_at, *counted_values = counted
    return (row, moment(starts_at), *counted_values, tally.count, tally.seconds, tally.longest)


def _insert(
    connection: BaseDatabaseWrapper,
    model: type[Model],
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    or_else: str = "",
) -> None:
    """Insert *rows*; `bulk_create` takes five times as long, beside requests to be answered."""
    quote = connection.ops.quote_name
    fields: list[Any] = [model._meta.get_field(column) for column in columns]
    into = f"INSERT INTO {quote(model._meta.db_table)} ({', '.join(map(quote, columns))})"
    mark = f"({', '.join(['%s'] * len(columns))})"
    for some in in_parts(rows, PARAMETERS // len(columns)):
        values = [
            field.get_db_prep_save(value, connection)
            for row in some
            for field, value in zip(fields, row, strict=True)
        ]
        with connection.cursor() as cursor:
            cursor.execute(f"{into} VALUES {', '.join([mark] * len(some))}{or_else}", values)


def _or_add(connection: BaseDatabaseWrapper) -> str:
    """Give the end of a statement whose rows are added to those there are."""
    quote = connection.ops.quote_name
    if connection.vendor == "mysql":
        new, old, on_conflict, greater = "VALUES({})", "{}", "ON DUPLICATE KEY UPDATE", "GREATEST"
    else:
        new, old = "excluded.{}", f"{quote(Statistic._meta.db_table)}.{{}}"
        on_conflict = "ON CONFLICT (id) DO UPDATE SET"
        greater = "MAX" if connection.vendor == "sqlite" else "GREATEST"
    count, seconds, longest = (
        (quote(name), old.format(quote(name)), new.format(quote(name)))
        for name in ("count", "seconds", "longest")
    )
    return (
        f" {on_conflict} {count[0]} = {count[1]} + {count[2]},"
        f" {seconds[0]} = {seconds[1]} + {seconds[2]},"
        f" {longest[0]} = {greater}({longest[1]}, {longest[2]})"
    )


def in_parts(rows: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Give *rows* in order, at most *size* at a time."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
