"""Measure how long a person waits, and a purge takes, where there are millions of records."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from statistics import median
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from .environment import prepared, server

BATCH = 250_000
OPERATIONS = 50
OUTCOMES = ("executed", "replayed", "in_progress", "reused", "released")
EXPIRED = 150_000
TIMES = 5

FILL = """
    INSERT INTO idempotency_idempotencyrecord
        (id, state, token, attempts, scope, operation, key, fingerprint, outline, status, headers,
        body, created_at, completed_at, expires_at, purge_after)
    SELECT gen_random_uuid(), 'completed', n, 1, 'user:' || n %% 100000,
        'POST shop:operation-' || n %% {operations}, 'key-' || n, '1:' || repeat('0', 64), '', 201,
        '[["Content-Type", "application/json"]]', '\\x7b22736f6d65223a202274657874227d',
        at, at, at + interval '1 day', at + interval '1 day 1 hour'
    FROM (
        SELECT n, now() - interval '25 hours' - interval '1 minute'
            + (n - {expired}) * interval '1 day' / {total} AS at
        FROM generate_series(%s, %s) AS n
    ) AS numbers
"""
COUNT = """
    INSERT INTO idempotency_statistic
        (id, starts_at, length, kind, name, outcome, count, seconds, longest)
    SELECT gen_random_uuid(), date_trunc('minute', now()) - minute * interval '1 minute', 60,
        'call', 'POST shop:operation-' || operation, outcome, 7, 0.7, 0.2
    FROM generate_series(0, 1439) AS minute, generate_series(1, {operations}) AS operation,
        unnest(%s::text[]) AS outcome
"""
LOG = """
    INSERT INTO idempotency_calllog
        (record_id, scope, operation, outcome, seconds, request_id, worker, by, note, at)
    SELECT id, scope, operation, 'replayed', 0.01, '', 'here:1', '', '', now() - random()
        * interval '1 day'
    FROM idempotency_idempotencyrecord LIMIT %s
"""


def main() -> None:
    asked = arguments()
    console = Console()
    with prepared(settings="benchmarks.admin_settings"):
        from django.db import connection

        if connection.vendor != "postgresql":
            raise SystemExit("The rows are made by statements of PostgreSQL.")
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("records", total=asked.records)
            fill(asked.records, lambda count: progress.advance(task, count))
        console.print(table(server(), asked.records, list(measure(asked.records))))


def fill(records: int, advance: Callable[[int], None]) -> None:
    """Make *records* records, most of them live, and a day of statistics and duplicates."""
    from django.db import connection

    statement = FILL.format(operations=OPERATIONS, total=records, expired=EXPIRED)
    with connection.cursor() as cursor, without_indexes(cursor):
        for first in range(0, records, BATCH):
            last = min(first + BATCH, records)
            cursor.execute(statement, [first + 1, last])
            advance(last - first)
    with connection.cursor() as cursor:
        cursor.execute(COUNT.format(operations=OPERATIONS), [list(OUTCOMES)])
        cursor.execute(LOG, [min(records, 200_000)])
        cursor.execute("VACUUM ANALYZE")


@contextmanager
def without_indexes(cursor: Any) -> Iterator[None]:
    """Make the indexes of the records anew after the block, which is faster than one by one."""
    cursor.execute(
        "SELECT indexname, indexdef FROM pg_indexes WHERE tablename ="
        " 'idempotency_idempotencyrecord' AND indexname NOT LIKE '%pkey'"
    )
    indexes = cursor.fetchall()
    for name, _ in indexes:
        cursor.execute(f'DROP INDEX "{name}"')
    yield
    cursor.execute("SET maintenance_work_mem = '512MB'")
    for _, definition in indexes:
        cursor.execute(definition)


def measure(records: int) -> Iterator[tuple[str, float, float]]:
    """Give what was measured: a name, the seconds it took and those it may take."""
    from django.contrib.auth.models import User
    from django.test import Client
    from django.urls import reverse

    from idempotency.statistics.figures import WINDOWS
    from idempotency.statistics.rolling import roll_up
    from idempotency.statistics.summary import summarize

    client = Client()
    client.force_login(User.objects.create_superuser("ada"))
    records_page = reverse("admin:idempotency_idempotencyrecord_changelist")
    overview = reverse("admin:idempotency_statistic_changelist")

    def get(address: str, **query: Any) -> Callable[[], None]:
        def ask() -> None:
            response = client.get(address, query)
            if response.status_code != 200:
                raise AssertionError(f"{address} answered {response.status_code}.")

        return ask

    yield "records, first page", seconds_of(get(records_page)), 0.5
    yield "records, page 100", seconds_of(get(records_page, p=100)), 0.5
    yield "records, by state", seconds_of(get(records_page, state="in_progress")), 0.5
    yield "records, one key", seconds_of(get(records_page, q=f"key-{records // 2}")), 0.05
    yield "numbers of 24 hours, never cleared", seconds_of(lambda: summarize(WINDOWS["24h"])), 0.3
    list(roll_up("default"))
    yield "numbers of 24 hours, cleared", seconds_of(lambda: summarize(WINDOWS["24h"])), 0.3
    yield "page of 24 hours, cleared", seconds_of(get(overview, window="24h")), 0.5
    yield "purge of 10,000, 1,000 each", seconds_of(lambda: purge_some(1_000)), 0.1
    yield "purge of 10,000 at once", seconds_of(lambda: purge_some(10_000)), 0.1


def purge_some(batch_size: int) -> None:
    """Delete 10,000 records whose retention is over."""
    from idempotency.purge import purge

    deleted = sum(islice(purge("default", batch_size=batch_size), 10_000 // batch_size))
    if deleted != 10_000:
        raise AssertionError(f"{deleted} records were deleted.")


def seconds_of(work: Callable[[], object]) -> float:
    """Give the median of some runs, after one that nobody counts."""
    took = []
    for _ in range(TIMES):
        began = time.perf_counter()
        work()
        took.append(time.perf_counter() - began)
    return median(took[1:])


def table(title: str, records: int, rows: Sequence[tuple[str, float, float]]) -> Table:
    """Set what was measured beside what it may take."""
    shown = Table(title=f"{title}, {records:,} records", box=box.SIMPLE_HEAD)
    shown.add_column("", no_wrap=True)
    shown.add_column("ms", justify="right")
    shown.add_column("goal", justify="right")
    for name, took, goal in rows:
        style = "green" if took <= goal else "red"
        shown.add_row(name, f"{took * 1_000:,.1f}", f"{goal * 1_000:,.0f}", style=style)
    return shown


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.records", description=__doc__)
    parser.add_argument("--records", type=int, default=10_000_000)
    return parser.parse_args()


if __name__ == "__main__":
    main()
