"""Keeps locks as rows of the project's database: works everywhere, with nothing to install."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import count, groupby
from typing import Any, TypeVar

from django.core.checks import CheckMessage, Error
from django.db import DEFAULT_DB_ALIAS, connections
from django.db import Error as DatabaseError
from django.db.backends.base.base import BaseDatabaseWrapper

from ..exceptions import InvalidBackend, LockUnavailable, StoreUnavailable
from ..models import LockLease
from ..retries import is_undone
from ..rollbacks import Within
from ..tables import check_table, refuse_missing_table
from .base import Ask, BaseLockBackend, Busy, Grant, LiveLock, untold
from .leases import Leases, leases_of

Result = TypeVar("Result")
Step = Callable[[Leases, Any], Result]

TRIES = 3
"""How often a statement is tried that a deadlock undid, or whose connection had died before."""


class DatabaseLockBackend(BaseLockBackend):
    """
    Keeps each lock as a row with a lease, by the database's clock.

    Each step commits by itself. Within a transaction it takes a connection of its own for that;
    on SQLite the transaction excludes all other writers anyway, and the lock lasts as long.

    OPTIONS: `using`, the alias of the database.
    """

    using: str
    thread_sensitive = True
    option_names = ("using",)

    def __init__(self, alias: str, options: Mapping[str, Any]) -> None:
        super().__init__(alias, options)
        self.using = self.options.get("using", DEFAULT_DB_ALIAS)
        self._kept: dict[str | None, BaseDatabaseWrapper] = {}
        """The connections apart of those who wait within a transaction, by owner."""

    def acquire(self, ask: Ask) -> Grant | Busy:
        owner = ask.owner if ask.queues else None
        try:
            found = self._reach(lambda leases, cursor: leases.take(cursor, ask), owner)
        except StoreUnavailable as error:
            refuse_missing_table(error.__cause__, self.using, LockLease)
            raise
        if isinstance(found, Grant):
            self._drop(ask.owner)
        if isinstance(found, Grant) and self._shares_transaction():
            return replace(found, lease=None, within=Within(self.using))
        return found

    def renew(self, grants: Collection[Grant]) -> Collection[Grant]:
        lost: list[Grant] = []
        for lease, group in groupby(sorted(grants, key=_lease), key=_lease):
            same = list(group)
            if self._renew(same, lease) < len(same):
                lost += [grant for grant in same if not self._holds(grant)]
        return lost

    def _renew(self, grants: list[Grant], lease: float) -> int:
        return self._reach(lambda leases, cursor: leases.renew(cursor, grants, lease))

    def _holds(self, grant: Grant) -> bool:
        return self._reach(lambda leases, cursor: leases.holds(cursor, grant))

    def release(self, grant: Grant) -> bool:
        tries = count(1)

        def free(leases: Leases, cursor: Any) -> tuple[bool, int]:
            return leases.release(cursor, grant.name, grant.owner), next(tries)

        freed, try_number = self._reach(free)
        if not freed and try_number > 1:
            raise untold(grant)
        return freed

    def withdraw(self, ask: Ask) -> None:
        try:
            self._reach(
                lambda leases, cursor: leases.release(cursor, ask.name, ask.owner), ask.owner
            )
        finally:
            self._drop(ask.owner)

    def may_leave(self, ask: Ask, error: BaseException) -> bool:
        """Whether a lock may be left whose grant never arrived, or a connection apart."""
        refused = isinstance(error, LockUnavailable | InvalidBackend)
        return not refused or ask.owner in self._kept

    def live(self, limit: int = 1_000) -> list[LiveLock]:
        return self._reach(lambda leases, cursor: leases.live(cursor, limit))

    def check(self) -> list[CheckMessage]:
        if self.using in connections:
            return []
        message = f"IDEMPOTENCY_LOCKS[{self.alias!r}]: there is no database {self.using!r}."
        return [Error(message, id="idempotency.E018")]

    def check_service(self) -> list[CheckMessage]:
        return check_table(f"IDEMPOTENCY_LOCKS[{self.alias!r}]", self.using, LockLease)

    def _shares_transaction(self) -> bool:
        connection = connections[self.using]
        return connection.vendor == "sqlite" and connection.in_atomic_block

    def _reach(self, step: Step[Result], owner: str | None = None) -> Result:
        """Take *step* in autocommit; try again what cannot have been, as each may be repeated."""
        for left in reversed(range(TRIES)):
            try:
                with self._connection(owner) as connection, connection.cursor() as cursor:
                    return step(leases_of(connection), cursor)
            except DatabaseError as error:
                if not (left and self._may_repeat(error)):
                    raise StoreUnavailable(_AWAY.format(self.alias), retry_after=1) from error
        raise AssertionError("The last try gives or raises.")

    def _may_repeat(self, error: DatabaseError) -> bool:
        connection = connections[self.using]
        if connection.in_atomic_block:
            return False
        if connection.connection is not None and not connection.is_usable():
            connection.close()
            return True
        return is_undone(error)

    @contextmanager
    def _connection(self, owner: str | None) -> Iterator[BaseDatabaseWrapper]:
        """Give a connection on which each statement commits; one apart is kept for *owner*."""
        connection = connections[self.using]
        if connection.get_autocommit() or self._shares_transaction():
            yield connection
            return
        own = self._kept.pop(owner, None) or _apart_from(connection)
        try:
            own.set_autocommit(True)
            yield own
        except BaseException:
            own.close()
            raise
        if owner is None:
            own.close()
        else:
            self._kept[owner] = own

    def _drop(self, owner: str) -> None:
        own = self._kept.pop(owner, None)
        if own is not None:
            own.close()


def _apart_from(connection: BaseDatabaseWrapper) -> BaseDatabaseWrapper:
    own = connection.copy()
    # All that have one of the pool might wait for a second one of it.
    own.settings_dict["OPTIONS"].pop("pool", None)
    return own


_AWAY = "The database behind IDEMPOTENCY_LOCKS[{!r}] cannot be reached; retry a little later."


def _lease(grant: Grant) -> float:
    return grant.lease or 0
