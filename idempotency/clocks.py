"""How each database tells the time: its own clock judges leases and retention."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import NotSupportedError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone

Fragment = tuple[str, list[Any]]
"""A piece of SQL and its parameters."""


class Clock:
    """The time as SQL of one connection."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self.connection = connection

    def now(self) -> Fragment:
        """Give the database's own clock."""
        raise NotImplementedError

    def after(self, seconds: float) -> Fragment:
        """Give the instant that comes *seconds* after now."""
        raise NotImplementedError

    def seconds_until(self, column: str) -> Fragment:
        """Give how far *column* lies ahead, in seconds."""
        raise NotImplementedError

    def microseconds(self) -> Fragment:
        """Give the microseconds since 1970, as a whole number."""
        raise NotImplementedError

    def latest(self, first: str, second: str) -> str:
        """Give the greater of two values."""
        return f"GREATEST({first}, {second})"


class PostgreSQLClock(Clock):
    def now(self) -> Fragment:
        return "clock_timestamp()", []

    def after(self, seconds: float) -> Fragment:
        return "clock_timestamp() + make_interval(secs => %s)", [seconds]

    def seconds_until(self, column: str) -> Fragment:
        return f"EXTRACT(EPOCH FROM {column} - clock_timestamp())", []

    def microseconds(self) -> Fragment:
        return "(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::bigint", []


class MySQLClock(Clock):
    def now(self) -> Fragment:
        # Django stores naive times in the zone of the connection, which need not be UTC.
        zone = self.connection.timezone or timezone.get_default_timezone()
        if zone is UTC:
            return "UTC_TIMESTAMP(6)", []
        offset = datetime.now(zone).utcoffset() or timedelta(0)
        return f"(UTC_TIMESTAMP(6) + INTERVAL {int(offset.total_seconds())} SECOND)", []

    def after(self, seconds: float) -> Fragment:
        now, _ = self.now()
        return f"({now} + INTERVAL %s MICROSECOND)", [round(seconds * 1_000_000)]

    def seconds_until(self, column: str) -> Fragment:
        now, _ = self.now()
        return f"TIMESTAMPDIFF(MICROSECOND, {now}, {column}) / 1000000", []

    def microseconds(self) -> Fragment:
        return "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))", []


class SQLiteClock(Clock):
    """SQLite has no clock of its own; all its writers run on one machine."""

    def _stored(self, moment: datetime) -> Any:
        return self.connection.ops.adapt_datetimefield_value(moment)

    def now(self) -> Fragment:
        return "%s", [self._stored(timezone.now())]

    def after(self, seconds: float) -> Fragment:
        return "%s", [self._stored(timezone.now() + timedelta(seconds=seconds))]

    def seconds_until(self, column: str) -> Fragment:
        now, parameters = self.now()
        # Days are counted in floating point: exact to milliseconds, with noise behind them.
        return f"ROUND((julianday({column}) - julianday({now})) * 86400.0, 3)", parameters

    def microseconds(self) -> Fragment:
        return "%s", [time.time_ns() // 1_000]

    def latest(self, first: str, second: str) -> str:
        return f"MAX({first}, {second})"


_CLOCKS = {"postgresql": PostgreSQLClock, "mysql": MySQLClock, "sqlite": SQLiteClock}


def clock_of(connection: BaseDatabaseWrapper) -> Clock:
    """Give the clock of *connection*'s database."""
    try:
        return _CLOCKS[connection.vendor](connection)
    except KeyError as error:
        raise NotSupportedError(
            f"idempotency works in PostgreSQL, MariaDB, MySQL or SQLite, not in"
            f" {connection.vendor}."
        ) from error
