"""What calls, locks and rows announce when they end; statistics and metrics listen."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

from django.dispatch import Signal

logger = logging.getLogger("idempotency")

CallOutcome = Literal[
    "executed",  # Ran, and its outcome is kept.
    "replayed",  # Got the outcome of an earlier call.
    "in_progress",  # Came while an earlier call was running.
    "reused",  # Had the key of an earlier call with another input.
    "unavailable",  # The outcome of the earlier call was not kept.
    "unknown",  # Nobody knows what came of the earlier call.
    "released",  # Ran without lasting effect; the key is free.
    "blocked",  # Ran and failed, and nobody knows with what effect.
    "lost",  # Ran, but had lost its claim: its effects were refused.
    "refused",  # Had no key, a malformed one, or a body that cannot be read.
    "store_error",  # The store could not be reached.
    "unprotected",  # The store could not be reached, and the work ran even so.
    "taken_over",  # Not an end: it goes on in place of a call that died.
]
LockOutcome = Literal["taken", "waited", "turned_away", "released", "lost", "store_error"]
RowOutcome = Literal["stale", "moved", "repeated", "conflict"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEvent:
    """
    One call with a key and what came of it; never the key itself.

    *status* is that of the answer; *origin* that of the run whose record it met, see `origins`;
    *differences* are JSON pointers to where the input of a reused key differs from the first
    one, None if that is not known.
    """

    operation: str
    outcome: CallOutcome
    seconds: float = 0.0  # From its arrival, or for a take-over 0.
    scope: str = ""
    record_id: UUID | None = None
    attempt: int | None = None
    status: int | None = None
    request_id: str = ""
    origin: str = ""
    differences: tuple[str, ...] | None = None
    at: float = field(default_factory=time.time)  # Seconds since 1970.

    @property
    def signal(self) -> Signal:
        """What it is announced under."""
        return OF_CALL[self.outcome]


@dataclass(frozen=True, slots=True, kw_only=True)
class LockEvent:
    """
    One step in the life of a lock.

    *template* is the name without what differs from call to call; *seconds* tells how long its
    holder waited ("taken", "waited", "turned_away") or held it ("released", "lost").
    """

    name: str
    template: str
    backend: str
    outcome: LockOutcome
    seconds: float = 0.0
    at: float = field(default_factory=time.time)

    @property
    def signal(self) -> Signal:
        """What it is announced under."""
        return OF_LOCK[self.outcome]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowEvent:
    """
    What came of a guarded change of a row; *name* is its model, or model and transition.

    Such as "orders.order" and "orders.order.pay".
    """

    name: str
    outcome: RowOutcome
    at: float = field(default_factory=time.time)

    @property
    def signal(self) -> Signal:
        """What it is announced under."""
        return OF_ROW[self.outcome]


record_completed = Signal()
"""A call ran, and its outcome is kept: "executed"."""

duplicate_found = Signal()
"""A call was not the first with its key: "replayed", "in_progress", "reused" and the like."""

claim_released = Signal()
"""A call ran without lasting effect, and its key is free again: "released"."""

claim_taken_over = Signal()
"""A call goes on in place of one that died: "taken_over"."""

claim_lost = Signal()
"""A call ran after its claim was another's, so that its effects were refused: "lost"."""

outcome_unknown = Signal()
"""A call failed, and nobody knows with what effect: "blocked"."""

call_refused = Signal()
"""A request could not be protected as it came: "refused"."""

store_failed = Signal()
"""A store could not be reached: "store_error", or "unprotected" if the work ran even so."""

lock_taken = Signal()
"""A lock was got: "taken" at the first try, else "waited"."""

lock_refused = Signal()
"""A lock was not got: "turned_away", or "store_error"."""

lock_released = Signal()
"""A lock was freed by its holder: "released"."""

lock_lost = Signal()
"""A holder found its lock lost when leaving it: "lost"."""

object_stale = Signal()
"""A save was refused as its row had changed since it was read: "stale"."""

transition_made = Signal()
"""A row was moved to another state: "moved"."""

transition_repeated = Signal()
"""A row was in the target state already, so nothing ran: "repeated"."""

transition_refused = Signal()
"""A row was in a state from which the transition does not lead: "conflict"."""

OF_CALL: dict[CallOutcome, Signal] = {
    "executed": record_completed,
    "replayed": duplicate_found,
    "in_progress": duplicate_found,
    "reused": duplicate_found,
    "unavailable": duplicate_found,
    "unknown": duplicate_found,
    "released": claim_released,
    "blocked": outcome_unknown,
    "lost": claim_lost,
    "refused": call_refused,
    "store_error": store_failed,
    "unprotected": store_failed,
    "taken_over": claim_taken_over,
}
OF_LOCK: dict[LockOutcome, Signal] = {
    "taken": lock_taken,
    "waited": lock_taken,
    "turned_away": lock_refused,
    "store_error": lock_refused,
    "released": lock_released,
    "lost": lock_lost,
}
OF_ROW: dict[RowOutcome, Signal] = {
    "stale": object_stale,
    "moved": transition_made,
    "repeated": transition_repeated,
    "conflict": transition_refused,
}
SIGNALS = [*dict.fromkeys([*OF_CALL.values(), *OF_LOCK.values(), *OF_ROW.values()])]
"""All of them, for those who listen to everything."""


def announce(event: CallEvent | LockEvent | RowEvent) -> None:
    """
    Tell all who listen of *event*, under the signal of its outcome.

    Receivers take `event` and have the time of a request: they are synchronous, and must not wait.
    What they raise is logged, and changes nothing for the call.
    """
    try:
        event.signal.send_robust(sender=type(event), event=event)
    except Exception:  # Django refuses coroutine functions there, where a loop runs.
        logger.exception("A receiver of %s cannot be called; is it synchronous?", event.outcome)


def announce_error(error: Exception, event: RowEvent) -> None:
    """Announce that a row was refused by *error*, unless somebody further in has told of that."""
    if not getattr(error, "is_announced", False):
        error.is_announced = True  # type: ignore[attr-defined]
        announce(event)
