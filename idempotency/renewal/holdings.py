"""What has a lease, and what is known of it without asking."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Protocol

from ..uptime import uptime
from .calls import call_apart

MOST_LEASES = 120
"""A lease is renewed for at most so many times its length: what hangs must end one day."""


class Renewer(Protocol):
    """What can renew many of its leases in one step."""

    def renew(self, claims: Collection[Any]) -> Collection[Any]:
        """Let each lease start anew; give those that were lost."""
        ...


class Holding:
    """
    Something with a lease, until it is let go.

    Instants are those of `uptime`. It is renewed while *keeper* has it, told of while *untold*.
    """

    __slots__ = (
        "claim",
        "due_at",
        "ends_at",
        "is_refused",
        "keeper",
        "renewer",
        "stops_at",
        "third",
        "untold",
    )

    def __init__(
        self,
        renewer: Renewer,
        claim: Any,
        lease: float,
        on_lost: Callable[[], object] | None = None,
        started_at: float | None = None,
    ) -> None:
        now = uptime() if started_at is None else started_at
        self.renewer = renewer
        self.claim = claim
        self.third = lease / 3
        self.due_at = now + self.third
        self.ends_at = now + lease
        self.stops_at = now + lease * MOST_LEASES
        self.is_refused = False
        self.keeper: set[Holding] | None = None
        self.untold = [] if on_lost is None else [on_lost]

    @property
    def lost(self) -> bool:
        """Whether another may hold it: the lease is over, or its renewal was refused."""
        return self.is_refused or uptime() >= self.ends_at

    @property
    def is_doubtful(self) -> bool:
        """Whether the lease may have ended by the store's clock, as after a pause."""
        return self.is_refused or uptime() >= self.ends_at - self.third

    def renewed(self, started_at: float) -> None:
        """Let the lease start anew from *started_at*, when the renewal was asked for."""
        self.due_at = started_at + self.third
        self.ends_at = started_at + 3 * self.third

    def failed(self, started_at: float) -> None:
        """Try again; after its end as well, as it is renewed if nobody took it meanwhile."""
        is_over = started_at >= self.ends_at
        self.due_at = started_at + (self.third if is_over else self.third / 4)

    def leave(self) -> bool:
        """Let nobody renew it any more; tell whether somebody did."""
        if self.keeper is None:
            return False
        try:
            self.keeper.remove(self)
        except KeyError:  # Another thread was faster.
            return False
        return True

    def tell(self) -> None:
        """Let all whom the loss concerns know of it, once, each in a thread of its own."""
        while self.untold:
            try:
                on_lost = self.untold.pop()
            except IndexError:  # Here too.
                return
            call_apart(on_lost)
