"""What is put back in memory when a transaction rolls back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary, ref

from django.db import connections, transaction

Undo = Callable[[], None]


class _Undos:
    """Called when the transaction commits; dropped without a call when it rolls back."""

    __slots__ = ("__weakref__", "connection", "place", "undos")

    def __init__(self, connection: Any) -> None:
        self.connection, self.place = connection, _place(connection)
        self.undos: list[Undo] = []

    def __call__(self) -> None:
        self.undos.clear()

    def __del__(self) -> None:
        # Hooks are dropped as well when one before them fails, after the COMMIT: then none is open,
        # or another one.
        outermost, _ = _place(self.connection)
        if outermost in (None, self.place[0]) and not self.connection.autocommit:
            while self.undos:
                self.undos.pop()()


_latest: WeakKeyDictionary[Any, ref[_Undos]] = WeakKeyDictionary()


def on_rollback(undo: Undo, using: str) -> None:
    """
    Call *undo* if the transaction or savepoint that is open on *using* rolls back.

    Django drops the hooks of `on_commit` at that moment; outside of a transaction nothing can roll
    back, and *undo* is never called.
    """
    connection = connections[using]
    if connection.in_atomic_block:
        _undos_of(connection).undos.append(undo)


def _undos_of(connection: Any) -> _Undos:
    """Give the one hook of the innermost savepoint, as Django goes through all that there are."""
    latest = _latest.get(connection, lambda: None)()
    if latest is not None and latest.place == _place(connection):
        return latest
    undos = _Undos(connection)
    _latest[connection] = ref(undos)
    transaction.on_commit(undos, using=connection.alias)
    return undos


def _place(connection: Any) -> tuple[Any, tuple[Any, ...]]:
    """Give the block of the transaction, unless it has just ended, and the open savepoints."""
    return next(iter(connection.atomic_blocks), None), tuple(connection.savepoint_ids)
