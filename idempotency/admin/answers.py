"""The stored answer of a record, as a person may read it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from urllib.parse import urlsplit

from ..models import IdempotencyRecord

LONGEST = 100_000
"""Characters of a body that are shown."""


@dataclass(frozen=True, slots=True)
class Shown:
    """An answer; *text* is its body, None if that is no text or was not kept."""

    status: int | None
    headers: list[list[str]]
    text: str | None
    size: int | None
    is_cut: bool
    location: str  # Where a link may lead, "" for nowhere.


def shown(record: IdempotencyRecord) -> Shown:
    """Give the answer of *record*."""
    headers = [[name, value] for name, value in record.headers or [] if name]
    body = None if record.body is None else bytes(record.body)
    text = None if body is None else _text(body)
    return Shown(
        status=record.status,
        headers=headers,
        text=None if text is None else text[:LONGEST],
        size=None if body is None else len(body),
        is_cut=text is not None and len(text) > LONGEST,
        location=_safe(next((value for name, value in headers if name.lower() == "location"), "")),
    )


def _text(body: bytes) -> str | None:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return None
    if "\0" in text:
        return None
    return _indented(text) if len(text) <= LONGEST else text


def _indented(text: str) -> str:
    """Give *text* as JSON that is easy to read, or as it is where that would change a value."""
    try:
        found = json.dumps(json.loads(text, parse_float=_exactly), indent=2, ensure_ascii=False)
        found.encode()  # Half of a surrogate pair is no text that can be sent.
    except (ValueError, RecursionError):
        return text
    return found


def _exactly(number: str) -> float:
    if repr(float(number)) != number:
        raise ValueError(f"{number} would be shown as another number.")
    return float(number)


def _safe(location: str) -> str:
    """Give *location* if a browser takes it for an address of the web, else ""."""
    try:
        parts = urlsplit(location)
    except ValueError:
        return ""
    is_plain = location.isprintable() and location == location.strip()
    return location if is_plain and parts.scheme in ("http", "https", "") else ""
