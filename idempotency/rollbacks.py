"""What happens when a transaction rolls back, or at its end whichever way it ends."""

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


class _End:
    """Called when one of several transactions commits; dropped without a call if it rolls back."""

    __slots__ = ("ends",)

    def __init__(self, ends: _Ends) -> None:
        self.ends: _Ends | None = ends

    def __call__(self) -> None:
        ends, self.ends = self.ends, None
        if ends is not None and ends.count_down():
            ends.on_end()

    def __del__(self) -> None:
        if self.ends is not None:
            self.ends.on_drop(self.ends.count_down())


class _Ends:
    """Counts down how many of several transactions have not ended yet."""

    def __init__(
        self, on_end: Callable[[], object], on_drop: Callable[[bool], object], left: int
    ) -> None:
        self.on_end = on_end
        self.on_drop = on_drop
        self.left = left

    def count_down(self) -> bool:
        self.left -= 1
        return self.left == 0


def after_transactions(on_end: Callable[[], object], on_drop: Callable[[bool], object]) -> bool:
    """
    Call *on_end* once all transactions of this thread have committed, and tell if any is open.

    One that rolls back, if only to the savepoint that is open now, calls *on_drop* instead, which
    is told whether it was the last and must not touch the database: Django is in the midst of it.
    The transaction that Django's TestCase puts around each test is none.
    """
    aliases = [
        connection.alias
        for connection in connections.all(initialized_only=True)
        if is_in_transaction(connection)
    ]
    ends = _Ends(on_end, on_drop, len(aliases))
    for alias in aliases:
        transaction.on_commit(_End(ends), using=alias)
    return bool(aliases)


def is_in_transaction(connection: Any) -> bool:
    """Whether a transaction is open, other than the endless one of Django's TestCase."""
    # Django itself asks this, for durable blocks: within a TestCase nothing is ever committed.
    block = next(iter(connection.atomic_blocks), None)
    return connection.in_atomic_block and not getattr(block, "_from_testcase", False)


class Within:
    """Tells whether the transaction or savepoint goes on in which it was made."""

    __slots__ = ("connection",)

    def __init__(self, using: str) -> None:
        self.connection = connections[using]
        transaction.on_commit(self, using=using)

    def __call__(self) -> None:
        """Do nothing when the transaction commits."""

    @property
    def goes_on(self) -> bool:
        # Django lets go of its hooks at a rollback, and before it calls the first at a commit.
        hooks = reversed(self.connection.run_on_commit)
        return any(hook is self for _, hook, *_ in hooks)
