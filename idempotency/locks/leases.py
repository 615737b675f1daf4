"""The statements that keep locks as rows, and in which databases differ."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, cast

from django.db import IntegrityError, OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper

from ..clocks import Fragment, clock_of
from ..keys import record_id
from ..models import LockLease
from .base import Ask, Busy, Grant, LiveLock

PATIENCE = 1_000
"""Milliseconds for which one try waits for another writer of a SQLite file."""


class Leases:
    """
    The rows of `LockLease`, as one connection reaches them.

    Whoever finds a lease over takes the row, and with it a token: the time by the database's clock,
    or one more than the token before. So they grow even where a row was deleted meanwhile.
    """

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self.connection = connection
        self.clock = clock_of(connection)
        self.table = connection.ops.quote_name(LockLease._meta.db_table)

    def take(self, cursor: Any, ask: Ask) -> Grant | Busy:
        """Give the lock unless another's lease goes on."""
        self._put(cursor, ask)
        return self._see(cursor, ask)

    def _see(self, cursor: Any, ask: Ask) -> Grant | Busy:
        left, parameters = self.clock.seconds_until("ends_at")
        cursor.execute(
            f"SELECT owner, token, {left} FROM {self.table} WHERE id = %s",
            [*parameters, self._id(ask.name)],
        )
        owner, taken, seconds = cursor.fetchone() or ("", 0, 0)
        if owner == ask.owner:
            return Grant(ask.name, ask.owner, taken, ask.lease)
        return Busy(max(0.0, float(seconds)))

    def renew(self, cursor: Any, grants: Collection[Grant], lease: float) -> int:
        """Let the lease of each of *grants* start anew; give how many were still held."""
        end, parameters = self.clock.after(lease)
        marks = ", ".join(["%s"] * len(grants))
        # An owner holds one lock, so that it need not be said which of them goes with which.
        cursor.execute(
            f"UPDATE {self.table} SET ends_at = {end} WHERE id IN ({marks}) AND owner IN ({marks})",
            [
                *parameters,
                *(self._id(grant.name) for grant in grants),
                *(grant.owner for grant in grants),
            ],
        )
        return cast(int, cursor.rowcount)

    def holds(self, cursor: Any, grant: Grant) -> bool:
        cursor.execute(
            f"SELECT 1 FROM {self.table} WHERE id = %s AND owner = %s AND token = %s",
            [self._id(grant.name), grant.owner, grant.token],
        )
        return cursor.fetchone() is not None

    def release(self, cursor: Any, name: str, owner: str) -> bool:
        """Free the lock if *owner* has it; tell whether it did."""
        now, parameters = self.clock.now()
        cursor.execute(
            f"UPDATE {self.table} SET owner = '', ends_at = {now} WHERE id = %s AND owner = %s",
            [*parameters, self._id(name), owner],
        )
        return cast(int, cursor.rowcount) == 1

    def live(self, cursor: Any, limit: int) -> list[LiveLock]:
        now, now_parameters = self.clock.now()
        left, left_parameters = self.clock.seconds_until("ends_at")
        since, since_parameters = self.clock.seconds_until("taken_at")
        cursor.execute(
            f"SELECT name, owner, token, {since}, {left} FROM {self.table}"
            f" WHERE ends_at > {now} ORDER BY taken_at LIMIT %s",
            [*since_parameters, *left_parameters, *now_parameters, limit],
        )
        return [
            LiveLock(name, owner, token, max(0.0, -float(since)), float(left))
            for name, owner, token, since, left in cursor.fetchall()
        ]

    def _id(self, name: str) -> Any:
        lock = record_id("", "lock", name)
        return LockLease._meta.pk.get_db_prep_value(lock, self.connection)

    def _row(self, ask: Ask) -> dict[str, Fragment]:
        return {
            "id": ("%s", [self._id(ask.name)]),
            "name": ("%s", [ask.name]),
            "owner": ("%s", [ask.owner]),
            "token": self.clock.microseconds(),
            "taken_at": self.clock.now(),
            "ends_at": self.clock.after(ask.lease),
        }

    def _insert(self, row: dict[str, Fragment]) -> Fragment:
        columns = ", ".join(map(self.connection.ops.quote_name, row))
        values = ", ".join(sql for sql, _ in row.values())
        return f"INSERT INTO {self.table} ({columns}) VALUES ({values})", _parameters(row)

    def _put(self, cursor: Any, ask: Ask) -> None:
        """Make the row *ask*'s if it is nobody's."""
        insert, parameters = self._insert(self._row(ask))
        now, now_parameters = self.clock.now()
        latest = self.clock.latest(f"{self.table}.token + 1", "excluded.token")
        cursor.execute(
            f"{insert} ON CONFLICT (id) DO UPDATE SET owner = excluded.owner, token = {latest},"
            " taken_at = excluded.taken_at, ends_at = excluded.ends_at"
            f" WHERE {self.table}.ends_at <= {now} OR {self.table}.owner = excluded.owner"
            f"{self._returning()}",
            [*parameters, *now_parameters],
        )

    def _returning(self) -> str:
        return ""


