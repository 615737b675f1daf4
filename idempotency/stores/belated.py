"""Ends of claims that their store did not take, told to it as soon as it answers again."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress

from ..exceptions import StaleClaim
from ..renewal import Holding, renewal
from ..uptime import uptime
from .base import BaseStore, Claim

Settle = Callable[[], object]

LEASES = 2
"""For how many leases it is tried: after one of them, another call may take the claim over."""


class Belated:
    """Settles claims of one *store* from the thread that renews leases."""

    def __init__(self, store: BaseStore) -> None:
        self.store = store
        self._ends: dict[Claim, tuple[Settle, float]] = {}

    def add(self, claim: Claim, lease: float, settle: Settle) -> None:
        """Call *settle* until it ends *claim* or tells that it is stale."""
        holding = Holding(self, claim, LEASES * lease)
        self._ends[claim] = settle, holding.ends_at
        holding.due_at -= holding.third * 3 / 4
        renewal.add(holding)

    def renew(self, claims: Collection[Claim]) -> Collection[Claim]:
        """Settle *claims*; give them all, as there is nothing left to renew."""
        for claim in claims:
            settle, until = self._ends.get(claim, (None, 0.0))
            if settle is not None:  # Otherwise it was settled before the one that failed.
                if uptime() < until:
                    with suppress(StaleClaim):
                        settle()
                del self._ends[claim]
        return claims


_belated: dict[str, Belated] = {}


def belated(store: BaseStore) -> Belated:
    """Give the one that settles belated claims of *store*: a store that hangs is asked once."""
    found = _belated.get(store.alias)
    if found is None or found.store is not store:
        found = _belated[store.alias] = Belated(store)
    return found
