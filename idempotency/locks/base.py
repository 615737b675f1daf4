"""What a lock backend does: three steps that never wait; all else is built on them once."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.core.checks import CheckMessage

from ..backends import check_options, seconds_of
from ..exceptions import LockUnavailable, StoreUnavailable
from ..rollbacks import Within


@dataclass(frozen=True, slots=True)
class Ask:
    """
    One caller's wish for a lock.

    *owner* is the same at every try, and nobody else's; a caller that *queues* tries again until
    it has the lock or withdraws. *asked_at* tells its first try, by `time.monotonic`.
    """

    name: str
    owner: str
    lease: float
    queues: bool = False
    asked_at: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class Grant:
    """
    A lock that was got; its *token* is greater than that of every holder before.

    *lease* is seconds, or None if the lock lives as long as the caller's transaction; *within*
    tells whether that one goes on, if the backend has to know.
    """

    name: str
    owner: str
    token: int
    lease: float | None
    within: Within | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Busy:
    """A lock that another has, for *left* seconds more unless it is renewed (None: unknown)."""

    left: float | None = None


@dataclass(frozen=True, slots=True)
class LiveLock:
    """A lock that is held right now, as a person wants to see it; durations are seconds."""

    name: str
    owner: str
    token: int
    held_for: float | None
    left: float | None
    waiters: int = 0


class BaseLockBackend(ABC):
    """
    Decides who holds a lock.

    Raises from each step: `StoreUnavailable` if nobody can tell.
    """

    using: str | None = None
    """The alias of the database that keeps the locks, if one does."""

    thread_sensitive = False
    """Whether asynchronous callers need the thread that Django's ORM uses for them."""

    supports_eviction = True
    """Whether `evict` can free a lock that another process holds."""

    option_names: Collection[str] | None = None
    """What OPTIONS may have; None does not check that."""

    def __init__(self, alias: str, options: Mapping[str, Any]) -> None:
        self.alias = alias
        self.options: Mapping[str, Any] = options["OPTIONS"]
        where = f"IDEMPOTENCY_LOCKS[{alias!r}]"
        self.lease = seconds_of(options, "LEASE", where)
        if self.option_names is not None:
            check_options(self.options, self.option_names, f"{where}['OPTIONS']")

    @property
    def place(self) -> str:
        """What tells apart where locks are kept: two aliases may share it, and so their locks."""
        return self.alias if self.using is None else f"{type(self).__qualname__}:{self.using}"

    @abstractmethod
    def acquire(self, ask: Ask) -> Grant | Busy:
        """
        Give the lock if nobody has it, or whoever had it lost it.

        Asked once more by an owner that has it, give the same grant.
        """

    @abstractmethod
    def renew(self, grants: Collection[Grant]) -> Collection[Grant]:
        """Let each lease start anew; give those that were lost."""

    @abstractmethod
    def release(self, grant: Grant) -> bool:
        """
        Free the lock if *grant* still holds it, and tell whether it did.

        Raises: `StoreUnavailable` if that cannot be known, as for a try whose answer was lost.
        """

    @abstractmethod
    def withdraw(self, ask: Ask) -> None:
        """Leave nothing behind of *ask*, whose caller no longer waits."""

    @abstractmethod
    def live(self, limit: int = 1_000) -> list[LiveLock]:
        """Give the locks that are held now, the oldest first; of more than *limit*, any."""

    def evict(self, lock: LiveLock) -> bool:
        """
        Free *lock*, as a person wants it, if it is still held by the same holder; tell if it was.

        The holder finds it lost at its next renewal.
        """
        return self.release(Grant(lock.name, lock.owner, lock.token, self.lease))

    def pause(self, ask: Ask, busy: Busy, seconds: float) -> None:
        """Wait until another try may go better, at most *seconds*."""
        time.sleep(seconds)

    def watch(self, grant: Grant, on_loss: Callable[[], object]) -> None:  # noqa: B027
        """
        Call *on_loss*, in any thread, once *grant* is known to be lost, if that is told at once.

        Most backends learn it when they renew.
        """

    def may_leave(self, ask: Ask, error: BaseException) -> bool:
        """
        Whether *error*, which ended *ask*, may have left something that `withdraw` takes away.

        That is a place in the queue, or a lock whose grant never arrived.
        """
        return ask.queues or not isinstance(error, LockUnavailable)

    def check_lease(self, lease: float) -> None:  # noqa: B027 - most bear any length.
        """Raise `ValueError` if the backend cannot keep to a lease of *lease* seconds."""

    def check(self) -> list[CheckMessage]:
        """Give what is wrong with this backend's settings."""
        return []

    def check_service(self) -> list[CheckMessage]:
        """Give what is wrong with the database *using*, which may be asked here."""
        return []


def untold(grant: Grant) -> StoreUnavailable:
    """Give the error of a release that was sent twice, and of which the second found nothing."""
    return StoreUnavailable(
        f"Nobody can tell whether the lock {grant.name!r} was freed here or lost before.",
        retry_after=1,
    )
