"""Every error that this app raises."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ImproperlyConfigured

__all__ = [
    "BodyInvalid",
    "BodyTooLarge",
    "IdempotencyError",
    "InvalidBackend",
    "KeyInProgress",
    "KeyInvalid",
    "KeyMissing",
    "KeyReused",
    "LockReentered",
    "LockUnavailable",
    "OutcomeUnknown",
    "PreconditionFailed",
    "PreconditionInvalid",
    "PreconditionRequired",
    "ReplayUnavailable",
    "StaleClaim",
    "StaleLock",
    "StaleObject",
    "StoreUnavailable",
    "TransitionConflict",
]


class IdempotencyError(Exception):
    """The call was not run, or its outcome was not kept."""

    def __init__(self, message: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(message or " ".join((type(self).__doc__ or "").split()))
        self.retry_after = retry_after


class KeyMissing(IdempotencyError):
    """This operation needs an idempotency key; send one that you keep for every retry."""


class KeyInvalid(IdempotencyError):
    """The idempotency key is malformed; send one string of 1 to 255 printable ASCII characters."""


class BodyInvalid(IdempotencyError):
    """The body is not what its content type says; nothing was run."""


class BodyTooLarge(IdempotencyError):
    """The body is larger than this server reads; nothing was run."""


class KeyInProgress(IdempotencyError):
    """A call with this key is still running; retry with the same key a little later."""


class KeyReused(IdempotencyError):
    """This key was used with another input; a new intent needs a new key."""


class OutcomeUnknown(IdempotencyError):
    """
    An earlier run with this key ended without telling its outcome; somebody has to find out.

    Until then the key runs nothing.
    """


class ReplayUnavailable(IdempotencyError):
    """The call took effect, but its answer was not kept; look the result up instead."""

    def __init__(self, message: str = "", *, location: str | None = None) -> None:
        super().__init__(message)
        self.location = location


class StoreUnavailable(IdempotencyError):
    """The store of idempotency records cannot be reached; retry with the same key."""


class StaleClaim(IdempotencyError):
    """The claim was lost while its work ran; its writes were rolled back or refused."""


class LockUnavailable(IdempotencyError):
    """Another holder has this lock; retry after `retry_after` seconds."""


class LockReentered(LockUnavailable):
    """This code holds the lock already; say reentrant=True if it may enter it again."""


class StaleLock(IdempotencyError):
    """The lock was lost; a newer holder has written since."""


class StaleObject(IdempotencyError):
    """The row has changed since it was read; read it again and decide anew."""

    def __init__(
        self,
        message: str = "",
        *,
        model: Any = None,
        pk: Any = None,
        expected: Any = None,
        actual: Any = None,
    ) -> None:
        super().__init__(message)
        self.model, self.pk, self.expected, self.actual = model, pk, expected, actual


class PreconditionRequired(IdempotencyError):
    """This change needs an If-Match header: the ETag of the version that it is made for."""


class PreconditionInvalid(IdempotencyError):
    """The header If-Match is malformed; send an ETag as you got it, with its quotes."""


class PreconditionFailed(IdempotencyError):
    """The row is not as If-Match says; read it again and decide anew."""

    def __init__(
        self, message: str = "", *, model: Any = None, pk: Any = None, actual: Any = None
    ) -> None:
        super().__init__(message)
        self.model, self.pk, self.actual = model, pk, actual


class TransitionConflict(IdempotencyError):
    """The row is in a state from which this transition does not lead."""

    def __init__(self, message: str = "", *, expected: Any = None, actual: Any = None) -> None:
        super().__init__(message)
        self.expected, self.actual = expected, actual


class InvalidBackend(ImproperlyConfigured):
    """A store or lock backend is configured wrongly."""
