"""What is written on a span: attributes of a call, its links, and events of locks."""

from __future__ import annotations

from typing import Any

from opentelemetry import trace
from opentelemetry.trace import Span

from ...signals import CallEvent, CallOutcome, LockEvent
from ..listening import Event, listen, short_id, stop_listening
from .origins import Origins

_UID = "idempotency.opentelemetry"

ORIGINALS: frozenset[CallOutcome] = frozenset({"executed", "blocked"})
"""What leaves something behind that later calls with the same key meet."""

DUPLICATES: frozenset[CallOutcome] = frozenset({"replayed", "reused", "unavailable", "unknown"})
"""What meets that; a run "in_progress" has announced nothing yet, so that nobody knows its span."""

origins = Origins()


def install() -> None:
    """Tell the active span what is announced from now on, if it is recording."""
    listen(hear, _UID)


def uninstall() -> None:
    """Undo what `install` did, and forget all runs, as a test wants it."""
    stop_listening(_UID)
    origins.clear()


def hear(*, event: Event, **kwargs: Any) -> None:
    """Write *event* on the active span, if that is recording."""
    span = trace.get_current_span()
    if not span.is_recording():
        return
    if isinstance(event, LockEvent):
        _tell_lock(span, event)
    elif isinstance(event, CallEvent):
        _tell_call(span, event)


def _tell_call(span: Span, event: CallEvent) -> None:
    if event.outcome == "taken_over":  # It goes on, so that another event tells its end.
        span.add_event("idempotency.take_over", _attributes_of(event))
        return
    span.set_attributes({**_attributes_of(event), "idempotency.outcome": event.outcome})
    _link(span, event)


def _attributes_of(event: CallEvent) -> dict[str, str | int]:
    attributes: dict[str, str | int | None] = {
        "idempotency.operation": event.operation,
        "idempotency.attempt": event.attempt,
        "idempotency.record": short_id(event),
    }
    return {name: value for name, value in attributes.items() if value is not None}


def _link(span: Span, event: CallEvent) -> None:
    """Remember *span* as that of the first run, or link it to that one."""
    if event.record_id is None:
        return
    if event.outcome in ORIGINALS:
        origins.add(event.record_id, span.get_span_context())
    elif event.outcome in DUPLICATES:
        original = origins.find(event.record_id)
        if original is not None and original.span_id != span.get_span_context().span_id:
            span.add_link(original)


def _tell_lock(span: Span, event: LockEvent) -> None:
    """Tell of every wait, and of a loss; that a lock was freed, the end of the work tells."""
    if event.outcome != "released":
        attributes: dict[str, str | float] = {
            "idempotency.template": event.template,
            "idempotency.backend": event.backend,
            "idempotency.outcome": event.outcome,
            "idempotency.seconds": event.seconds,
        }
        span.add_event("idempotency.lock", attributes)
