"""What the threads do: renew before a lease is over, and tell when it is."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

from django.db import connections

from ..uptime import uptime
from .holdings import MOST_LEASES, Holding
from .workers import Worker

logger = logging.getLogger("idempotency")


class Renewing(Worker):
    """Renews the holdings of one renewer at a third of their leases, all that are due in a step."""

    def due_at(self, holding: Holding) -> float:
        return holding.due_at

    def attend(self, due: list[Holding]) -> None:
        started_at = uptime()
        wanted = [holding for holding in due if self._goes_on(holding, started_at)]
        if not wanted:
            return
        lost: Collection[Any] = ()
        try:
            lost = wanted[0].renewer.renew([holding.claim for holding in wanted])
        except BaseException:  # Whatever failed, the leases still run: try again.
            logger.warning("Leases could not be renewed.", exc_info=True)
            connections.close_all()
            for holding in wanted:
                holding.failed(started_at)
        else:
            for holding in wanted:
                self._lose(holding) if holding.claim in lost else holding.renewed(started_at)

    def _goes_on(self, holding: Holding, now: float) -> bool:
        if now < holding.stops_at:
            return True
        logger.error("A lease was renewed %d times and is now left to end.", 3 * MOST_LEASES)
        holding.leave()
        return False

    def _lose(self, holding: Holding) -> None:
        if holding.leave():  # Otherwise it was settled meanwhile, and not lost.
            holding.is_refused = True
            holding.tell()


class Watching(Worker):
    """Tells of each lease that is over, whatever those hang on that should have renewed it."""

    name = "idempotency-watch"

    def due_at(self, holding: Holding) -> float:
        return holding.ends_at

    def attend(self, due: list[Holding]) -> None:
        for holding in due:
            self.holdings.discard(holding)
            holding.tell()
