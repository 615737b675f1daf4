"""The one background thread of each process that renews what is held."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from django.db import connections

logger = logging.getLogger("idempotency")

IDLE = 60
"""Seconds without work after which the thread ends."""

MOST_LEASES = 120
"""A lease is renewed for at most so many times its length: what hangs must end one day."""


class Renewer(Protocol):
    """What can renew many of its leases in one step."""

    def renew(self, claims: Collection[Any]) -> Collection[Any]:
        """Let each lease start anew; give those that were lost."""
        ...


class Holding:
    """Something with a lease, renewed until it is let go; `lost` tells whether that failed."""

    __slots__ = ("claim", "due_at", "ends_at", "lost", "on_lost", "renewer", "stops_at", "third")

    def __init__(
        self,
        renewer: Renewer,
        claim: Any,
        lease: float,
        on_lost: Callable[[], object] | None,
        started_at: float | None = None,
    ) -> None:
        now = time.monotonic() if started_at is None else started_at
        self.renewer = renewer
        self.claim = claim
        self.third = lease / 3
        self.due_at = now + self.third
        self.ends_at = now + lease
        self.stops_at = now + lease * MOST_LEASES
        self.on_lost = on_lost
        self.lost = False

    def renewed(self, started_at: float) -> None:
        self.due_at = started_at + self.third
        self.ends_at = started_at + 3 * self.third

    @property
    def is_doubtful(self) -> bool:
        """Whether the lease may have ended by the store's clock, as after a pause."""
        return self.lost or time.monotonic() >= self.ends_at - self.third

    def tell(self) -> None:
        if self.on_lost is not None:
            _call(self.on_lost)


class Renewal:
    """Renews every holding at a third of its lease, in one step for each store."""

    def __init__(self) -> None:
        self._holdings: set[Holding] = set()
        self._errands: list[Callable[[], object]] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._wakes_at = 0.0

    @contextmanager
    def holding(
        self,
        renewer: Renewer,
        claim: Any,
        lease: float,
        on_lost: Callable[[], object] | None = None,
    ) -> Iterator[Holding]:
        """Renew *claim* in the background until the block ends."""
        holding = Holding(renewer, claim, lease, on_lost)
        self.add(holding)
        try:
            yield holding
        finally:
            self.discard(holding)

    def add(self, holding: Holding) -> None:
        with self._changed:
            self._holdings.add(holding)
            self._wake(holding.due_at)

    def run_soon(self, errand: Callable[[], object]) -> None:
        """Have the thread call *errand*, which must not be called where it arises."""
        with self._changed:
            self._errands.append(errand)
            self._wake(0)

    def _wake(self, due_at: float) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._wakes_at = 0
            self._thread = threading.Thread(
                target=self._run, name="idempotency-renewal", daemon=True
            )
            self._thread.start()
        elif due_at < self._wakes_at:
            # Otherwise it wakes up early enough, and need not be run in between.
            self._wakes_at = due_at
            self._changed.notify()

    def lose(self, holding: Holding) -> None:
        """Let *holding* be lost at once, and tell whom that concerns from the thread."""
        with self._changed:
            self._holdings.discard(holding)
            if not holding.lost:
                holding.lost = True
                self.run_soon(holding.tell)

    def discard(self, holding: Holding) -> None:
        with self._changed:
            self._holdings.discard(holding)

    def _run(self) -> None:
        while True:
            with self._changed:
                errands, self._errands = self._errands, []
                due = self._due(time.monotonic()) if self._holdings and not errands else None
            for errand in errands:
                _call(errand)
            if due:
                self._renew(due)
            elif due is None and not errands and not self._await_work():
                return

    def _await_work(self) -> bool:
        # An idle connection would keep a database from being dropped or restarted.
        connections.close_all()
        with self._changed:
            until = time.monotonic() + IDLE
            while not self._has_work() and (now := time.monotonic()) < until:
                # What woke it up may be over: it still wakes up for the next one early enough.
                if self._wakes_at <= now:
                    self._wakes_at = math.inf
                self._changed.wait(min(until, self._wakes_at) - now)
            if not self._has_work():
                self._thread = None
            return self._has_work()

    def _has_work(self) -> bool:
        return bool(self._holdings or self._errands)

    def _due(self, now: float) -> list[Holding]:
        """Give what is due by *now*, or wait until something may be."""
        due = [holding for holding in self._holdings if holding.due_at <= now]
        if not due:
            self._wakes_at = min(holding.due_at for holding in self._holdings)
            self._changed.wait(min(max(0.0, self._wakes_at - now), threading.TIMEOUT_MAX))
        return due

    def _renew(self, due: list[Holding]) -> None:
        by_renewer: dict[Renewer, list[Holding]] = {}
        for holding in due:
            by_renewer.setdefault(holding.renewer, []).append(holding)
        for renewer, holdings in by_renewer.items():
            self._renew_together(renewer, holdings)

    def _renew_together(self, renewer: Renewer, holdings: list[Holding]) -> None:
        started_at = time.monotonic()
        wanted = [holding for holding in holdings if started_at < holding.stops_at]
        lost: Collection[Any] = []
        try:
            if wanted:
                lost = renewer.renew([holding.claim for holding in wanted])
        except Exception:
            # Whatever failed, the leases still run: try again until they are over.
            logger.warning("Leases could not be renewed.", exc_info=True)
            connections.close_all()
            self._retry(wanted, started_at)
        else:
            for holding in wanted:
                self._lose(holding) if holding.claim in lost else holding.renewed(started_at)
        for holding in set(holdings) - set(wanted):
            logger.error("A lease was renewed %d times and is now left to end.", 3 * MOST_LEASES)
            self.discard(holding)

    def _retry(self, holdings: list[Holding], started_at: float) -> None:
        for holding in holdings:
            if started_at >= holding.ends_at:
                self._lose(holding)
            else:
                holding.due_at = started_at + holding.third / 4

    def _lose(self, holding: Holding) -> None:
        with self._changed:
            held = holding in self._holdings
            self._holdings.discard(holding)
            holding.lost = holding.lost or held
        if held:  # Otherwise it was settled meanwhile, and not lost.
            holding.tell()

    def _reset(self) -> None:
        # A child of a fork has neither the thread nor the claims of its parent.
        self.__init__()  # type: ignore[misc]


def _call(callback: Callable[[], object]) -> None:
    """Call what others gave us; its failure must not end the renewal of everything else."""
    try:
        callback()
    except Exception:
        logger.exception("%r failed in the background.", callback)


renewal = Renewal()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=renewal._reset)
