"""What a call came to, announced once that is certain."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from .claiming import Claiming, Outcome
from .exceptions import (
    IdempotencyError,
    KeyInProgress,
    KeyReused,
    OutcomeUnknown,
    ReplayUnavailable,
    StaleClaim,
    StoreUnavailable,
)
from .settling import Settling
from .signals import CallEvent, CallOutcome, announce
from .stores.base import Claim, State, Unconfirmed

Result = TypeVar("Result")


class Progress(Protocol):
    """How far a call has come, as far as a report looks."""

    claiming: Claiming[Any]
    settling: Settling[Any]
    has_started: bool
    is_unprotected: bool


class Report:
    """
    What is told of one call: its `CallEvent`.

    In a transaction around the call nothing is certain before its commit, so it is told then.
    """

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.request_id = ""
        self.status: int | None = None
        self.status_of: Callable[[BaseException], int | None] = lambda error: None
        self._started_at = time.perf_counter()
        self.is_over = False
        """Whether the transaction of the claim has ended without an error."""
        self._awaits_commit = False
        self._pending: list[CallEvent] = []

    def told(self, execute: Callable[[], Outcome[Result]]) -> Outcome[Result]:
        """Give the outcome of *execute*, and announce it."""
        try:
            outcome = execute()
        except BaseException as error:
            self._tell_error(error)
            raise
        self._tell(outcome)
        return outcome

    async def atold(self, execute: Awaitable[Outcome[Result]]) -> Outcome[Result]:
        """Do what `told` does, for a coroutine."""
        try:
            outcome = await execute
        except BaseException as error:
            self._tell_error(error)
            raise
        self._tell(outcome)
        return outcome

    def claimed(self, claim: Claim) -> None:
        """Take note of the claim, in its transaction if it has no lease, before all else."""
        if claim.lease is None:
            self._awaits_commit = self.progress.claiming.store.when_committed(self._commit)
        if claim.taken_over:
            self._announce(self._event("taken_over", seconds=0.0), "in_progress")

    def _commit(self) -> None:
        self._awaits_commit = False
        for event in self._pending:
            announce(event)

    def _tell(self, outcome: Outcome[Any]) -> None:
        state = self.progress.settling.ended_as
        self._announce(self._event(self._outcome_of(outcome, state)), state)

    def _announce(self, event: CallEvent, state: State | None) -> None:
        """Tell of *event*; one that wrote a *state* may yet be undone by a caller's transaction."""
        if self._awaits_commit and state is not None:
            self._pending.append(event)
        else:
            announce(event)

    def _outcome_of(self, outcome: Outcome[Any], state: State | None) -> CallOutcome:
        if outcome.replayed:
            return "replayed"
        return _ENDS.get(state, "released") if self.progress.has_started else "unprotected"

    def _tell_error(self, error: BaseException) -> None:
        state = self._state_after_error()
        outcome = self._outcome_after(error, state)
        if outcome is not None:
            self._announce(self._event(outcome, status=self.status_of(error)), state)

    def _state_after_error(self) -> State | None:
        """Give what the claim was ended as, unless that was undone with its transaction."""
        settling, claim = self.progress.settling, self.progress.claiming.claimed
        if claim is None or claim.lease is not None or self.is_over or settling.ended_as is None:
            return settling.ended_as
        # The commit failed, or a hook after it.
        return None if self._awaits_commit else settling.settled_as(claim)

    def _outcome_after(self, error: BaseException, state: State | None) -> CallOutcome | None:
        if self.progress.is_unprotected:
            return "unprotected"
        if not self.progress.has_started:
            named = (outcome for kind, outcome in _REFUSALS if isinstance(error, kind))
            return next(named, None if self.progress.claiming.claimed is None else "released")
        if isinstance(error, StaleClaim) or self.progress.settling.was_lost:
            return "lost"
        undone: CallOutcome = "store_error" if isinstance(error, Unconfirmed) else "released"
        return _ENDS.get(state, undone)

    def _event(
        self, outcome: CallOutcome, *, status: int | None = None, seconds: float | None = None
    ) -> CallEvent:
        claiming = self.progress.claiming
        claim, seen = claiming.claimed, claiming.seen
        known = claim or seen
        if outcome == "replayed" and seen is not None:
            status = seen.answer.status
        return CallEvent(
            operation=claiming.call.operation,
            outcome=outcome,
            seconds=time.perf_counter() - self._started_at if seconds is None else seconds,
            scope=claiming.call.scope,
            record_id=claiming.call.id,
            attempt=None if known is None else known.attempt,
            status=self.status if status is None else status,
            request_id=self.request_id,
            origin="" if seen is None else seen.origin,
            differences=claiming.differences if outcome == "reused" else None,
        )


_ENDS: dict[State | None, CallOutcome] = {
    "completed": "executed",
    "released": "released",
    "unknown": "blocked",
}
_REFUSALS: list[tuple[type[IdempotencyError], CallOutcome]] = [
    (KeyInProgress, "in_progress"),
    (KeyReused, "reused"),
    (OutcomeUnknown, "unknown"),
    (ReplayUnavailable, "unavailable"),
    (StoreUnavailable, "store_error"),
]
