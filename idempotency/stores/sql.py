"""The statements of the database store, in each database's own words."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar, cast

from django.db import IntegrityError, NotSupportedError, OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone

from .base import Answer, Seen

Fragment = tuple[str, list[Any]]
"""A piece of SQL and its parameters."""

SLACK = 3_600
"""Seconds by which `purge_after` lies behind, so that a completion within them need not move it."""


@dataclass(frozen=True, slots=True)
class Found:
    """What one attempt to insert a claim met: *made* it, or *seen* a record, or neither yet."""

    made: bool
    seen: Seen | None = None


class Dialect:
    """Statements that all databases understand, and what each must add."""

    look_first: ClassVar[bool] = False
    """Whether a look outside of the transaction is cheaper than a claim that finds a record."""

    def __init__(self, connection: BaseDatabaseWrapper, table: str) -> None:
        self.connection = connection
        self.table = connection.ops.quote_name(table)

    def now(self) -> Fragment:
        """Give the database's own clock."""
        raise NotImplementedError

    def after(self, seconds: float) -> Fragment:
        """Give the instant that comes *seconds* after now."""
        raise NotImplementedError

    def seconds_until(self, column: str) -> Fragment:
        """Give how far *column* lies ahead, in seconds."""
        raise NotImplementedError

    def latest(self, first: str, second: str) -> str:
        return f"GREATEST({first}, {second})"

    def claim(self, cursor: Any, row: dict[str, Fragment]) -> Found:
        """Insert *row* if its id is not there, without ever waiting for an uncommitted one."""
        raise NotImplementedError

    def seen_columns(self) -> Fragment:
        now, now_parameters = self.now()
        left, left_parameters = self.seconds_until("ends_at")
        facts = f"state, token, attempts, fingerprint, expires_at <= {now}, {left}"
        return f"{facts}, status, headers, body", [*now_parameters, *left_parameters]

    def look(self, cursor: Any, record: Any, *, locking: str = "") -> Seen | None:
        columns, parameters = self.seen_columns()
        sql = f"SELECT {columns} FROM {self.table} WHERE id = %s {locking}"
        cursor.execute(sql, [*parameters, record])
        row = cursor.fetchone()
        return None if row is None else seen_from(row)

    def insert(self, row: dict[str, Fragment]) -> Fragment:
        columns = ", ".join(self.connection.ops.quote_name(column) for column in row)
        values = ", ".join(sql for sql, _ in row.values())
        parameters = [parameter for _, given in row.values() for parameter in given]
        return f"INTO {self.table} ({columns}) VALUES ({values})", parameters

    def update(self, cursor: Any, changes: dict[str, Fragment], conditions: list[Fragment]) -> int:
        """Update the rows for which all *conditions* still hold; give how many there were."""
        assignments = ", ".join(f"{column} = {sql}" for column, (sql, _) in changes.items())
        where = " AND ".join(sql for sql, _ in conditions)
        fragments = [*changes.values(), *conditions]
        parameters = [parameter for _, given in fragments for parameter in given]
        cursor.execute(f"UPDATE {self.table} SET {assignments} WHERE {where}", parameters)
        return cast(int, cursor.rowcount)


def seen_from(row: Any) -> Seen:
    state, token, attempts, fingerprint, expired, left, status, headers, body = row
    return Seen(
        state=state,
        token=token,
        attempt=attempts,
        fingerprint=fingerprint,
        expired=bool(expired),
        lease_left=None if left is None else float(left),
        answer=Answer(
            status=status,
            headers=None if headers is None else json.loads(headers),
            body=None if body is None else bytes(body),
        ),
    )


class PostgreSQL(Dialect):
    """
    Claims and looks in one statement, which never waits and never fails.

    An uncommitted row is invisible here, so a try of an advisory transaction lock tells of it. The
    statement's snapshot is older than that lock, so the primary key still decides: an insert that
    conflicts with a row which the snapshot does not show finds nothing, and is tried again.
    """

    def now(self) -> Fragment:
        return "clock_timestamp()", []

    def after(self, seconds: float) -> Fragment:
        return "clock_timestamp() + make_interval(secs => %s)", [seconds]

    def seconds_until(self, column: str) -> Fragment:
        return f"EXTRACT(EPOCH FROM {column} - clock_timestamp())", []

    def claim(self, cursor: Any, row: dict[str, Fragment]) -> Found:
        (_, [record]) = row["id"]
        columns, _ = self.seen_columns()
        names = ", ".join(row)
        values = ", ".join(sql for sql, _ in row.values())
        parameters = [parameter for _, given in row.values() for parameter in given]
        cursor.execute(
            f"""
            WITH seen (state, token, attempts, fingerprint, expired, lease_left,
                       status, headers, body)
            AS MATERIALIZED (SELECT {columns} FROM {self.table} WHERE id = %s),
            gate AS MATERIALIZED (SELECT CASE WHEN EXISTS (
                SELECT FROM seen WHERE state = 'unknown' OR state = 'completed' AND NOT expired
            ) THEN NULL ELSE pg_try_advisory_xact_lock(%s) END AS held),
            made AS (INSERT INTO {self.table} ({names})
                SELECT {values} FROM gate WHERE held AND NOT EXISTS (SELECT FROM seen)
                ON CONFLICT (id) DO NOTHING RETURNING 1)
            SELECT held, EXISTS (SELECT FROM made), seen.* FROM gate LEFT JOIN seen ON true
            """,
            [record, advisory_key(record), *parameters],
        )
        held, made, state, *rest = cursor.fetchone()
        if made:
            return Found(made=True)
        seen = None if state is None else seen_from((state, *rest))
        if held is False and (seen is None or seen.is_free or seen.is_abandoned):
            return Found(made=False)  # Somebody holds the key in a transaction of their own.
        if seen is None:
            return self.claim(cursor, row)
        return Found(made=False, seen=seen)


