"""A transaction in the database that another store is told of once it is committed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from django.db import connections
from django.db.transaction import TransactionManagementError

from ..exceptions import StaleClaim
from ..rollbacks import is_in_transaction
from .base import Answer, Claim, State
from .reaching import Transaction


@dataclass(frozen=True, slots=True)
class End:
    """What came of a claim; *retention* is in seconds."""

    claim: Claim
    state: State
    answer: Answer
    retention: float


class Recorded(Transaction):
    """Collects `ends`, which count as soon as it is committed; *opened* has the open ones."""

    def __init__(
        self,
        using: str,
        opened: list[Recorded],
        finish: Callable[[End], None],
        abandon: Callable[[End], None],
    ) -> None:
        super().__init__(using)
        self.ends: list[End] = []
        self._opened, self._finish, self._abandon = opened, finish, abandon

    def __enter__(self) -> None:
        super().__enter__()
        self._opened.append(self)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._opened.remove(self)
        super().__exit__(kind, error, traceback)
        if kind is None:
            self._tell(self._finish)
        elif isinstance(error, StaleClaim):
            self._tell(self._abandon)

    def _tell(self, step: Callable[[End], None]) -> None:
        for end in self.ends:
            step(end)


def refuse_open_transactions() -> None:
    """Raise `TransactionManagementError` if an effect could be undone after it was completed."""
    for connection in connections.all(initialized_only=True):
        if is_in_transaction(connection):
            raise TransactionManagementError(_NESTED.format(connection.alias))


_NESTED = (
    "Redis would keep as completed what an open transaction may still roll back, and one is open on"
    " {!r}. Leave the `atomic` block first, or use a store in the database."
)
