"""Connections to PostgreSQL that hold one advisory lock each, and free it when they end."""

from __future__ import annotations

import os
import re
import threading
from contextlib import suppress
from typing import Any, ClassVar
from urllib.parse import quote, unquote

from django.db import Error as DatabaseError
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from ...exceptions import InvalidBackend
from ...keys import advisory_key, record_id
from ..base import Ask, Grant, LiveLock

SEQUENCE = "idempotency_lock_token"
"""Where the tokens come from: never rolled back, so that it only grows."""

TOKEN = f"coalesce(nextval(to_regclass('{SEQUENCE}')), 0)"
"""The next token, or 0 if there is no sequence: an error would end the transaction around."""

_MARK = "idempotency lock"
_REMARK = re.compile(rf"/\* {_MARK} (\S+) (\S+) (\S+) \*/")
_LIVE = f"""
    SELECT activity.query, activity.application_name,
        (locks.classid::bigint << 32) | locks.objid::bigint,
        EXTRACT(EPOCH FROM clock_timestamp()),
        EXTRACT(EPOCH FROM clock_timestamp() - activity.state_change)
    FROM pg_locks AS locks JOIN pg_stat_activity AS activity USING (pid)
    WHERE locks.locktype = 'advisory' AND locks.objsubid = 1 AND locks.granted
        AND locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND activity.application_name ~ '^{_MARK} [0-9]+ [0-9]+$'
    ORDER BY split_part(activity.application_name, ' ', 3)::bigint LIMIT %s
"""


_inherited: list[BaseDatabaseWrapper] = []
"""What a child of a fork keeps, as it would not go without a word to the server."""


def lock_key(name: str) -> int:
    """Give the 64 bits by which PostgreSQL knows the lock *name*."""
    return advisory_key(record_id("", "lock", name))


def check_token(token: int) -> int:
    """Raise `InvalidBackend` if there is no sequence to take a token from."""
    if token:
        return token
    raise InvalidBackend(
        f"The database has no sequence {SEQUENCE}, from which locks get their tokens: run"
        " `manage.py migrate idempotency` on it."
    )


class LockSession:
    """
    One connection of its own, in a transaction, which holds at most one lock.

    The server ends it when the lease is over without a sign of life, as the transaction is idle
    then. Any thread of the process may use it.
    """

    is_in_transaction: ClassVar[bool] = True
    take: ClassVar[str] = "pg_try_advisory_xact_lock"
    timeout: ClassVar[str] = "idle_in_transaction_session_timeout"

    def __init__(self, using: str, ask: Ask) -> None:
        self.ask = ask
        self.key = lock_key(ask.name)
        self.grant: Grant | None = None
        self.connection = connect_apart(using, ask.lease, autocommit=not self.is_in_transaction)
        # Shown in pg_stat_activity as long as the lock is held, for `live` to read.
        named = f"{quote(ask.owner, safe=':')} {quote(ask.name, safe=':')[:600]}"
        self.remark = f"/* {_MARK} {ask.lease} {named} */"
        self._process = os.getpid()
        self.mutex = threading.Lock()

    def try_lock(self) -> Grant | None:
        """Give the lock, or None if another session has it; each try is a new transaction."""
        local = str(self.is_in_transaction).lower()
        with self.mutex:
            row = self._ask(
                f"SELECT set_config('application_name', concat_ws(' ', '{_MARK}', {TOKEN},"
                f" round(EXTRACT(EPOCH FROM clock_timestamp()) * 1000)), {local}),"
                f" set_config('{self.timeout}', '{milliseconds(self.ask.lease)}', {local})"
                f" FROM (SELECT {self.take}({self.key}) AS taken) AS tried WHERE taken"
            )
            if row is None:
                self._end_try()
                return None
            token = check_token(int(row[0].split()[-2]))
            self.grant = Grant(self.ask.name, self.ask.owner, token, self.ask.lease)
            return self.grant

    @property
    def question(self) -> str:
        """A statement that gives true as long as the lock is held."""
        return f"{self.remark} SELECT true"

    def release(self) -> bool:
        """Free the lock, and tell whether it was still held; the connection ends either way."""
        try:
            with self.mutex:
                return self.is_open and self._free()
        except DatabaseError:
            return False
        finally:
            self.close()

    @property
    def is_open(self) -> bool:
        """Whether it may be used: Django would connect anew, and a child of a fork may not."""
        return self.connection.connection is not None and self._process == os.getpid()

    def close(self) -> None:
        """Free whatever it holds; a child of a fork leaves its parent's connection alone."""
        with self.mutex, suppress(DatabaseError):
            if self.is_open:
                self.connection.close()
            elif self._process != os.getpid():
                _inherited.append(self.connection)

    def _ask(self, sql: str) -> Any:
        with self.connection.cursor() as cursor:
            cursor.execute(f"{self.remark} {sql}")
            return cursor.fetchone()

    def _end_try(self) -> None:
        self.connection.rollback()

    def _free(self) -> bool:
        self.connection.commit()
        return True


