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
    LockReentered,
    LockUnavailable,
    OutcomeUnknown,
    PreconditionFailed,
    PreconditionInvalid,
    PreconditionRequired,
    ReplayUnavailable,
    StaleClaim,
    StaleLock,
    StaleObject,
    StoreUnavailable,
    TransitionConflict,
)
from .locking import cache_lock, lock
from .locks import HeldLock
from .middleware import not_idempotent
from .protocol import Outcome, arun_once, run_once

__all__ = [
    "BodyInvalid",
    "BodyTooLarge",
    "HeldLock",
    "IdempotencyError",
    "InvalidBackend",
    "KeyInProgress",
    "KeyInvalid",
    "KeyMissing",
    "KeyReused",
    "LockReentered",
    "LockUnavailable",
    "Outcome",
    "OutcomeUnknown",
    "PreconditionFailed",
    "PreconditionInvalid",
    "PreconditionRequired",
    "ReplayUnavailable",
    "RunningClaim",
    "StaleClaim",
    "StaleLock",
    "StaleObject",
    "StoreUnavailable",
    "TransitionConflict",
    "arun_once",
    "cache_lock",
    "current_claim",
    "idempotent",
    "idempotent_view",
    "lock",
    "not_idempotent",
    "run_once",
]
