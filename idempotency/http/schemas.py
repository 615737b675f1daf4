"""What a protected operation takes and answers, as OpenAPI says it."""

from __future__ import annotations

from typing import Any

from ..conf import settings
from .marks import REPLAYED

PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "Problem details (RFC 9457).",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "retry": {
            "type": "object",
            "required": ["same_key"],
            "properties": {
                "same_key": {"type": "boolean"},
                "after": {"type": "integer", "description": "Seconds."},
            },
        },
    },
}

_PROBLEMS = {
    "400": "The idempotency key is missing or malformed.",
    "409": "A request with this key is in progress, or its outcome is not known.",
    "422": "This key was used for another request.",
    "503": "Idempotency cannot be guaranteed now; nothing was done.",
}
_WITH_RETRY_AFTER = frozenset({"409", "503"})


def header_parameter(*, is_required: bool) -> dict[str, Any]:
    """Give the parameter that carries the key."""
    return {
        "in": "header",
        "name": settings.HEADER,
        "required": is_required,
        "description": "One string for each intent, such as a UUID, that every retry repeats.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    }


def problem_responses() -> dict[str, Any]:
    """Give the answers that a protected operation may give in place of its own, by status."""
    return {status: _problem(status, about) for status, about in _PROBLEMS.items()}


def replay_header() -> dict[str, Any]:
    """Give the header that a replay has."""
    return {
        REPLAYED: {
            "description": "Present if the answer is that of an earlier request.",
            "schema": {"type": "string", "enum": ["true"]},
        }
    }


def _problem(status: str, about: str) -> dict[str, Any]:
    problem: dict[str, Any] = {
        "description": about,
        "content": {"application/problem+json": {"schema": PROBLEM}},
    }
    if status in _WITH_RETRY_AFTER:
        seconds = {"description": "Seconds.", "schema": {"type": "integer"}}
        problem["headers"] = {"Retry-After": seconds}
    return problem