class LastingSession(LockSession):
    """
    A connection without a transaction, whose lock lasts as long as the session.

    Raises: `InvalidBackend` if a pooler stands between, which may give the session to others.
    """

    is_in_transaction = False
    take = "pg_try_advisory_lock"
    timeout = "idle_session_timeout"

    def __init__(self, using: str, ask: Ask) -> None:
        super().__init__(using, ask)
        try:
            self.check_is_direct()
        except BaseException:
            self.close()
            raise

    def check_is_direct(self) -> None:
        """
        Raise `InvalidBackend` unless the server's process is the one that the driver greeted.

        A pooler makes up the process that it tells its clients, as it lends them several in turn.
        """
        (pid,) = self._ask("SELECT pg_backend_pid()")
        if pid != self._greeted:
            raise InvalidBackend(
                "Session-level locks do not survive transaction pooling: a pooler stands between"
                ' here and PostgreSQL. Say "level": "transaction" in the OPTIONS of the lock'
                " backend, or let `using` name a database that is reached directly."
            )

    @property
    def _greeted(self) -> int:
        return int(self.connection.connection.info.backend_pid)

    def _end_try(self) -> None:
        pass

    @property
    def question(self) -> str:
        return (
            f"{self.remark} SELECT pg_backend_pid() = {self._greeted} AND EXISTS (SELECT"
            " FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'"
            f" AND objsubid = 1 AND (classid::bigint << 32) | objid::bigint = {self.key})"
        )

    def _free(self) -> bool:
        (freed,) = self._ask(f"SELECT pg_advisory_unlock({self.key})")
        return bool(freed)


def connect_apart(
    using: str, lease: float | None = None, *, autocommit: bool = True
) -> BaseDatabaseWrapper:
    """Give a new connection to *using* that is in no pool, and for threads to share."""
    from django.db.backends.postgresql.psycopg_any import IsolationLevel

    own = connections[using].copy()
    options = own.settings_dict["OPTIONS"]
    options.pop("pool", None)  # Locks would use up what their holders' work waits for.
    options["application_name"] = _MARK
    options["isolation_level"] = IsolationLevel.READ_COMMITTED  # Keeps no snapshot from vacuum.
    if lease is not None:
        options.setdefault("tcp_user_timeout", milliseconds(lease))
    own.settings_dict["AUTOCOMMIT"] = autocommit
    own.inc_thread_sharing()
    try:
        own.ensure_connection()
    except BaseException:
        own.close()
        raise
    return own


def milliseconds(seconds: float) -> int:
    """Give *seconds* as PostgreSQL counts time-outs, where 0 would mean none."""
    return max(1, round(seconds * 1_000))


def live_locks(cursor: Any, limit: int) -> list[LiveLock]:
    """Give the locks that sessions hold now, from what the server tells of them."""
    cursor.execute(_LIVE, [limit])
    return [_live_lock(*row) for row in cursor.fetchall()]


def _live_lock(query: str, label: str, key: int, now: Any, idle: Any) -> LiveLock:
    *_, token, since = label.split()
    held_for = max(0.0, float(now) - int(since) / 1_000)
    remark = _REMARK.match(query)
    if remark is None:  # Told to members of the holder's role alone.
        return LiveLock(f"key {key}", "", int(token), held_for, None)
    lease, owner, name = remark.groups()
    shown = unquote(name) if lock_key(unquote(name)) == key else f"{unquote(name)}…"
    left = max(0.0, float(lease) - float(idle))
    return LiveLock(shown, unquote(owner), int(token), held_for, left)
