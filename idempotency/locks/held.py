"""A lock as its holder knows it."""

from __future__ import annotations

import logging
import math
import os
import threading
from collections.abc import Callable
from functools import partial
from weakref import ref

from ..exceptions import IdempotencyError, StaleLock, StoreUnavailable
from ..renewal import Holding, renewal
from ..uptime import uptime
from .base import BaseLockBackend, Grant
from .events import Life

logger = logging.getLogger("idempotency")
OnLost = Callable[["HeldLock"], object]


class HeldLock:
    """
    A lock from its acquisition to its release, for any thread of the process that took it.

    What it tells it knows without asking. It counts the lease from before the request for it was
    sent, by a clock that goes on while the process is paused.
    """

    __slots__ = (
        "__weakref__",
        "_depth",
        "_grant",
        "_holding",
        "_is_released",
        "_is_unsure",
        "_left_by",
        "_life",
        "_mutex",
        "_pending",
        "_process",
        "backend",
    )

    def __init__(
        self,
        backend: BaseLockBackend,
        grant: Grant,
        started_at: float,
        life: Life,
        *,
        renew: bool = True,
        on_lost: OnLost | None = None,
    ) -> None:
        self.backend = backend
        self._grant = grant
        self._life = life
        self._mutex = threading.Lock()
        self._depth = 1
        self._is_released = False
        self._is_unsure = False  # Whether a release may have taken effect and was not told so.
        self._pending = 0  # Transactions around it whose end it waits for.
        self._left_by = 0
        self._process = os.getpid()
        lease = math.inf if grant.lease is None else grant.lease
        told = None if on_lost is None else partial(_tell, on_lost, ref(self))
        self._holding = Holding(backend, grant, lease, told, started_at)
        renewal.add(self._holding, renew=renew and grant.lease is not None)
        backend.watch(grant, partial(_lose, ref(self)))

    def __del__(self) -> None:
        # Whoever held it was interrupted, or ended without leaving it.
        holding = getattr(self, "_holding", None)
        if holding is not None and not self.is_over:
            renewal.discard(holding)
            if not self.is_transactional:
                renewal.run_soon(partial(_free_left, self.backend, self._grant), self.backend)

    def __repr__(self) -> str:
        return f"<HeldLock {self.name!r} token={self.token} remaining={self.remaining:.1f}>"

    @property
    def name(self) -> str:
        return self._grant.name

    @property
    def owner(self) -> str:
        """Who holds it: host, process and a random part, as lists of live locks show it."""
        return self._grant.owner

    @property
    def token(self) -> int:
        """The fencing token: greater for every later holder of this name."""
        return self._grant.token

    @property
    def is_entered(self) -> bool:
        """Whether a block or call runs under it."""
        return self._depth > 0

    @property
    def is_leaving(self) -> bool:
        """Whether all have left it, but not the transaction around."""
        return self._depth == 0 and self._pending > 0

    @property
    def is_transactional(self) -> bool:
        """Whether the lock lives and dies with the transaction that it was taken in."""
        return self._grant.lease is None

    @property
    def is_over(self) -> bool:
        """Whether it was released, or belongs to the process that this one was forked from."""
        return self._is_released or self._process != os.getpid()

    @property
    def remaining(self) -> float:
        """Seconds until the lease is over if nothing renews it; 0 if it was lost or released."""
        if self.is_over or self._holding.is_refused or self._is_undone:
            return 0.0
        return max(0.0, self._holding.ends_at - uptime())

    @property
    def goes_on(self) -> bool:
        """Whether the transaction that it lives in is known to go on."""
        return self._grant.within is not None and self._grant.within.goes_on

    @property
    def _is_undone(self) -> bool:
        return self._grant.within is not None and not self.goes_on

    @property
    def lost(self) -> bool:
        """Whether another may hold it: its lease is over, or its renewal was refused."""
        return not self._is_released and self.remaining <= 0

    def assert_held(self) -> None:
        """
        Raise `StaleLock` unless the lock is held as far as this process knows; it does not ask.

        Call it before each effect that no token guards.
        """
        if self.remaining <= 0:
            raise StaleLock(f"The lock {self.name!r} is no longer held here.")

    def confirm(self) -> bool:
        """
        Ask whether the lock is held, and let its lease start anew if it is.

        Raises: `StoreUnavailable` if nobody can tell.
        """
        if self.is_transactional or self.is_over:
            return not self.lost
        return not (self._holding.is_refused or self.backend.renew([self._grant]))

    def release(self) -> bool:
        """
        Free the lock now, and tell whether it was still held; a failed call may be repeated.

        Raises: `StoreUnavailable`: the lock then lasts until its lease is over.
        """
        with self._mutex:
            return self._free()

    def enter(self, *, reentrant: bool) -> bool:
        """Count one block more if that is allowed: if asked for, or in the transaction around."""
        with self._mutex:
            goes_on = self.is_leaving and self._left_by == threading.get_ident()
            allowed = not self.is_over and (goes_on or (reentrant and self.is_entered))
            self._depth += allowed
            return allowed

    def leave(self) -> bool:
        """Count one block less; tell whether it was the outermost one."""
        with self._mutex:
            self._depth -= 1
            return self._depth == 0

    def await_ends(self, count: int) -> None:
        """Wait for the ends of *count* transactions, which this thread is in."""
        with self._mutex:
            self._pending += count
            self._left_by = threading.get_ident()

    def end(self) -> bool:
        """Count one of these transactions less; tell whether nobody needs the lock any more."""
        with self._mutex:
            self._pending -= 1
            return not (self._depth or self._pending)

    def release_if_left(self) -> bool:
        """Do what `release` does, unless somebody needs it still; one that was released is fine."""
        with self._mutex:
            if self._depth or self._pending or self._is_released:
                return True
            return self._free()

    def tell_also(self, on_lost: OnLost) -> None:
        """Call *on_lost* with this lock as well when it is lost."""
        renewal.tell_also(self._holding, partial(_tell, on_lost, ref(self)))

    def lose(self) -> None:
        """Take note that the lock is lost."""
        if not self.is_over:
            renewal.lose(self._holding)

    def die(self) -> None:
        """Take note that the transaction has been undone which the lock lived with."""
        renewal.discard(self._holding)
        self._is_released = True
        self._life.ended(freed=True)

    def _free(self) -> bool:
        renewal.discard(self._holding)
        if self.is_over:
            return False
        try:
            freed = self.backend.release(self._grant) and not self._holding.is_refused
        except StoreUnavailable:
            self._is_unsure = True
            raise
        # What was not held any more may have been freed by a try whose answer never came.
        freed = freed or (self._is_unsure and not self.lost)
        self._is_released = True
        self._life.ended(freed=freed)
        return freed


def _tell(on_lost: OnLost, lost: ref[HeldLock]) -> None:
    held = lost()
    if held is not None:
        on_lost(held)


def _lose(lost: ref[HeldLock]) -> None:
    held = lost()
    if held is not None:
        held.lose()


def _free_left(backend: BaseLockBackend, grant: Grant) -> None:
    """Free a lock that nobody can leave any more."""
    try:
        freed = backend.release(grant)
    except IdempotencyError:
        freed = False
    what = "was freed" if freed else "lasts until its lease is over"
    logger.warning("The lock %r was held by nobody any more, and %s.", grant.name, what)
