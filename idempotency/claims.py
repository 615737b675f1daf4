"""The claim under which the current work runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast
from uuid import UUID

from .current import running as current
from .exceptions import StaleClaim
from .keys import record_id
from .renewal import Holding
from .stores.base import Claim


class RunningClaim:
    """What work may know of its claim."""

    __slots__ = ("_claim", "_holding")

    def __init__(self, claim: Claim, holding: Holding | None = None) -> None:
        self._claim = claim
        self._holding = holding

    @property
    def key(self) -> str:
        return self._claim.call.key

    @property
    def record_id(self) -> UUID:
        """The primary key of the record of this key."""
        return self._claim.call.id

    @property
    def token(self) -> int:
        """The fencing token: greater at every claim of this key."""
        return self._claim.token

    @property
    def attempt(self) -> int:
        """Which claim of this key it is, from 1: more if earlier ones were released or died."""
        return self._claim.attempt

    @property
    def lost(self) -> bool:
        """Whether the lease is known to be lost; what the work does now will not be completed."""
        return self._holding is not None and self._holding.lost

    def assert_held(self) -> None:
        """
        Refuse to go on with a lost claim: call it last in a transaction, so that it rolls back.

        Asks the store if the lease may have ended, and lets it start anew if it is not lost.

        Raises: `StaleClaim`; `StoreUnavailable` if nobody can tell.
        """
        holding = self._holding
        if holding is None or not holding.is_doubtful:
            return
        if holding.renewer.renew([self._claim]):
            raise StaleClaim

    def child_key(self, name: str) -> str:
        """Give the key for the call of another service, the same one at every attempt."""
        return str(record_id(str(self._claim.call.id), "child", name))


def current_claim() -> RunningClaim | None:
    """Give the claim under which this code runs, or None if it runs unprotected."""
    return cast("RunningClaim | None", current.get())


@contextmanager
def running(claim: Claim, holding: Holding | None = None) -> Iterator[None]:
    """Make *claim* the current one."""
    reset = current.set(RunningClaim(claim, holding))
    try:
        yield
    finally:
        current.reset(reset)
