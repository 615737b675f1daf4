"""Keeps locks as PostgreSQL's advisory locks, which end with the transaction or the process."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from django.core.checks import CheckMessage, Error
from django.db import DEFAULT_DB_ALIAS, InternalError, connections
from django.db import Error as DatabaseError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.transaction import TransactionManagementError

from ...exceptions import InvalidBackend, StoreUnavailable
from ...rollbacks import Within, is_in_transaction
from ..base import Ask, BaseLockBackend, Busy, Grant, LiveLock
from .pings import renew_together
from .sessions import (
    TOKEN,
    LastingSession,
    LockSession,
    check_token,
    connect_apart,
    live_locks,
    lock_key,
)

LEVELS: dict[str, type[LockSession]] = {"transaction": LockSession, "session": LastingSession}

LONGEST = 2_147_483
"""The longest lease, in seconds: PostgreSQL counts its time-outs in milliseconds, in 32 bits."""


class AdvisoryLockBackend(BaseLockBackend):
    """
    Holds each lock in the caller's transaction, or else on a connection of its own.

    In a transaction the lock lasts to its end. Outside of one, or with the level "session", the
    server frees it as soon as the process dies, and ends the connection of one that is paused
    beyond its lease.

    OPTIONS: `using`, the alias of the database; `level`, "transaction" or "session".
    """

    using: str
    supports_eviction = False  # Only its server could end the session of another process.
    option_names = ("using", "level")

    def __init__(self, alias: str, options: Mapping[str, Any]) -> None:
        super().__init__(alias, options)
        self.using = self.options.get("using", DEFAULT_DB_ALIAS)
        self.level = self.options.get("level", "transaction")
        if self.level not in list(LEVELS):
            raise InvalidBackend(
                f"IDEMPOTENCY_LOCKS[{alias!r}]: 'level' is 'transaction' or 'session', not"
                f" {self.level!r}."
            )
        try:
            self.check_lease(self.lease)
        except ValueError as error:
            raise InvalidBackend(f"IDEMPOTENCY_LOCKS[{alias!r}]['LEASE']: {error}") from error
        self._sessions: dict[str, LockSession] = {}
        self._inside: WeakKeyDictionary[BaseDatabaseWrapper, dict[str, Grant]]
        self._inside = WeakKeyDictionary()

    def acquire(self, ask: Ask) -> Grant | Busy:
        session = self._sessions.get(ask.owner)
        if session is not None and session.grant is not None:
            return session.grant
        connection = connections[self.using]
        if self.level == "transaction" and is_in_transaction(connection):
            return self._take_inside(connection, ask)
        return self._take_apart(ask)

    def renew(self, grants: Collection[Grant]) -> Collection[Grant]:
        sessions = {grant.owner: self._sessions.get(grant.owner) for grant in grants}
        holding = renew_together(filter(None, sessions.values()))
        lost = [grant for grant in grants if sessions[grant.owner] not in holding]
        for grant in lost:
            self._drop(grant.owner)
        return lost

    def release(self, grant: Grant) -> bool:
        if grant.within is not None:
            return self._leave_inside(grant)
        session = self._sessions.pop(grant.owner, None)
        return session is not None and session.release()

    def withdraw(self, ask: Ask) -> None:
        self._drop(ask.owner)
        inside = self._inside.get(connections[self.using], {})
        grant = inside.get(ask.name)
        if grant is not None and grant.owner == ask.owner:
            del inside[ask.name]

    def live(self, limit: int = 1_000) -> list[LiveLock]:
        """Give the locks on connections of their own: one in a transaction tells no name."""
        with self._reaching(), closing(connect_apart(self.using)) as own, own.cursor() as cursor:
            return live_locks(cursor, limit)

    def check_lease(self, lease: float) -> None:
        if lease > LONGEST:
            raise ValueError(f"PostgreSQL keeps to a lease of at most {LONGEST} s, not {lease!r}.")

    def check(self) -> list[CheckMessage]:
        where = f"IDEMPOTENCY_LOCKS[{self.alias!r}]"
        if self.using not in connections:
            message = f"{where}: there is no database {self.using!r}."
        elif connections[self.using].vendor != "postgresql":
            message = f"{where}: the database {self.using!r} is not PostgreSQL."
        elif not _has_psycopg_3():
            message = f"{where}: the driver is psycopg2, and advisory locks need psycopg 3."
        else:
            return []
        hint = "Let OPTIONS['using'] name a database that can keep them, or take another BACKEND."
        return [Error(message, hint=hint, id="idempotency.E034")]

    def check_service(self) -> list[CheckMessage]:
        if self.level == "transaction" or self.check():
            return []
        probe = Ask("", "check", self.lease)
        try:
            with self._reaching(), closing(LastingSession(self.using, probe)):
                return []
        except InvalidBackend as error:
            message = f"IDEMPOTENCY_LOCKS[{self.alias!r}]: {error}"
            return [Error(message, id="idempotency.E035")]

    # In the caller's transaction

    def _take_inside(self, connection: BaseDatabaseWrapper, ask: Ask) -> Grant | Busy:
        """PostgreSQL gives a session any lock that it has, so that we remember who has it there."""
        inside = self._inside_of(connection)
        earlier = inside.get(ask.name)
        if earlier is not None and _goes_on(earlier):
            return earlier if earlier.owner == ask.owner else Busy()
        with self._reaching(), connection.cursor() as cursor:
            cursor.execute(
                f"SELECT {TOKEN} FROM (SELECT pg_try_advisory_xact_lock(%s) AS taken) AS tried"
                " WHERE taken",
                [lock_key(ask.name)],
            )
            row = cursor.fetchone()
        if row is None:
            return Busy()
        token = check_token(row[0])
        grant = Grant(ask.name, ask.owner, token, lease=None, within=Within(self.using))
        inside[ask.name] = grant
        return grant

    def _inside_of(self, connection: BaseDatabaseWrapper) -> dict[str, Grant]:
        """Give who has which lock in the transaction of *connection*."""
        inside = self._inside.setdefault(connection, {})
        if inside and not _goes_on(next(reversed(inside.values()))):
            for name, grant in list(inside.items()):
                if not _goes_on(grant):
                    del inside[name]
        return inside

    def _leave_inside(self, grant: Grant) -> bool:
        """Let the same transaction give the lock to another owner; all else waits for its end."""
        inside = self._inside.get(grant.within.connection, {}) if grant.within else {}
        if inside.get(grant.name) != grant:
            return False
        del inside[grant.name]
        return True

    # On a connection of its own

    def _take_apart(self, ask: Ask) -> Grant | Busy:
        try:
            with self._reaching():
                grant = self._try(ask)
        except BaseException:
            self._drop(ask.owner)
            raise
        if grant is None and not ask.queues:
            self._drop(ask.owner)
        return grant or Busy()

    def _try(self, ask: Ask) -> Grant | None:
        kept = self._sessions.get(ask.owner)
        if kept is not None:
            try:
                return kept.try_lock()
            except DatabaseError:  # It ended while the caller waited; a new one may be had.
                self._drop(ask.owner)
        session = self._sessions[ask.owner] = LEVELS[self.level](self.using, ask)
        return session.try_lock()

    def _drop(self, owner: str) -> None:
        session = self._sessions.pop(owner, None)
        if session is not None:
            session.close()

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except TransactionManagementError:
            raise
        except InternalError as error:
            raise TransactionManagementError(_BROKEN) from error
        except DatabaseError as error:
            raise StoreUnavailable(_AWAY.format(self.alias), retry_after=1) from error


_AWAY = (
    "PostgreSQL behind IDEMPOTENCY_LOCKS[{!r}] cannot be reached, or refused; retry a little later."
)
_BROKEN = (
    "A lock is wanted after a database error, in a transaction that can only be rolled back. Put"
    " what may fail into `with transaction.atomic():` inside of the `try`."
)


def _has_psycopg_3() -> bool:
    from django.db.backends.postgresql.psycopg_any import is_psycopg3

    return bool(is_psycopg3)


def _goes_on(grant: Grant) -> bool:
    return grant.within is not None and grant.within.goes_on
