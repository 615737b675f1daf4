"""What is put back in memory when a transaction rolls back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import connections, transaction


class _Undo:
    """Called when the transaction commits; dropped without a call when it rolls back."""

    __slots__ = ("connection", "outermost", "undo")

    def __init__(self, undo: Callable[[], None], connection: Any) -> None:
        self.undo: Callable[[], None] | None = undo
        self.connection = connection
        self.outermost = _outermost(connection)

    def __call__(self) -> None:
        self.undo = None

    def __del__(self) -> None:
        # Hooks are dropped as well when one before them fails, after the COMMIT: then none is open,
        # or another one.
        rolls_back = _outermost(self.connection) in (None, self.outermost)
        if self.undo is not None and rolls_back and not self.connection.autocommit:
            self.undo()


def _outermost(connection: Any) -> Any:
    """Give the block of the transaction that is open; there is none any more when it ends."""
    return next(iter(connection.atomic_blocks), None)


def on_rollback(undo: Callable[[], None], using: str) -> None:
    """
    Call *undo* if the transaction or savepoint that is open on *using* rolls back.

    Django drops the hooks of `on_commit` at that moment; outside of a transaction nothing can roll
    back, and *undo* is never called.
    """
    if connections[using].in_atomic_block:
        transaction.on_commit(_Undo(undo, connections[using]), using=using)
