"""Outlines: where two inputs of one key differ, told without keeping either."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from django.conf import settings
from django.utils.crypto import salted_hmac

from .canonical import encode

LONGEST = 1_000
"""Characters of an outline, as its column has them; what would not fit is summed up."""

DEEPEST = 5
"""How many names a path has at most; what lies deeper is summed up."""


def outline(value: Any) -> str:
    """
    Give the outline of *value*, as `differences` compares it: a JSON object.

    It has a JSON pointer (RFC 6901) for each part, and 8 hex digits by which only who knows
    `SECRET_KEY` can tell a guessed value. "" if there is no outline that is short enough.
    """
    for depth in range(DEEPEST, -1, -1):
        parts = _parts_within(value, depth)
        if parts is not None:
            key = _key(settings.SECRET_KEY)
            text = json.dumps({path: _digest(key, path, part) for path, part in parts.items()})
            return text if len(text) <= LONGEST else ""
    return ""


def differences(first: str, second: str) -> tuple[str, ...] | None:
    """Give the paths at which two outlines differ, sorted; None if that cannot be told."""
    if not (first and second):
        return None
    ours, theirs = json.loads(first), json.loads(second)
    paths = {path for path in ours.keys() | theirs.keys() if ours.get(path) != theirs.get(path)}
    return tuple(sorted(map(_as_text, paths)))


def _as_text(path: str) -> str:
    """Give *path* as every database keeps it: JSON has names that are no text."""
    return path.encode(errors="replace").decode().replace("\0", "�")


def _parts_within(value: Any, depth: int) -> dict[str, Any] | None:
    """Give the parts of *value* down to *depth*, or None if their outline would be too long."""
    parts: dict[str, Any] = {}
    length = 2
    for path, part in _parts(value, "", depth):
        parts[path] = part
        length += len(json.dumps(path)) + 14
        if length > LONGEST + 2:  # Nothing comes after the last one.
            return None
    return parts


def _parts(value: Any, path: str, depth: int) -> Iterator[tuple[str, Any]]:
    """Give the parts of *value* that are compared as a whole, with their paths."""
    if depth and value and isinstance(value, dict):
        for name, member in value.items():
            step = str(name).replace("~", "~0").replace("/", "~1")
            yield from _parts(member, f"{path}/{step}", depth - 1)
    elif depth and value and isinstance(value, list):
        for index, element in enumerate(value):
            yield from _parts(element, f"{path}/{index}", depth - 1)
    else:
        yield path, value


def _digest(key: bytes, path: str, part: Any) -> str:
    # With the path, as equal values at two of them are nobody's business.
    return hashlib.blake2b(encode([path, part]), key=key, digest_size=4).hexdigest()


@cache
def _key(secret: str) -> bytes:
    return salted_hmac("idempotency.outlines", "", secret, algorithm="sha256").digest()
