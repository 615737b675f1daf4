"""Keeps records in the project's database, where effects and outcome can be one transaction."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Any
from weakref import WeakKeyDictionary

from django.core.checks import CheckMessage, Error
from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.transaction import TransactionManagementError

from ..clocks import Fragment
from ..exceptions import StaleClaim
from ..keys import later_token
from ..models import IdempotencyRecord
from ..rollbacks import is_nested
from ..tables import check_table
from . import rows
from .base import Answer, BaseStore, Bid, Call, Claim, Seen, State
from .dialects import VENDORS, dialect_of
from .reaching import Transaction, begin, reach
from .recent import Recent
from .sql import Dialect, held, never

REMEMBERED = 4_096
"""How many completed calls a process looks up at once, before it would open a transaction."""

_NESTED = (
    "A claim with a lease must be committed before its work begins, but a transaction is open."
    " Leave the `atomic` block first, or use mode='atomic', which joins it."
)


class DatabaseStore(BaseStore):
    """
    Keeps records in the table of `IdempotencyRecord`.

    OPTIONS: `using`, the alias of the database; the same as that of the effects, so that both
    are committed or neither is.
    """

    supports_atomic = True
    undoes_effects = True
    using: str
    option_names: Collection[str] | None = ("using",)

    def __init__(self, alias: str, options: Mapping[str, Any]) -> None:
        super().__init__(alias, options)
        self.using = self.options.get("using", DEFAULT_DB_ALIAS)
        self._dialects: WeakKeyDictionary[BaseDatabaseWrapper, Dialect] = WeakKeyDictionary()
        self._completed = Recent(REMEMBERED)

    @property
    def connection(self) -> BaseDatabaseWrapper:
        return connections[self.using]

    @property
    def dialect(self) -> Dialect:
        connection = self.connection
        dialect = self._dialects.get(connection)
        if dialect is None:
            dialect = dialect_of(connection, IdempotencyRecord._meta.db_table)
            self._dialects[connection] = dialect
        return dialect

    @property
    def in_transaction(self) -> bool:
        return self.connection.in_atomic_block

    def claim(self, call: Call, bid: Bid) -> Claim | Seen | None:
        step = partial(self._claim, call, bid)
        if bid.lease is None or not self.in_transaction:
            return begin(self.connection, step, IdempotencyRecord)
        try:
            with transaction.atomic(using=self.using, durable=True):
                return begin(self.connection, step, IdempotencyRecord)
        except RuntimeError as error:
            raise TransactionManagementError(_NESTED) from error

    def _claim(self, call: Call, bid: Bid) -> Claim | Seen | None:
        with self.connection.cursor() as cursor:
            found = self.dialect.claim(cursor, rows.claimed(self.dialect, call, bid))
            seen = found.seen
            if found.made:
                return Claim(call, bid.token, 1, bid.lease)
            if seen is None:
                return None
            if bid.is_unconfirmed and seen.is_held_by(bid.token):
                return Claim(call, bid.token, seen.attempt, bid.lease)
            if not seen.may_be_claimed(call.fingerprint, take_over=bid.take_over):
                return seen
            return self._take_over(cursor, call, bid, seen)

    def _take_over(self, cursor: Any, call: Call, bid: Bid, seen: Seen) -> Claim | None:
        token = bid.token if bid.token > seen.token else later_token(seen.token)
        row = rows.claimed(self.dialect, call, replace(bid, token=token))
        attempt = 1 if seen.state == "completed" else seen.attempt + 1
        changes: dict[str, Fragment] = {
            **{column: row[column] for column in rows.OF_CLAIM},
            **{column: ("NULL", []) for column in rows.OF_OUTCOME},
            "attempts": ("%s", [attempt]),
            "purge_after": rows.latest(self.dialect, row["purge_after"]),
        }
        if attempt == 1:
            changes["created_at"] = row["created_at"]
        taken = self.dialect.update(cursor, changes, self._as_seen(call, seen))
        from_dead = seen.state == "in_progress"
        return Claim(call, token, attempt, bid.lease, taken_over=from_dead) if taken else None

    def _as_seen(self, call: Call, seen: Seen) -> list[Fragment]:
        """Give the conditions that the record may still be taken over."""
        now, parameters = self.dialect.now()
        conditions = self._held(call, seen.token, seen.state)
        conditions.append(self.dialect.alone(rows.stored_id(self.dialect, call)))
        if seen.state == "in_progress":
            conditions.append((f"ends_at <= {now}", parameters))
        return conditions

    def settle(self, claim: Claim, state: State, answer: Answer, retention: float) -> None:
        running = self._held(claim.call, claim.token, "in_progress")
        if not self._write(rows.ended(self.dialect, state, answer, retention), running):
            raise StaleClaim
        if state == "completed":
            self._completed.add(claim.call.id)

    def decide(self, call: Call, seen: Seen, state: State, answer: Answer) -> bool:
        changes = rows.ended(self.dialect, state, answer, self.retention, before=seen.state)
        return self._write(changes, self._held(call, seen.token, seen.state)) == 1

    def renew(self, claims: Collection[Claim]) -> Collection[Claim]:
        lost: list[Claim] = []
        by_lease = attrgetter("lease")
        for lease, group in groupby(sorted(claims, key=by_lease), key=by_lease):
            same = list(group)
            if self._renew(same, lease) < len(same):
                lost += [claim for claim in same if not self._holds(claim)]
        return lost

    def _renew(self, claims: list[Claim], lease: float) -> int:
        ids = [rows.stored_id(self.dialect, claim.call) for claim in claims]
        marks = ", ".join(["%s"] * len(claims))
        conditions: list[Fragment] = [
            (f"id IN ({marks})", ids),
            (f"token IN ({marks})", [claim.token for claim in claims]),
            ("state = 'in_progress'", []),
        ]
        return self._write({"ends_at": rows.ends_at(self.dialect, lease)}, conditions)

    def _holds(self, claim: Claim) -> bool:
        seen = self.look(claim.call)
        return seen is not None and seen.is_held_by(claim.token)

    def look(self, call: Call) -> Seen | None:
        return reach(self.connection, lambda: self._look(call))

    def look_first(self, call: Call) -> Seen | None:
        return begin(self.connection, lambda: self._look(call), IdempotencyRecord)

    def _look(self, call: Call) -> Seen | None:
        with self.connection.cursor() as cursor:
            return self.dialect.look(cursor, rows.stored_id(self.dialect, call))

    def peek(self, call: Call) -> Seen | None:
        # That a call was completed here is a hint where to look first; the database decides.
        hinted = self.dialect.look_first or (call.id in self._completed and not self.in_transaction)
        return self.look_first(call) if hinted else None

    def block(self, call: Call, seen: Seen) -> bool:
        now, parameters = self.dialect.now()
        conditions = self._held(call, seen.token, "in_progress")
        conditions.append((f"ends_at <= {now}", parameters))
        changes: dict[str, Fragment] = {"state": ("'unknown'", []), "ends_at": ("NULL", [])}
        return self._write({**changes, "purge_after": never()}, conditions) == 1

    def transaction(self) -> Transaction:
        return Transaction(self.using)

    def when_committed(self, callback: Callable[[], object]) -> bool:
        awaits = is_nested(self.connection)
        if awaits:
            transaction.on_commit(callback, using=self.using, robust=True)
        return awaits

    def roll_back(self) -> None:
        transaction.set_rollback(True, using=self.using)

    def is_rolling_back(self) -> bool:
        return self.in_transaction and transaction.get_rollback(using=self.using)

    def check(self) -> list[CheckMessage]:
        where = f"IDEMPOTENCY_STORES[{self.alias!r}]"
        if self.using not in connections:
            message = f"{where}: there is no database {self.using!r}."
        elif self.connection.vendor not in VENDORS:
            message = f"{where}: records cannot be kept in {self.connection.vendor}."
        else:
            return []
        return [Error(message, id="idempotency.E003")]

    def check_service(self) -> list[CheckMessage]:
        return check_table(f"IDEMPOTENCY_STORES[{self.alias!r}]", self.using, IdempotencyRecord)

    def _held(self, call: Call, token: int, state: State) -> list[Fragment]:
        return held(rows.stored_id(self.dialect, call), token, state)

    def _write(self, changes: dict[str, Fragment], conditions: list[Fragment]) -> int:
        def step() -> int:
            with self.connection.cursor() as cursor:
                return self.dialect.update(cursor, changes, conditions)

        return reach(self.connection, step)
