"""The statements of the database store, as far as all databases understand them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, cast

from django.db.backends.base.base import BaseDatabaseWrapper

from ..clocks import Clock, Fragment
from .base import Answer, Seen, State

NEVER = datetime(9999, 1, 1, tzinfo=UTC)
"""An unknown outcome has a `purge_after` that is later, so that the index of that finds it."""

SLACK = 3_600
"""Seconds by which `purge_after` lies behind, so that a completion within them need not move it."""


@dataclass(frozen=True, slots=True)
class Found:
    """What one attempt to insert a claim met: *made* it, or *seen* a record, or neither yet."""

    made: bool
    seen: Seen | None = None


class Dialect(Clock):
    """Statements that all databases understand, and what each must add."""

    look_first: ClassVar[bool] = False
    """Whether a look outside of the transaction is cheaper than a claim that finds a record."""

    def __init__(self, connection: BaseDatabaseWrapper, table: str) -> None:
        super().__init__(connection)
        self.table = connection.ops.quote_name(table)

    def alone(self, record: Any) -> Fragment:
        """Give the condition that no transaction which is still open has claimed *record*."""
        return "1 = 1", []  # It holds a lock on the row, and the update waits or fails.

    def claim(self, cursor: Any, row: dict[str, Fragment]) -> Found:
        """Insert *row* if its id is not there, without ever waiting for an uncommitted one."""
        raise NotImplementedError

    def seen_columns(self) -> Fragment:
        kept, kept_parameters = self.seconds_until("expires_at")
        left, left_parameters = self.seconds_until("ends_at")
        facts = f"state, token, attempts, fingerprint, {kept}, {left}"
        return f"{facts}, status, headers, body, outline, origin", [
            *kept_parameters,
            *left_parameters,
        ]

    def look(self, cursor: Any, record: Any, *, locking: str = "") -> Seen | None:
        columns, parameters = self.seen_columns()
        sql = f"SELECT {columns} FROM {self.table} WHERE id = %s {locking}"
        cursor.execute(sql, [*parameters, record])
        row = cursor.fetchone()
        return None if row is None else seen_from(row)

    def look_at_committed(self, cursor: Any, record: Any) -> Seen | None:
        """Give the record as its last commit left it, or None if that cannot be seen now."""
        return self.look(cursor, record)

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


def never() -> Fragment:
    """Give an instant after `NEVER`, in whatever zone a database takes it."""
    return "'9999-12-01 00:00:00'", []


def held(record: Any, token: int, state: State) -> list[Fragment]:
    """Give the conditions that *record* is still as it was seen."""
    return [("id = %s", [record]), ("token = %s", [token]), (f"state = '{state}'", [])]


def seen_from(row: Any) -> Seen:
    state, token, attempts, fingerprint, kept, left, status, headers, body, outline, origin = row
    return Seen(
        state=state,
        token=token,
        attempt=attempts,
        fingerprint=fingerprint,
        kept_for=None if kept is None else float(kept),
        lease_left=None if left is None else float(left),
        answer=Answer(
            status=status,
            headers=None if headers is None else json.loads(headers),
            body=None if body is None else bytes(body),
        ),
        outline=outline,
        origin=origin,
    )
