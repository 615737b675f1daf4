"""Outlines: where two inputs of one key differ, told without keeping either."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
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


KEY_CHECK = "#"
"""Where the digest of nothing stands, which tells whether `SECRET_KEY` is still the same."""


class Outline:
    """The outline of *value* as text, made when it is needed: a replay never asks for it."""

    __slots__ = ("_text", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        self._text: str | None = None

    def __str__(self) -> str:
        if self._text is None:
            self._text = outline(self.value)
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


def differences(first: str, second: Any) -> tuple[str, ...] | None:
    """
    Give the paths at which *second* differs from what has the outline *first*, sorted.

    *second* is an `Outline`. None if that cannot be told: there is none, or `SECRET_KEY` is new.
    """
    if not (first and isinstance(second, Outline)):
        return None
    digests: dict[str, str] = json.loads(first)
    keyed = _keyed(settings.SECRET_KEY)
    if digests.pop(KEY_CHECK, None) != _digest(keyed, KEY_CHECK, ""):
        return None
    found = _compare(second.value, "", digests, _opened(digests), keyed)
    return tuple(sorted(map(_as_text, found)))


def _opened(paths: Iterable[str]) -> dict[str, set[str]]:
    """Give the paths of the containers whose members are compared apart, and those members."""
    members: dict[str, set[str]] = {}
    for path in paths:
        while path and path not in members.get(above := path.rpartition("/")[0], ()):
            members.setdefault(above, set()).add(path)
            path = above
    return members


def _compare(
    value: Any, path: str, digests: dict[str, str], opened: dict[str, set[str]], keyed: Any
) -> Iterator[str]:
    """Give the paths at or below *path* at which *value* is another one, as deep as is known."""
    if path in digests:
        if digests[path] != _digest(keyed, path, value):
            yield path
        return
    members = _members(value, path)
    if not members:
        yield path
        return
    yield from opened[path] ^ members.keys()
    for place in opened[path] & members.keys():
        yield from _compare(members[place], place, digests, opened, keyed)


def _members(value: Any, path: str) -> dict[str, Any]:
    """Give what *value* contains by its paths, if that may be compared apart."""
    if type(value) is dict:
        return {f"{path}/{_step(name)}": member for name, member in value.items()}
    if type(value) is list:
        return {f"{path}/{place}": member for place, member in enumerate(value)}
    return {}


def _written(parts: dict[str, Any]) -> str:
    keyed = _keyed(settings.SECRET_KEY)
    digests = {path: _digest(keyed, path, part) for path, part in parts.items()}
    return json.dumps({KEY_CHECK: _digest(keyed, KEY_CHECK, "")} | digests)


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
    members = _members(value, path) if depth else {}
    if not members:
        parts[path] = value
    for place, member in members.items():
        if len(parts) > MOST:
            return
        _collect(member, place, depth - 1, parts)


def _step(name: str) -> str:
    is_plain = not ("~" in name or "/" in name)
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
