"""How long a database waits for a lock, and what it says when it does not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import Error, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from ..exceptions import LockUnavailable
from ..retries import codes_of, is_undone

LOCK_WAITS = frozenset({"55P03", 1205, 3572})
"""PostgreSQL's state and the numbers of MariaDB and MySQL for a lock not got in time."""

SQLITE_BUSY = frozenset({5, 6})
"""The primary result codes for a locked file and a locked table."""


def _is_busy(error: BaseException) -> bool:
    code = getattr(error.__cause__, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in SQLITE_BUSY


def is_lock_wait(error: BaseException) -> bool:
    """Whether *error* says that another transaction held a lock for too long."""
    return isinstance(error, Error) and (bool(codes_of(error) & LOCK_WAITS) or _is_busy(error))


def is_passing(error: BaseException) -> bool:
    """Whether the same transaction may go well when it is run anew."""
    if isinstance(error, LockUnavailable):
        return error.__cause__ is not None and is_lock_wait(error.__cause__)
    return is_lock_wait(error) or is_undone(error)


@contextmanager
def bound_waits(connection: BaseDatabaseWrapper, seconds: float) -> Iterator[None]:
    """Let no statement of the block wait longer than *seconds* for a lock."""
    put_back = _SETTERS[connection.vendor](connection, seconds)
    try:
        yield
    except BaseException:
        _put_back_after_failure(connection, put_back)
        raise
    put_back()


def _put_back_after_failure(connection: BaseDatabaseWrapper, put_back: Callable[[], None]) -> None:
    broken = transaction.get_rollback(using=connection.alias)
    transaction.set_rollback(False, using=connection.alias)
    try:
        put_back()
    except Error:
        pass  # A broken transaction of PostgreSQL puts it back itself, by rolling back.
    finally:
        transaction.set_rollback(broken, using=connection.alias)


def _ask(connection: BaseDatabaseWrapper, sql: str, parameters: list[Any] | None = None) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchone() if cursor.description else None


def _on_postgresql(connection: BaseDatabaseWrapper, seconds: float) -> Callable[[], None]:
    (before, _) = _ask(
        connection,
        "WITH before AS MATERIALIZED (SELECT current_setting('lock_timeout') AS setting)"
        " SELECT setting, set_config('lock_timeout', %s, true) FROM before",
        [f"{max(1, round(seconds * 1000))}ms"],  # 0 would mean for ever.
    )
    return lambda: _ask(connection, "SELECT set_config('lock_timeout', %s, true)", [before])


def _on_mysql(connection: BaseDatabaseWrapper, seconds: float) -> Callable[[], None]:
    (before,) = _ask(connection, "SELECT @@SESSION.innodb_lock_wait_timeout")
    statement = "SET SESSION innodb_lock_wait_timeout = %s"
    _ask(connection, statement, [max(1, math.ceil(seconds))])
    return lambda: _ask(connection, statement, [before])


def _on_sqlite(connection: BaseDatabaseWrapper, seconds: float) -> Callable[[], None]:
    (before,) = _ask(connection, "PRAGMA busy_timeout")
    _ask(connection, f"PRAGMA busy_timeout = {round(seconds * 1000)}")
    return lambda: _ask(connection, f"PRAGMA busy_timeout = {int(before)}")


_SETTERS: dict[str, Callable[[BaseDatabaseWrapper, float], Callable[[], None]]] = {
    "postgresql": _on_postgresql,
    "mysql": _on_mysql,
    "sqlite": _on_sqlite,
}
