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
    first_view: str = ""


@contextmanager
def marked(request: HttpRequest, key: str, view_name: str) -> Iterator[Idempotency]:
    """Tell the code around that the request is being protected, so that nobody claims again."""
    first_view = first_view_of(request) or view_name
    mark = Idempotency(key, is_running=True, first_view=first_view)
    request.idempotency = mark  # type: ignore[attr-defined]
    try:
        yield mark
    finally:
        mark.is_running = False


def is_protected(request: HttpRequest) -> bool:
    """Whether somebody further out protects *request* already."""
    mark = getattr(request, "idempotency", None)
    return isinstance(mark, Idempotency) and mark.is_running


def first_view_of(request: HttpRequest) -> str:
    """Give the name of the view that was the first to protect *request*; "" if none has yet."""
    mark = getattr(request, "idempotency", None)
    return mark.first_view if isinstance(mark, Idempotency) else ""


def is_replayed(request: HttpRequest) -> bool:
    """Whether *request* was answered by a replay."""
    mark = getattr(request, "idempotency", None)
    return isinstance(mark, Idempotency) and mark.replayed
