"""The statements of the database store in which databases differ."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, cast

from django.conf import settings
from django.db import IntegrityError, NotSupportedError, OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone

from ..clocks import Fragment, MySQLClock, PostgreSQLClock, SQLiteClock, clock_of
from ..keys import advisory_key
from .base import Seen
from .sql import Dialect, Found, seen_from


class PostgreSQL(PostgreSQLClock, Dialect):
    """
    Claims and looks in one statement, which never waits and never fails.

    An uncommitted row is invisible here, so a try of an advisory transaction lock tells of it. The
    statement's snapshot is older than that lock, so the primary key still decides: a twin that
    committed in between counts as running, as it was when the snapshot was taken.
    """

    def alone(self, record: Any) -> Fragment:
        return "pg_try_advisory_xact_lock(%s)", [advisory_key(record)]

    def claim(self, cursor: Any, row: dict[str, Fragment]) -> Found:
        (_, [record]) = row["id"]
        columns, _ = self.seen_columns()
        alone, lock = self.alone(record)
        values = ", ".join(sql for sql, _ in row.values())
        parameters = [parameter for _, given in row.values() for parameter in given]
        cursor.execute(
            f"WITH made AS (INSERT INTO {self.table} ({', '.join(row)}) SELECT {values}"
            f" WHERE {alone} ON CONFLICT (id) DO NOTHING RETURNING 1)"
            f" SELECT EXISTS (SELECT FROM made), {columns}"
            f" FROM (SELECT 1) AS here LEFT JOIN {self.table} ON id = %s",
            [*parameters, *lock, record],
        )
        made, *seen = cursor.fetchone()
        return Found(made=made, seen=None if seen[0] is None else seen_from(seen))


class MySQL(MySQLClock, Dialect):
    """
    Asks before it inserts, as an insert waits for an uncommitted twin.

    A locking read with NOWAIT does not, and also shows, under REPEATABLE READ, what a plain one
    would not.
    """

    share_nowait = "FOR SHARE NOWAIT"
    busy: ClassVar[frozenset[int]] = frozenset({1205, 3572})
    """The errors of a lock that was not got in time, or not at once."""

    insert_waiting: ClassVar[str] = "INSERT"

    def claim(self, cursor: Any, row: dict[str, Fragment]) -> Found:
        try:
            return self._ask(cursor, row) or self._insert(cursor, row, self.insert_waiting)
        except OperationalError as error:
            if error.args[0] not in self.busy:
                raise
            return Found(made=False)

    def look_at_committed(self, cursor: Any, record: Any) -> Seen | None:
        # Under READ UNCOMMITTED, a plain read would show what may yet be rolled back.
        try:
            return self.look(cursor, record, locking=self.share_nowait)
        except OperationalError as error:
            if error.args[0] not in self.busy:
                raise
            return None

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


class SQLite(SQLiteClock, Dialect):
    """Looks before it begins: only writers queue, so a replay need not wait for them."""

    look_first = True

    def claim(self, cursor: Any, row: dict[str, Fragment]) -> Found:
        (_, [record]) = row["id"]
        sql, parameters = self.insert(row)
        cursor.execute(f"INSERT {sql} ON CONFLICT (id) DO NOTHING", parameters)
        if cursor.rowcount == 1:
            return Found(made=True)
        return Found(made=False, seen=self.look(cursor, record))


VENDORS = frozenset({"postgresql", "sqlite", "mysql"})


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


def clock(connection: BaseDatabaseWrapper) -> datetime:
    """Give the time by the database's own clock, as the ORM would give it."""
    now, parameters = clock_of(connection).now()
    if connection.vendor == "sqlite":
        return timezone.now()
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {now}", parameters)
        (moment,) = cursor.fetchone()
    if settings.USE_TZ and timezone.is_naive(moment):
        return timezone.make_aware(moment, connection.timezone)
    if not settings.USE_TZ and timezone.is_aware(moment):
        return timezone.make_naive(moment)
    return cast(datetime, moment)
