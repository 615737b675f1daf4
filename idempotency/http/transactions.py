"""The transactions that Django opens around views (`ATOMIC_REQUESTS`), and who opens them here."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from django.db import connections, transaction

from ..exceptions import InvalidBackend
from ..policy import Policy
from ..rollbacks import is_open
from ..stores import get_store
from ..stores.reaching import Transaction

_MARK = "_non_atomic_requests"
"""Where `transaction.non_atomic_requests` writes, and Django's handler reads; it has no other."""


class OwnTransactions:
    """
    Has Django open no transaction around a view, since a claim would be invisible inside of it.

    `aliases` are those of the databases whose transactions the view handles itself, also if
    `transaction.non_atomic_requests` says so later, above.
    """

    def __init__(self, aliases: Iterable[str] = ()) -> None:
        self.aliases = set(aliases)

    def mark(self, view: Any) -> None:
        setattr(view, _MARK, self)

    def add(self, alias: str) -> None:
        self.aliases.add(alias)

    def __contains__(self, alias: object) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(connections)


def own_transactions_of(view: Any) -> set[str]:
    """Give the databases on which *view* handles its transactions itself: all, if it is ours."""
    return set(getattr(view, _MARK, ()))


def atomic_requests(own: Collection[str], *, but: str | None = None) -> list[str]:
    """Give the databases that Django would open a transaction on, for a view with *own* ones."""
    return [
        alias
        for alias in connections
        if connections[alias].settings_dict["ATOMIC_REQUESTS"] and alias != but and alias not in own
    ]


@contextmanager
def opened(own: Collection[str]) -> Iterator[None]:
    """Open the transactions that Django would have opened, and none where one is open already."""
    with ExitStack() as stack:
        for alias in atomic_requests(own):
            if not is_open(connections[alias]):
                stack.enter_context(transaction.atomic(using=alias))
        yield


@contextmanager
def joined(own: Collection[str], outermost: str) -> Iterator[None]:
    """
    Do what `opened` does, for a claim in *outermost*, whose transaction is committed last.

    Raises: `Unconfirmed` if nobody knows whether a commit arrived.
    """
    with ExitStack() as stack:
        for alias in sorted(atomic_requests(own), key=lambda alias: alias != outermost):
            if not is_open(connections[alias]):
                stack.enter_context(Transaction(alias))
        yield


def close_idle_connections() -> None:
    """Do what Django does after a request, but for those in a transaction, such as a test's."""
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()


def alias_to_join(policy: Policy, own: Collection[str]) -> str | None:
    """
    Give the database whose transaction, which Django would open, a claim may be part of.

    None if there is none, or if the claim has to outlive it: as one with a lease has, and one that
    blocks its key after an error.
    """
    if policy.on_error == "block" or has_lease(policy):
        return None
    using: str | None = getattr(get_store(policy.store), "using", None)
    return using if using in atomic_requests(own) else None


def has_lease(policy: Policy) -> bool:
    """Whether a synchronous call has a lease, as far as the settings tell."""
    if policy.mode is not None:
        return policy.mode == "lease"
    try:
        return not get_store(policy.store).supports_atomic
    except InvalidBackend:  # Told by the system checks, and by each request.
        return False
