"""What a line says of an event: never a key, a scope, the name of a lock, or a body."""

from __future__ import annotations

import logging
from typing import Any

from ...signals import CallEvent, LockEvent
from ..listening import Event, listen, short_id, stop_listening

_UID = "idempotency.logging"

logger = logging.getLogger("idempotency.events")

WARNINGS = frozenset({"lost", "blocked", "store_error", "unprotected", "taken_over"})
"""The outcomes that somebody should look at."""

ORDINARY = frozenset({"taken", "released"})
"""Those of locks that nobody waited for, which are many."""


def install() -> None:
    """Log what is announced from now on to the logger "idempotency.events"."""
    listen(hear, _UID)


def uninstall() -> None:
    """Undo what `install` did, as a test wants it."""
    stop_listening(_UID)


def hear(*, event: Event, **kwargs: Any) -> None:
    """Log *event*."""
    level = _level_of(event)
    if not logger.isEnabledFor(level):
        return
    told = _told(event)
    name = told.get("operation") or told.get("template") or told.get("name")
    logger.log(level, "%s: %s %s", name, told["kind"], event.outcome, extra={"idempotency": told})


def _level_of(event: Event) -> int:
    if event.outcome in WARNINGS:
        return logging.WARNING
    is_ordinary = isinstance(event, LockEvent) and event.outcome in ORDINARY
    return logging.DEBUG if is_ordinary else logging.INFO


def _told(event: Event) -> dict[str, Any]:
    """Give the members of the line; JSON knows all of them."""
    if isinstance(event, CallEvent):
        return {
            "kind": "call",
            "operation": event.operation,
            "outcome": event.outcome,
            "seconds": round(event.seconds, 6),
            "record": short_id(event),
            "attempt": event.attempt,
            "status": event.status,
            "request_id": event.request_id,
        }
    if isinstance(event, LockEvent):
        return {
            "kind": "lock",
            "template": event.template,
            "backend": event.backend,
            "outcome": event.outcome,
            "seconds": round(event.seconds, 6),
        }
    return {"kind": "row", "name": event.name, "outcome": event.outcome}
