"""What a store does: four steps on one record, each decided by the record's token."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from django.core.checks import CheckMessage

from ..backends import check_options, seconds_of
from ..exceptions import StoreUnavailable
from ..keys import record_id

State = Literal["in_progress", "completed", "released", "unknown"]


class Interrupted(StoreUnavailable):
    """A step failed in a way that another try in a new transaction may cure."""


class Unconfirmed(StoreUnavailable):
    """The connection was lost during a commit, so it may have taken place or not."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call with a key, as a store sees it; *id* is the record's primary key."""

    scope: str
    operation: str
    key: str
    fingerprint: str = ""  # "" if inputs are not compared.
    outline: object = field(default="", compare=False)  # Its text tells where inputs differ.
    origin: str = field(default="", compare=False)  # See `origins`.
    id: uuid.UUID = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", record_id(self.scope, self.operation, self.key))


@dataclass(frozen=True, slots=True)
class Bid:
    """What a caller brings to a claim; durations are seconds."""

    token: int
    lease: float | None  # None for a claim that lives as long as its transaction.
    retention: float
    take_over: bool = True  # Whether an abandoned claim may be taken over.
    is_unconfirmed: bool = False  # Whether an earlier try with this token may have been recorded.


@dataclass(frozen=True, slots=True)
class Answer:
    """What a completed call answered, as kept: *body* is None if it was not kept."""

    status: int | None = None
    headers: list[list[str]] | None = None
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to run a call once, proved by its *token*; *attempt* counts from 1."""

    call: Call
    token: int
    attempt: int
    lease: float | None  # Seconds; None if the claim lives as long as its transaction.
    taken_over: bool = field(default=False, compare=False)  # From a call that seems to have died.


@dataclass(frozen=True, slots=True)
class Seen:
    """A record as another call finds it, judged by the store's clock."""

    state: State
    token: int
    attempt: int
    fingerprint: str
    kept_for: float | None = None  # Seconds until its retention is over, if the store tells.
    lease_left: float | None = None  # Seconds until its lease is over; None if it has no lease.
    answer: Answer = Answer()
    outline: str = ""
    origin: str = ""

    @property
    def is_free(self) -> bool:
        """Whether anyone may claim the key as if it were new."""
        return self.state == "released" or (self.state == "completed" and self.is_expired)

    @property
    def is_expired(self) -> bool:
        """Whether its retention is over."""
        return self.kept_for is not None and self.kept_for <= 0

    @property
    def is_abandoned(self) -> bool:
        """Whether its claim was neither completed nor renewed."""
        return self.state == "in_progress" and self.lease_left is not None and self.lease_left <= 0

    def of(self, call: Call) -> Call:
        """Give *call* with what the record knows of the input that was first."""
        return replace(call, fingerprint=self.fingerprint, outline=self.outline, origin=self.origin)

    def is_held_by(self, token: int) -> bool:
        """Whether it is the running claim with this *token*."""
        return self.state == "in_progress" and self.token == token

    def matches(self, fingerprint: str) -> bool:
        """Whether its input is the same as far as both are known."""
        return not (self.fingerprint and fingerprint) or self.fingerprint == fingerprint

    def may_be_claimed(self, fingerprint: str, *, take_over: bool = True) -> bool:
        """Whether a new claim may take the record over, by the same rules in every store."""
        return self.is_free or (take_over and self.is_abandoned and self.matches(fingerprint))


class BaseStore(ABC):
    """
    Keeps records and decides claims; every write after a claim carries the claim's token.

    Raises from each step: `StoreUnavailable` if the store cannot be reached.
    """

    supports_atomic = False
    """Whether claim, effects and outcome can be one transaction."""

    undoes_effects = False
    """Whether `transaction` undoes the effects of a claim that cannot be settled in it."""

    option_names: Collection[str] | None = None
    """What OPTIONS may have; None if anything."""

    using: str | None = None
    """The alias of the database that `transaction` opens one on."""

    def __init__(self, alias: str, options: Mapping[str, Any]) -> None:
        self.alias = alias
        self.options: Mapping[str, Any] = options["OPTIONS"]
        where = f"IDEMPOTENCY_STORES[{alias!r}]"
        if self.option_names is not None:
            check_options(self.options, self.option_names, f"{where}['OPTIONS']")
        self.lease = seconds_of(options, "LEASE", where)
        self.retention = seconds_of(options, "RETENTION", where)

    @abstractmethod
    def claim(self, call: Call, bid: Bid) -> Claim | Seen | None:
        """
        Claim *call* if its record is absent, free or, if *bid* takes over, abandoned.

        Give the claim, or the record that stands in its way, or None if that is not visible yet.
        """

    @abstractmethod
    def settle(self, claim: Claim, state: State, answer: Answer, retention: float) -> None:
        """
        End *claim* in *state* with *answer*, kept for *retention* seconds from now.

        Raises: `StaleClaim` if the claim is no longer this one's.
        """

    @abstractmethod
    def renew(self, claims: Collection[Claim]) -> Collection[Claim]:
        """Let each lease start anew; give the claims that were lost."""

    @abstractmethod
    def look(self, call: Call) -> Seen | None:
        """Give the record as it is now, without changing anything."""

    @abstractmethod
    def block(self, call: Call, seen: Seen) -> bool:
        """Turn the abandoned claim that was *seen* into an unknown outcome; tell if it was."""

    @abstractmethod
    def decide(self, call: Call, seen: Seen, state: State, answer: Answer) -> bool:
        """Write what a person decided over the record that was *seen*; tell if it was still so."""

    @property
    def in_transaction(self) -> bool:
        """Whether the caller has opened a transaction in which a claim would stay invisible."""
        return False

    def transaction(self) -> AbstractContextManager[object]:
        """
        Open the transaction that effects and outcome share, if the store has one.

        Raises: `Unconfirmed` if nobody knows whether it was committed.
        """
        return nullcontext()

    def roll_back(self) -> None:  # noqa: B027 - a store without transactions has nothing to undo.
        """Let the innermost `transaction` undo, at its end, what was done in it."""

    def is_rolling_back(self) -> bool:
        """Whether the innermost `transaction` will be undone."""
        return False

    def when_committed(self, callback: Callable[[], object]) -> bool:
        """Call *callback* when the transaction around that of a claim is committed, if any is."""
        return False

    def peek(self, call: Call) -> Seen | None:
        """Give what a look before the claim shows, where that is cheaper than a claim."""
        return None

    def check(self) -> list[CheckMessage]:
        """Give what is wrong with this store's settings, without asking any server."""
        return []

    def check_service(self) -> list[CheckMessage]:
        """Give what is wrong with the server behind this store."""
        return []
