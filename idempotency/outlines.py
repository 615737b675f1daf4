"""Outlines: where two inputs of one key differ, told without keeping either."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from typing import Any, cast

from django.conf import settings
from django.utils.crypto import salted_hmac

from .canonical import encode

LONGEST = 1_000
"""Characters of an outline, as its column has them; what would not fit is summed up."""

MOST = LONGEST // 16
"""Parts of an outline: more would not fit, whatever their paths."""

DEEPEST = 5
"""How many names a path has at most; what lies deeper is summed up."""


class Outline:
    """The outline of *value* as text, made when it is needed: a replay never asks for it."""

    __slots__ = ("_text", "_value")

    def __init__(self, value: Any) -> None:
        self._value = value
        self._text: str | None = None

    def __str__(self) -> str:
        if self._text is None:
            self._text = outline(self._value)
        return self._text


def outline(value: Any) -> str:
    """
    Give the outline of *value*, as `differences` compares it: a JSON object.

    It has a JSON pointer (RFC 6901) for each part, and 8 hex digits by which only who knows
    `SECRET_KEY` can tell a guessed value. What would be too long has parts that go less deep.
    """
    for depth in range(DEEPEST, 0, -1):
        parts = _parts_within(value, depth)
        if parts is not None and len(text := _written(parts)) <= LONGEST:
            return text
    return _written({"": value})


def differences(first: str, second: str) -> tuple[str, ...] | None:
    """Give the paths at which two outlines differ, sorted; None if that cannot be told."""
    if not (first and second):
        return None
    ours, theirs = json.loads(first), json.loads(second)
    paths = {path for path in ours.keys() | theirs.keys() if ours.get(path) != theirs.get(path)}
    return tuple(sorted(map(_as_text, paths)))


def _written(parts: dict[str, Any]) -> str:
    keyed = _keyed(settings.SECRET_KEY)
    return json.dumps({path: _digest(keyed, path, part) for path, part in parts.items()})


def _as_text(path: str) -> str:
    """Give *path* as every database keeps it: JSON has names that are no text."""
    return path.encode(errors="replace").decode().replace("\0", "�")


def _parts_within(value: Any, depth: int) -> dict[str, Any] | None:
    """Give the parts of *value* down to *depth*, or None if their outline would be too long."""
    parts: dict[str, Any] = {}
    _collect(value, "", depth, parts)
    return None if len(parts) > MOST else parts


def _collect(value: Any, path: str, depth: int, parts: dict[str, Any]) -> None:
    """Put the parts of *value* that are compared as a whole into *parts*, by their paths."""
    kind = type(value)
    if not (depth and value and (kind is dict or kind is list)):
        parts[path] = value
        return
    for name, member in value.items() if kind is dict else enumerate(value):
        if len(parts) > MOST:
            return
        _collect(member, f"{path}/{_step(name)}", depth - 1, parts)


def _step(name: Any) -> Any:
    is_plain = type(name) is int or not ("~" in name or "/" in name)
    return name if is_plain else name.replace("~", "~0").replace("/", "~1")


def _digest(keyed: Any, path: str, part: Any) -> str:
    digest = keyed.copy()
    # With the path, as equal values at two of them are nobody's business.
    digest.update(path.encode(errors="surrogatepass") + b"\0" + encode(part))
    return cast(str, digest.hexdigest())


@cache
def _keyed(secret: str) -> Any:
    key = salted_hmac("idempotency.outlines", "", secret, algorithm="sha256").digest()
    return hashlib.blake2b(key=key, digest_size=4)
