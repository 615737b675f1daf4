"""What a request tells the code around a protected view of its protection."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from django.http import HttpRequest

REPLAYED = "Idempotent-Replayed"
"""The header by which an answer says that it is that of an earlier request."""


@dataclass(slots=True)
class Idempotency:
    """What `request.idempotency` tells the code around a protected view."""

    key: str
    replayed: bool = False
    is_running: bool = False


@contextmanager
def marked(request: HttpRequest, key: str) -> Iterator[Idempotency]:
    """Tell the code around that the request is being protected, so that nobody claims again."""
    mark = Idempotency(key, is_running=True)
    request.idempotency = mark  # type: ignore[attr-defined]
    try:
        yield mark
    finally:
        mark.is_running = False


def is_protected(request: HttpRequest) -> bool:
    """Whether somebody further out protects *request* already."""
    mark = getattr(request, "idempotency", None)
    return isinstance(mark, Idempotency) and mark.is_running


def is_replayed(request: HttpRequest) -> bool:
    """Whether *request* was answered by a replay."""
    mark = getattr(request, "idempotency", None)
    return isinstance(mark, Idempotency) and mark.replayed
