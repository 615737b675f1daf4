"""The first half of the protocol: get the claim, or read what stands in its way."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Generic, TypeVar

from .codecs import Codec
from .exceptions import IdempotencyError, KeyInProgress, KeyReused, OutcomeUnknown
from .keys import check_key, check_name, new_token
from .origins import current_origin
from .outlines import differences
from .policy import Policy
from .stores import get_store
from .stores.base import Bid, Call, Claim, Interrupted, Seen

logger = logging.getLogger("idempotency")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Result]):
    """The result of a call, and whether an earlier call had made it."""

    result: Result
    replayed: bool


@dataclass(frozen=True, slots=True)
class Raised:
    """An error of the work, on its way out of the transaction that keeps what is known of it."""

    error: BaseException


Found = Claim | Outcome[Result] | IdempotencyError
"""What a call meets that looks for its claim."""

Finished = Outcome[Result] | Raised
"""What comes of its work."""


def outcome_of(found: Found[Result] | Finished[Result] | None) -> Outcome[Result]:
    """Give the outcome of a call; raise what it ended with instead."""
    if isinstance(found, Outcome):
        return found
    if isinstance(found, Raised):
        raise found.error
    if isinstance(found, IdempotencyError):
        raise found
    raise AssertionError(f"{found!r} is not the end of a call.")


class Claiming(Generic[Result]):
    """One call in search of its claim; the token stays the same however often it is tried."""

    def __init__(self, call: Call, policy: Policy, codec: Codec[Result]) -> None:
        self.call = call
        self.policy = policy
        self.codec = codec
        self.store = get_store(policy.store)
        self.lease = policy.lease or self.store.lease
        self.retention = policy.retention or self.store.retention
        self.token = new_token()
        self.is_unconfirmed = False
        self.claimed: Claim | None = None
        self.seen: Seen | None = None

    @property
    def differences(self) -> tuple[str, ...] | None:
        """Where the input differs from that of the record that was seen; None if unknown."""
        return None if self.seen is None else differences(self.seen.outline, self.call.outline)

    def peek(self) -> Outcome[Result] | IdempotencyError | None:
        """Give what a look before any claim decides already, where such a look is cheap."""
        seen = self.store.peek(self.call)
        if seen is None or self._may_claim(seen):
            return None
        return self._read(seen)

    def claim(self, lease: float | None) -> Found[Result]:
        """Give the claim, the outcome to replay, or the error that tells why there is neither."""
        try:
            found = self.store.claim(self.call, self._bid(lease))
        except Interrupted:
            self.is_unconfirmed = True
            raise
        if found is None:
            return KeyInProgress(retry_after=1)
        if isinstance(found, Seen):
            return self._read(found)
        self.claimed = found
        return found

    def _bid(self, lease: float | None) -> Bid:
        take_over = self.policy.on_crash == "retry"
        return Bid(self.token, lease, self.retention, take_over, self.is_unconfirmed)

    def _may_claim(self, seen: Seen) -> bool:
        take_over = self.policy.on_crash == "retry"
        return seen.may_be_claimed(self.call.fingerprint, take_over=take_over)

    def _read(self, seen: Seen) -> Outcome[Result] | IdempotencyError:
        """Give what a record means for this call: the one place where inputs are compared."""
        self.seen = seen
        if not seen.matches(self.call.fingerprint):
            return KeyReused()
        if seen.state == "completed":
            return Outcome(self.codec.load(seen.answer), replayed=True)
        if seen.state == "unknown":
            return OutcomeUnknown()
        if self.policy.on_crash == "block" and seen.is_abandoned and self._block(seen):
            return OutcomeUnknown()
        return KeyInProgress(retry_after=max(1.0, seen.lease_left or 0))

    def _block(self, seen: Seen) -> bool:
        blocked = self.store.block(self.call, seen)
        if blocked:
            logger.error("%s died, and its outcome is unknown.", self.call.operation)
        return blocked


def make_call(
    scope: str, operation: str, key: str, fingerprint: str | None, outline: object = ""
) -> Call:
    """Give a call whose parts every store can keep; raise `KeyInvalid` or `ValueError` if not."""
    check_name(scope, "scope")
    check_name(operation, "operation")
    return Call(scope, operation, check_key(key), fingerprint or "", outline, current_origin())
