"""Make every API call, message and transition take effect once."""

from .claims import RunningClaim, current_claim
from .decorators import idempotent, idempotent_view
from .exceptions import (
    BodyInvalid,
    BodyTooLarge,
    IdempotencyError,
    InvalidBackend,
    KeyInProgress,
    KeyInvalid,
    KeyMissing,
    KeyReused,
    LockUnavailable,
    OutcomeUnknown,
    ReplayUnavailable,
    StaleClaim,
    StaleLock,
    StaleObject,
    StoreUnavailable,
    TransitionConflict,
)
from .protocol import Outcome, arun_once, run_once

__all__ = [
    "BodyInvalid",
    "BodyTooLarge",
    "IdempotencyError",
    "InvalidBackend",
    "KeyInProgress",
    "KeyInvalid",
    "KeyMissing",
    "KeyReused",
    "LockUnavailable",
    "Outcome",
    "OutcomeUnknown",
    "ReplayUnavailable",
    "RunningClaim",
    "StaleClaim",
    "StaleLock",
    "StaleObject",
    "StoreUnavailable",
    "TransitionConflict",
    "arun_once",
    "current_claim",
    "idempotent",
    "idempotent_view",
    "run_once",
]
