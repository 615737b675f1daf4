"""Ends of claims that their store did not take, told to it as soon as it answers again."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection

from ..exceptions import StaleClaim
from ..renewal import MOST_LEASES, Holding, renewal
from ..uptime import uptime
from .base import BaseStore, Claim

logger = logging.getLogger("idempotency")
Settle = Callable[[], object]

LEASES = MOST_LEASES
"""For how many of its leases a claim is told that its work has ended."""

PERIOD = 1.0
"""Seconds between two tries: as soon as the store answers, another call may take the claim over."""


class Belated:
    """Settles claims of one *store* from the thread that renews leases."""

    def __init__(self, store: BaseStore) -> None:
        self.store = store
        self._ends: dict[Claim, tuple[Settle, float]] = {}

    def add(self, claim: Claim, seconds: float, settle: Settle) -> None:
        """Call *settle* until it ends *claim* or tells that it is stale, or *seconds* are over."""
        self._ends[claim] = settle, uptime() + seconds
        holding = Holding(self, claim, 3 * PERIOD)
        holding.due_at -= PERIOD * 3 / 4
        holding.stops_at = math.inf
        renewal.add(holding)

    def renew(self, claims: Collection[Claim]) -> Collection[Claim]:
        """Settle what there is until one fails; give those of *claims* that are over."""
        for claim in [*self._ends]:
            settle, until = self._ends.pop(claim)
            if not self._is_over(claim, settle, until):
                self._ends[claim] = settle, until  # Behind the others, which may go better.
                break
        return [claim for claim in claims if claim not in self._ends]

    def _is_over(self, claim: Claim, settle: Settle, until: float) -> bool:
        try:
            settle()
        except StaleClaim as error:
            logger.warning(_STALE, claim.call.operation, exc_info=error)
        except Exception as error:
            if uptime() < until:
                return False
            logger.error(_GIVEN_UP, claim.call.operation, exc_info=error)
        return True


_STALE = "%s ended too late: its claim is another's, or has ended otherwise."
_GIVEN_UP = "%s ended, but its store could not be told for too long."

_belated: dict[str, Belated] = {}


def belated(store: BaseStore) -> Belated:
    """Give the one that settles belated claims of *store*: a store that hangs is asked once."""
    found = _belated.get(store.alias)
    if found is None or found.store is not store:
        found = _belated[store.alias] = Belated(store)
    return found
