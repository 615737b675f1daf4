"""What is written on a span: attributes of a call, its links, and events of locks."""

from __future__ import annotations

from typing import Any

from opentelemetry import trace
from opentelemetry.trace import Span

from ...origins import find_by
from ...signals import CallEvent, LockEvent
from ..listening import Event, listen, short_id, stop_listening
from .origins import read, written

_UID = "idempotency.opentelemetry"


def install() -> None:
    """Tell the active span what is announced from now on, and let each record know its own."""
    listen(hear, _UID)
    find_by(written)


def uninstall() -> None:
    """Undo what `install` did, as a test wants it."""
    stop_listening(_UID)
    find_by(None)


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
    """Link a duplicate to the span of the run that it met."""
    original = read(event.origin)
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
