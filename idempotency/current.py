"""Which record the current work runs under: set by claims, read by what they protect."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Protocol
from uuid import UUID


class Running(Protocol):
    """What runs under a claim."""

    @property
    def record_id(self) -> UUID: ...


running: ContextVar[Running | None] = ContextVar("idempotency_claim", default=None)


def current_record_id() -> UUID | None:
    """Give the id of the record whose claim this code runs under, or None."""
    claim = running.get()
    return None if claim is None else claim.record_id