def advisory_key(record: Any) -> int:
    """Give the 64 bits of a record's id that no time is in, as PostgreSQL counts them."""
    return int.from_bytes(record.bytes[8:], "big", signed=True)


class MySQL(Dialect):
    """
    Asks before it inserts, as an insert waits for an uncommitted twin.

    A locking read with NOWAIT does not, and also shows, under REPEATABLE READ, what a plain one
    would not.
    """

    share_nowait = "FOR SHARE NOWAIT"
    busy: ClassVar[frozenset[int]] = frozenset({1205, 3572})
    """The errors of a lock that was not got in time, or not at once."""

    def _offset(self) -> int:
        # Django stores naive times in the zone of the connection, not in UTC.
        zone = self.connection.timezone or timezone.get_default_timezone()
        offset = datetime.now(zone).utcoffset() or timedelta(0)
        return int(offset.total_seconds())

    def now(self) -> Fragment:
        return f"(UTC_TIMESTAMP(6) + INTERVAL {self._offset()} SECOND)", []

    def after(self, seconds: float) -> Fragment:
        now, _ = self.now()
        return f"({now} + INTERVAL %s MICROSECOND)", [round(seconds * 1_000_000)]

    def seconds_until(self, column: str) -> Fragment:
        now, _ = self.now()
        return f"TIMESTAMPDIFF(MICROSECOND, {now}, {column}) / 1000000", []

    insert_waiting: ClassVar[str] = "INSERT"

    def claim(self, cursor: Any, row: dict[str, Fragment]) -> Found:
        try:
            return self._ask(cursor, row) or self._insert(cursor, row, self.insert_waiting)
        except OperationalError as error:
            if error.args[0] not in self.busy:
                raise
            return Found(made=False)

    def _ask(self, cursor: Any, row: dict[str, Fragment]) -> Found | None:
        (_, [record]) = row["id"]
        seen = self.look(cursor, record, locking=self.share_nowait)
        return None if seen is None else Found(made=False, seen=seen)

    def _insert(self, cursor: Any, row: dict[str, Fragment], verb: str) -> Found:
        sql, parameters = self.insert(row)
        try:
            cursor.execute(f"{verb} {sql}", parameters)
        except IntegrityError:  # Undoes the statement alone here, and locks the row for reading.
            return self._ask(cursor, row) or Found(made=False)
        return Found(made=True)


class MariaDB(MySQL):
    """Inserts at once, which MariaDB can do without waiting, and asks only where that fails."""

    share_nowait = "LOCK IN SHARE MODE NOWAIT"
    insert_at_once = "SET STATEMENT innodb_lock_wait_timeout = 0 FOR INSERT"
    insert_waiting = "SET STATEMENT innodb_lock_wait_timeout = 1 FOR INSERT"

    def claim(self, cursor: Any, row: dict[str, Fragment]) -> Found:
        try:
            return self._insert(cursor, row, self.insert_at_once)
        except OperationalError as error:
            if error.args[0] not in self.busy:
                raise
        # A twin holds the row, or the gap that it goes into is locked for a moment by a neighbour.
        return super().claim(cursor, row)


class SQLite(Dialect):
    """Looks before it begins: only writers queue, so a replay need not wait for them."""

    look_first = True

    def _stored(self, moment: datetime) -> Any:
        return self.connection.ops.adapt_datetimefield_value(moment)

    # SQLite has no clock of its own; all its writers run on one machine.
    def now(self) -> Fragment:
        return "%s", [self._stored(timezone.now())]

    def after(self, seconds: float) -> Fragment:
        return "%s", [self._stored(timezone.now() + timedelta(seconds=seconds))]

    def seconds_until(self, column: str) -> Fragment:
        now, parameters = self.now()
        return f"(julianday({column}) - julianday({now})) * 86400.0", parameters

    def latest(self, first: str, second: str) -> str:
        return f"MAX({first}, {second})"

    def claim(self, cursor: Any, row: dict[str, Fragment]) -> Found:
        (_, [record]) = row["id"]
        sql, parameters = self.insert(row)
        cursor.execute(f"INSERT {sql} ON CONFLICT (id) DO NOTHING", parameters)
        if cursor.rowcount == 1:
            return Found(made=True)
        return Found(made=False, seen=self.look(cursor, record))


def dialect_of(connection: BaseDatabaseWrapper, table: str) -> Dialect:
    """Give the dialect of *connection*'s database."""
    if connection.vendor == "postgresql":
        return PostgreSQL(connection, table)
    if connection.vendor == "sqlite":
        return SQLite(connection, table)
    if connection.vendor == "mysql":
        is_mariadb = getattr(connection, "mysql_is_mariadb")  # noqa: B009 - not on the base class.
        return (MariaDB if is_mariadb else MySQL)(connection, table)
    raise NotSupportedError(
        f"idempotency keeps its records in PostgreSQL, MariaDB, MySQL or SQLite, not in"
        f" {connection.vendor}."
    )
