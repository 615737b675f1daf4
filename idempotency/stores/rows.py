"""The columns of a record, as SQL: what a claim writes, and what its end does."""

from __future__ import annotations

import json
from typing import Any

from ..clocks import Fragment
from ..models import IdempotencyRecord
from .base import Answer, Bid, Call, State
from .sql import SLACK, Dialect, never

OF_CLAIM = ("state", "token", "fingerprint", "outline", "origin", "ends_at")
"""What a claim writes over a record that is there."""

OF_OUTCOME = ("status", "headers", "body", "completed_at", "expires_at")
"""And what it takes away."""


def claimed(dialect: Dialect, call: Call, bid: Bid) -> dict[str, Fragment]:
    """Give the row of the first claim of *call*."""
    return {
        "id": ("%s", [stored_id(dialect, call)]),
        "state": ("'in_progress'", []),
        "token": ("%s", [bid.token]),
        "attempts": ("1", []),
        "scope": ("%s", [call.scope]),
        "operation": ("%s", [call.operation]),
        "key": ("%s", [call.key]),
        "fingerprint": ("%s", [call.fingerprint]),
        "outline": ("%s", [str(call.outline)]),
        "origin": ("%s", [call.origin]),
        "created_at": dialect.now(),
        "ends_at": ends_at(dialect, bid.lease),
        "purge_after": dialect.after(bid.retention + SLACK),
    }


def ended(
    dialect: Dialect,
    state: State,
    answer: Answer,
    retention: float,
    *,
    before: State = "in_progress",
) -> dict[str, Fragment]:
    """Give what the end of a claim changes; *before* is the state that it ends."""
    changes = outcome(dialect, state, answer, retention)
    expires_at = changes["expires_at"]
    if state == "unknown":
        purge_after = never()
    else:
        purge_after = expires_at if before == "unknown" else latest(dialect, expires_at)
    return {**changes, "purge_after": purge_after}


def outcome(
    dialect: Dialect, state: State, answer: Answer, retention: float
) -> dict[str, Fragment]:
    """Give what is known of a call that ended in *state*."""
    headers = None if answer.headers is None else json.dumps(answer.headers)
    field = IdempotencyRecord._meta.get_field("body")
    return {
        "state": (f"'{state}'", []),
        "status": ("%s", [answer.status]),
        "headers": ("%s", [headers]),
        "body": ("%s", [field.get_db_prep_value(answer.body, dialect.connection)]),
        "completed_at": dialect.now(),
        "ends_at": ("NULL", []),
        "expires_at": dialect.after(retention),
    }


def latest(dialect: Dialect, other: Fragment) -> Fragment:
    """Give the later one of `purge_after` and *other*, so that it seldom has to be moved."""
    sql, parameters = other
    return dialect.latest("purge_after", sql), parameters


def ends_at(dialect: Dialect, lease: float | None) -> Fragment:
    """Give the end of a lease that begins now; NULL without one."""
    return ("NULL", []) if lease is None else dialect.after(lease)


def stored_id(dialect: Dialect, call: Call) -> Any:
    """Give the primary key of the record of *call* as its column has it."""
    return IdempotencyRecord._meta.pk.get_db_prep_value(call.id, dialect.connection)
