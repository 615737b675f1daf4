"""Errors as a client sees them: problem details (RFC 9457)."""

from __future__ import annotations

import logging
import math
from typing import Any, NamedTuple

from django.http import HttpResponse, JsonResponse

from .. import exceptions
from ..conf import settings
from ..exceptions import IdempotencyError, StoreUnavailable, TransitionConflict
from .etags import etag_of_conflict
from .marks import REPLAYED

logger = logging.getLogger("idempotency")
TYPE = "urn:django-idempotency:problem:"


class Problem(NamedTuple):
    """How one error is told: *same_key* says whether a retry with the same key may succeed."""

    status: int
    type: str
    title: str
    same_key: bool | None = None
    after: int | None = None
    """Seconds after which to repeat it, unless the error knows better."""


PROBLEMS: dict[type[IdempotencyError], Problem] = {
    exceptions.KeyMissing: Problem(400, "key-missing", "Idempotency key missing"),
    exceptions.KeyInvalid: Problem(400, "key-invalid", "Idempotency key invalid", False),
    exceptions.BodyInvalid: Problem(400, "body-invalid", "Body invalid", False),
    exceptions.BodyTooLarge: Problem(413, "body-too-large", "Body too large", False),
    exceptions.KeyReused: Problem(422, "key-reused", "Idempotency key reused", False),
    exceptions.KeyInProgress: Problem(409, "request-in-progress", "Request in progress", True),
    exceptions.StaleClaim: Problem(409, "request-in-progress", "Request taken over", True, 1),
    exceptions.OutcomeUnknown: Problem(409, "outcome-unknown", "Outcome unknown", True),
    exceptions.ReplayUnavailable: Problem(409, "replay-unavailable", "Answer not kept", False),
    exceptions.StoreUnavailable: Problem(
        503, "idempotency-unavailable", "Idempotency unavailable", True
    ),
    exceptions.LockUnavailable: Problem(409, "locked", "Locked", True),
    exceptions.StaleLock: Problem(409, "locked", "Lock lost", True, 1),
    exceptions.StaleObject: Problem(409, "stale-object", "Stale object", False),
    exceptions.PreconditionFailed: Problem(
        412, "precondition-failed", "Precondition failed", False
    ),
    exceptions.PreconditionRequired: Problem(
        428, "precondition-required", "Precondition required", False
    ),
    exceptions.PreconditionInvalid: Problem(
        400, "precondition-invalid", "Precondition invalid", False
    ),
    exceptions.TransitionConflict: Problem(409, "transition-conflict", "State conflict", False),
}


def problem_response(error: IdempotencyError) -> HttpResponse:
    """Give the answer that tells *error*; it never contains a key or a kept answer."""
    if isinstance(error, StoreUnavailable):
        logger.warning("Answered 503: %s Cause: %s", error, _cause_of(error))
    location = getattr(error, "location", None)
    if location:
        return _elsewhere(location)
    problem = next(PROBLEMS[kind] for kind in type(error).__mro__ if kind in PROBLEMS)
    after = problem.after if error.retry_after is None else math.ceil(error.retry_after)
    response = JsonResponse(
        _members(problem, error, after),
        status=problem.status,
        content_type="application/problem+json",
        headers={"Cache-Control": "no-store"},
    )
    if problem.same_key and after is not None:
        response["Retry-After"] = str(after)
    etag = etag_of_conflict(error)
    if etag is not None:
        response["ETag"] = etag
    if problem.status == 400 and settings.DOCS_URL:
        response["Link"] = f'<{settings.DOCS_URL}>; rel="describedby"'
    return response


def status_of(error: BaseException) -> int | None:
    """Give the status that tells *error*, or None if it is none of ours."""
    if getattr(error, "location", None):
        return 303
    known = (PROBLEMS[kind].status for kind in type(error).__mro__ if kind in PROBLEMS)
    return next(known, None)


def _cause_of(error: StoreUnavailable) -> str:
    """Give what the server said: its first line, as others quote a statement and so keys."""
    cause = error.__cause__ or error
    first, *_ = str(cause).splitlines() or [""]
    return f"{type(cause).__name__}: {first}"


def _members(problem: Problem, error: IdempotencyError, after: int | None) -> dict[str, Any]:
    members: dict[str, Any] = {
        "type": TYPE + problem.type,
        "title": problem.title,
        "status": problem.status,
        "detail": str(error),
    }
    if isinstance(error, TransitionConflict) and error.actual is not None:
        members["state"] = str(error.actual)
    if problem.same_key is not None:
        members["retry"] = {"same_key": problem.same_key}
        if problem.same_key and after is not None:
            members["retry"]["after"] = after
    return members


def _elsewhere(location: str) -> HttpResponse:
    """Send the client to what the first call made, as its answer itself was not kept."""
    headers = {
        "Location": location,
        "Cache-Control": "no-store",
        REPLAYED: "true",
    }
    return HttpResponse(status=303, headers=headers)