class MySQLLeases(Leases):
    """Updates first, as MySQL's upsert knows no condition."""

    def _put(self, cursor: Any, ask: Ask) -> None:
        row = self._row(ask)
        changes = {name: row[name] for name in ("owner", "taken_at", "ends_at")}
        time, time_parameters = row["token"]
        changes["token"] = self.clock.latest("token + 1", time), time_parameters
        assignments = ", ".join(f"{name} = {sql}" for name, (sql, _) in changes.items())
        now, now_parameters = self.clock.now()
        cursor.execute(
            f"UPDATE {self.table} SET {assignments}"
            f" WHERE id = %s AND (ends_at <= {now} OR owner = %s)",
            [*_parameters(changes), self._id(ask.name), *now_parameters, ask.owner],
        )
        if cursor.rowcount == 0:
            insert, parameters = self._insert(row)
            try:
                cursor.execute(insert, parameters)
            except IntegrityError:
                return  # Another has it.


class PostgreSQLLeases(Leases):
    """Takes a free lock in one statement."""

    def take(self, cursor: Any, ask: Ask) -> Grant | Busy:
        self._put(cursor, ask)
        taken = cursor.fetchone()
        return Grant(ask.name, ask.owner, taken[0], ask.lease) if taken else self._see(cursor, ask)

    def _returning(self) -> str:
        return f" RETURNING {self.table}.token"


class SQLiteLeases(Leases):
    """Reads as busy that another writes for long: the file has but one writer."""

    def take(self, cursor: Any, ask: Ask) -> Grant | Busy:
        if self.connection.in_atomic_block:
            return super().take(cursor, ask)
        with self._impatience():
            try:
                return super().take(cursor, ask)
            except OperationalError as error:
                if _is_busy(error):
                    return Busy()
                raise

    @contextmanager
    def _impatience(self) -> Iterator[None]:
        """Let no statement wait for another writer as long as those of the project do."""
        raw = self.connection.connection
        (before,) = raw.execute("PRAGMA busy_timeout").fetchone()
        raw.execute(f"PRAGMA busy_timeout = {min(before, PATIENCE)}")
        try:
            yield
        finally:
            raw.execute(f"PRAGMA busy_timeout = {before}")


_LEASES = {"mysql": MySQLLeases, "postgresql": PostgreSQLLeases, "sqlite": SQLiteLeases}


def leases_of(connection: BaseDatabaseWrapper) -> Leases:
    """Give the locks of *connection*'s database."""
    return _LEASES.get(connection.vendor, Leases)(connection)


def _is_busy(error: OperationalError) -> bool:
    code = getattr(error.__cause__, "sqlite_errorcode", 0)
    return (code & 0xFF) == sqlite3.SQLITE_BUSY  # The rest tells more about it.


def _parameters(row: dict[str, Fragment]) -> list[Any]:
    return [parameter for _, given in row.values() for parameter in given]
