"""The second half of the protocol: write down what came of a claim."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from functools import partial
from typing import Generic, TypeVar

from django.db.transaction import TransactionManagementError

from .codecs import Codec, Verdict
from .exceptions import StaleClaim, StoreUnavailable
from .policy import Policy
from .stores.base import Answer, BaseStore, Claim, State, Unconfirmed
from .stores.belated import LEASES, belated

logger = logging.getLogger("idempotency")
Result = TypeVar("Result")

TRIES = 3
"""How often an outcome is written that nothing confirms."""

PROMPT = 1.0
"""Seconds after which a store that does not answer is not asked again: its caller waits."""


class Settling(Generic[Result]):
    """Ends claims as policy and codec say."""

    def __init__(
        self, store: BaseStore, policy: Policy, codec: Codec[Result], retention: float
    ) -> None:
        self.store = store
        self.policy = policy
        self.codec = codec
        self.retention = retention
        self.ended_as: State | None = None
        """What the claim was ended as, unless that was undone with its effects."""
        self.was_lost = False

    def judge(self, result: Result) -> tuple[Verdict, Answer]:
        """Give what becomes of *result*, and what is kept of it."""
        verdict = self.codec.judge(result)
        if self.store.is_rolling_back():
            verdict = Verdict.FAIL
        kept = verdict is Verdict.KEEP or self.policy.on_error == "store"
        return verdict, self.codec.dump(result) if kept else Answer()

    def settle(self, claim: Claim, verdict: Verdict, answer: Answer) -> None:
        """End *claim* in the transaction of its effects; raise `StaleClaim` if it was lost."""
        self.ended_as = self._state(verdict)
        self.store.settle(claim, self.ended_as, answer, self.retention)

    def settle_after(self, claim: Claim, verdict: Verdict, answer: Answer) -> None:
        """End *claim* once its effects cannot be changed any more, whatever the connection does."""
        deadline = time.monotonic() + PROMPT
        for _ in range(TRIES):
            try:
                return self.settle(claim, verdict, answer)
            except (StoreUnavailable, StaleClaim) as error:
                failure = error
                if time.monotonic() > deadline and not isinstance(error, StaleClaim):
                    break
                if state := self.settled_as(claim):
                    self.ended_as = state
                    return None
                if isinstance(error, StaleClaim):
                    raise
        logger.error("%s could not be settled.", claim.call.operation, exc_info=failure)
        if claim.lease is not None:
            again = partial(self.settle, claim, verdict, answer)
            belated(self.store).add(claim, LEASES * claim.lease, again)
        return None

    def settle_result(self, claim: Claim, result: Result) -> None:
        """End *claim* after its work gave *result*, or raised what judging that raises."""
        try:
            verdict, answer = self.judge(result)
        except BaseException as error:
            self.settle_error(claim, error)
            raise
        self.settle_after(claim, verdict, answer)

    def settle_error(self, claim: Claim, error: BaseException) -> None:
        """End *claim* after its work raised *error*, which the caller raises again."""
        if self._is_crash(claim, error):
            self._block(claim)
        elif self.policy.on_error == "store" and isinstance(error, Exception):
            self._settle_undone(claim, Verdict.FAIL, self.codec.dump_error(error))
        else:  # An interruption is no outcome that could be stored.
            released = self.policy.on_error == "store"
            self._settle_undone(claim, Verdict.FREE if released else Verdict.FAIL, Answer())

    def release(self, claim: Claim, error: BaseException, *, has_worked: bool = True) -> None:
        """Free the key of *claim*: *error* undid its effects, or came before there were any."""
        if has_worked and self._is_crash(claim, error):
            self._block(claim)
        elif not isinstance(error, StaleClaim):
            self._settle_undone(claim, Verdict.FREE, Answer())

    def _is_crash(self, claim: Claim, error: BaseException) -> bool:
        """Whether *error* ended the work half-way, and nobody may run it again unasked."""
        is_crash = isinstance(error, Unconfirmed) or not isinstance(error, Exception)
        return is_crash and claim.lease is not None and self.policy.on_crash == "block"

    def _block(self, claim: Claim) -> None:
        self.ended_as = "unknown"
        with suppress(StoreUnavailable, StaleClaim):  # It is found out when the lease is over.
            self.store.settle(claim, "unknown", Answer(), self.retention)

    def _settle_undone(self, claim: Claim, verdict: Verdict, answer: Answer) -> None:
        try:
            self.settle_after(claim, verdict, answer)
        except StaleClaim:
            self.was_lost = True
            logger.warning("%s lost its claim, and then failed.", claim.call.operation)

    def was_settled(self, claim: Claim) -> bool:
        """Look whether the end of *claim* was committed, when nothing confirmed it."""
        return self.settled_as(claim) is not None

    def settled_as(self, claim: Claim) -> State | None:
        """Give what *claim* was ended as, or None if it was not, or nobody can tell."""
        try:
            seen = self.store.look(claim.call)
        except (StoreUnavailable, TransactionManagementError):
            return None
        if seen is None or seen.token != claim.token or seen.state == "in_progress":
            return None
        return seen.state

    def _state(self, verdict: Verdict) -> State:
        if verdict is Verdict.KEEP:
            return "completed"
        if verdict is Verdict.FREE or self.policy.on_error == "release":
            return "released"
        return "completed" if self.policy.on_error == "store" else "unknown"
