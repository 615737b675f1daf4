"""Outcomes in the database, behind a store that may forget."""

from __future__ import annotations

from typing import Any

from ..clocks import Fragment
from ..exceptions import StaleClaim
from . import rows
from .base import Answer, Bid, Call, Claim, Seen, State
from .database import DatabaseStore
from .reaching import reach
from .sql import never

_IDENTITY = {"id", "scope", "operation", "key"}


class Completions(DatabaseStore):
    """Records that are written when they have ended; their primary key decides who was first."""

    option_names = None  # They are those of the store in front.

    def add(
        self, claim: Claim, answer: Answer, retention: float, *, state: State = "completed"
    ) -> None:
        """
        Record what came of *claim*, which another store gave, in the transaction of its effects.

        Raises: `StaleClaim` if another run was first.
        """
        row = {
            **rows.claimed(self.dialect, claim.call, Bid(claim.token, None, retention)),
            **rows.outcome(self.dialect, state, answer, retention),
            "attempts": ("%s", [claim.attempt]),
            "purge_after": never() if state == "unknown" else self.dialect.after(retention),
        }
        reach(self.connection, lambda: self._add(claim, row))

    def _add(self, claim: Claim, row: dict[str, Fragment]) -> None:
        with self.connection.cursor() as cursor:
            found = self.dialect.claim(cursor, row)
            if not (found.made or self._replace(cursor, claim.call, row, found.seen)):
                raise StaleClaim

    def _replace(
        self, cursor: Any, call: Call, row: dict[str, Fragment], seen: Seen | None
    ) -> bool:
        """Write *row* over one that anyone may claim; tell if it was."""
        if seen is None or not seen.may_be_claimed(call.fingerprint):
            return False
        changes = {column: row[column] for column in row if column not in _IDENTITY}
        return self.dialect.update(cursor, changes, self._as_seen(call, seen)) == 1

    def _look(self, call: Call) -> Seen | None:
        with self.connection.cursor() as cursor:
            return self.dialect.look_at_committed(cursor, rows.stored_id(self.dialect, call))

    def has(self, claim: Claim) -> bool:
        """Whether *claim* is the one that was recorded as completed."""
        seen = self.look(claim.call)
        return seen is not None and seen.state == "completed" and seen.token == claim.token
