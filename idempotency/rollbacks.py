"""What happens when a transaction rolls back, or at its end whichever way it ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary, ref

from django.db import connections, transaction
from django.db.transaction import TransactionManagementError

Undo = Callable[[], None]
OnEnd = Callable[[bool], object]


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
    """Called when a transaction commits; dropped without a call when it rolls back."""

    __slots__ = ("on_end",)

    def __init__(self, on_end: OnEnd) -> None:
        self.on_end: OnEnd | None = on_end

    def __call__(self) -> None:
        self._tell(committed=True)

    def __del__(self) -> None:
        self._tell(committed=False)

    def _tell(self, *, committed: bool) -> None:
        on_end, self.on_end = self.on_end, None
        if on_end is not None:
            on_end(committed)


def at_transaction_ends(on_end: OnEnd) -> int:
    """
    Call *on_end* at the end of each transaction of this thread; give how many are open.

    It is told whether that was a commit, and called before the hooks of others, one of which may
    fail. A rollback, if only to the savepoint that is open now, is another end: *on_end* must not
    touch the database then, as Django is in the midst of it. The transaction that Django's TestCase
    puts around each test is none.

    Raises: `TransactionManagementError` for a transaction that is handled by hand.
    """
    aliases = _open_transactions()
    for alias in aliases:
        transaction.on_commit(_End(on_end), using=alias, robust=True)
        hooks = connections[alias].run_on_commit
        hooks.insert(0, hooks.pop())
    return len(aliases)


def roll_back_transactions() -> bool:
    """Let all open transactions of this thread roll back at their ends; tell whether any is."""
    aliases = _open_transactions()
    for alias in aliases:
        transaction.set_rollback(True, using=alias)
    return bool(aliases)


def _open_transactions() -> list[str]:
    return [
        connection.alias
        for connection in connections.all(initialized_only=True)
        if is_in_transaction(connection)
    ]


def is_in_transaction(connection: Any) -> bool:
    """Whether a transaction is open, other than the endless one of Django's TestCase."""
    # Django itself asks this, for durable blocks: within a TestCase nothing is ever committed.
    block = next(iter(connection.atomic_blocks), None)
    if connection.in_atomic_block:
        return not _is_of_a_test(block)
    if connection.connection is not None and not connection.autocommit:
        raise TransactionManagementError(_BY_HAND.format(connection.alias))
    return False


def is_nested(connection: Any) -> bool:
    """Whether the open transaction is within another one, that of Django's TestCase aside."""
    return len(_blocks(connection)) > 1


def is_open(connection: Any) -> bool:
    """Whether a transaction is open, that of Django's TestCase aside."""
    return bool(_blocks(connection))


def _blocks(connection: Any) -> list[Any]:
    return [each for each in connection.atomic_blocks if not _is_of_a_test(each)]


def _is_of_a_test(block: Any) -> bool:
    return bool(getattr(block, "_from_testcase", False))


_BY_HAND = (
    "Autocommit of database {!r} is off, so that nobody can tell when what was done is committed."
    " Use `transaction.atomic()`."
)


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
