"""Who blocks whom in the databases, as far as they may be asked."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

from django.db import DatabaseError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.translation import gettext as _

from .asking import ask_all, failure_of
from .figures import RowLock, RowLocks
from .masking import without_values

MOST = 50

ASKED = ("postgresql", "mysql")
"""The kinds of databases that can tell who waits."""

_DENIED = 1227
_TABLE = re.compile(r"\b(?:FROM|UPDATE|INTO|JOIN)\s+[`\"]?([\w.]+)", re.I)

_POSTGRESQL = """
    SELECT pid, pg_blocking_pids(pid), EXTRACT(EPOCH FROM clock_timestamp() - query_start), query
    FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'
    AND cardinality(pg_blocking_pids(pid)) > 0
    ORDER BY query_start LIMIT %s
"""
_MARIADB = """
    SELECT waiting.trx_mysql_thread_id, GROUP_CONCAT(blocking.trx_mysql_thread_id),
        TIMESTAMPDIFF(MICROSECOND, MIN(waiting.trx_wait_started), NOW(6)) / 1000000,
        MIN(waiting.trx_query)
    FROM information_schema.INNODB_LOCK_WAITS AS waits
    JOIN information_schema.INNODB_TRX AS waiting ON waiting.trx_id = waits.requesting_trx_id
    JOIN information_schema.INNODB_TRX AS blocking ON blocking.trx_id = waits.blocking_trx_id
    JOIN information_schema.PROCESSLIST AS sessions ON sessions.id = waiting.trx_mysql_thread_id
    WHERE sessions.db = DATABASE()
    GROUP BY waiting.trx_mysql_thread_id LIMIT %s
"""
_MYSQL = """
    SELECT waiting_pid, GROUP_CONCAT(blocking_pid), MIN(wait_age_secs), MIN(waiting_query)
    FROM sys.x$innodb_lock_waits WHERE locked_table_schema = DATABASE()
    GROUP BY waiting_pid LIMIT %s
"""  # Without "x$" it would have statements whose middle is left out, and so where a string ends.


def row_locks() -> list[RowLocks]:
    """Give who waits for whom in each database whose kind can tell it."""
    aliases = [alias for alias in connections if connections[alias].vendor in ASKED]
    questions: dict[str, Callable[[], list[RowLock]]] = {
        alias: partial(_waiting, alias) for alias in aliases
    }
    return [
        RowLocks(alias, [], _failure(answer))
        if isinstance(answer, Exception)
        else RowLocks(alias, answer)
        for alias, answer in ask_all(questions).items()
    ]


def _waiting(alias: str) -> list[RowLock]:
    connection = connections[alias]
    with connection.cursor() as cursor:
        cursor.execute(_statement(connection), [MOST])
        return [_row_lock(connection, *row) for row in cursor.fetchall()]


def _failure(error: Exception) -> str:
    if isinstance(error, DatabaseError) and _DENIED in error.args:
        return _("its user needs the PROCESS privilege")
    return failure_of(error)


def _statement(connection: BaseDatabaseWrapper) -> str:
    if connection.vendor == "postgresql":
        return _POSTGRESQL
    is_mariadb = getattr(connection, "mysql_is_mariadb")  # noqa: B009 - not on the base class.
    return _MARIADB if is_mariadb else _MYSQL


def _row_lock(
    connection: BaseDatabaseWrapper, session: int, blocked_by: Any, seconds: Any, query: Any
) -> RowLock:
    statement = without_values(str(query or ""), connection.vendor)
    table = _TABLE.search(statement)
    blocking = blocked_by.split(",") if isinstance(blocked_by, str) else blocked_by
    return RowLock(
        database=connection.alias,
        session=session,
        blocked_by=sorted({int(other) for other in blocking}),
        table="" if table is None else table[1],
        waits_for=None if seconds is None else float(seconds),
        statement=statement,
    )
