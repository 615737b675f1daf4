"""What is counted of what is announced."""

from __future__ import annotations

from typing import Any

from django.core.signals import setting_changed

from ..conf import settings
from ..signals import SIGNALS, CallEvent, LockEvent, RowEvent
from .flushing import flushing

_is_on: bool | None = None


def connect() -> None:
    """Count from now on."""
    for signal in SIGNALS:
        signal.connect(on_event, dispatch_uid="idempotency.statistics")
    setting_changed.connect(_forget, dispatch_uid="idempotency.statistics")


def on_event(*, event: CallEvent | LockEvent | RowEvent, **kwargs: Any) -> None:
    """Count *event*."""
    if not is_on():
        return
    counters = flushing.counters
    if isinstance(event, CallEvent):
        counters.count("call", event.operation, event.outcome, event.seconds, event.at)
        if _is_logged(event):
            counters.log(event)
    elif isinstance(event, LockEvent):
        counters.count("lock", event.template, event.outcome, event.seconds, event.at)
    else:
        counters.count("row", event.name, event.outcome, 0.0, event.at)
    flushing.notice()


def is_on() -> bool:
    """Whether `IDEMPOTENCY_STATISTICS` has anything counted."""
    global _is_on
    if _is_on is None:
        _is_on = settings.STATISTICS is not False
    return _is_on


def _is_logged(event: CallEvent) -> bool:
    """Whether *event* says more than the record itself."""
    if event.record_id is None:
        return False
    return event.outcome != "executed" or (event.attempt or 1) > 1


def _forget(*, setting: str, **kwargs: Any) -> None:
    global _is_on
    if setting == "IDEMPOTENCY_STATISTICS":
        _is_on = None
