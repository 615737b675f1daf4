"""Hears all that calls, locks and rows announce."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from ..signals import SIGNALS, CallEvent, LockEvent, RowEvent

Event = CallEvent | LockEvent | RowEvent


def listen(receiver: Callable[..., Any], uid: Hashable) -> None:
    """Call *receiver* with each `event` from now on, once however often this is asked for."""
    for signal in SIGNALS:
        signal.connect(receiver, weak=False, dispatch_uid=uid)


def stop_listening(uid: Hashable) -> None:
    """Undo what `listen` did."""
    for signal in SIGNALS:
        signal.disconnect(dispatch_uid=uid)


def short_id(event: CallEvent) -> str | None:
    """Give by which 12 hex digits the record of *event* is told: they tell nothing of its key."""
    return None if event.record_id is None else event.record_id.hex[:12]
