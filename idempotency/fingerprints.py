"""Fingerprints: whether two calls with one key ask for the same thing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn
from urllib.parse import parse_qsl

from .canonical import Number, encode
from .exceptions import BodyInvalid

VERSION = "1"
"""Goes up with each change of what is compared, so that records of before never match by chance."""

Part = tuple[str, str, bytes]
"""A part of a multipart body: its name, its file name ("" for a field), its content's digest."""


def fingerprint(value: Any) -> str:
    """
    Give the fingerprint of *value*: the version, a colon and 64 hex digits (SHA-256).

    Raises: `TypeError` for a value without a canonical form: see `canonical.encode`.
    """
    return f"{VERSION}:{hashlib.sha256(encode(value)).hexdigest()}"


def form_pairs(text: str) -> list[tuple[str, str]]:
    """Give the pairs of a query or form, sorted by name; the order of a repeated name stays."""
    pairs = parse_qsl(text, keep_blank_values=True, errors="surrogateescape")
    return sorted(pairs, key=lambda pair: pair[0])


def multipart(parts: Iterable[Part]) -> list[Part]:
    """Give the parts sorted by name and file name; the order of a repeated name stays."""
    return sorted(parts, key=lambda part: part[:2])


def json_value(body: bytes, charset: str | None = None, ignore: Sequence[str] = ()) -> Any:
    """
    Give the value of a JSON text, without the paths to *ignore*.

    A path is a JSON pointer (RFC 6901), in which `*` stands for every element: `/lines/*/sent_at`.

    Raises: `BodyInvalid` if it is not JSON (RFC 8259) in *charset*, UTF-8 if None.
    """
    try:
        value = json.loads(
            body.decode(charset or "utf-8-sig"),
            parse_int=Number.parse,
            parse_float=Number.parse,
            parse_constant=_refuse_constant,
            object_pairs_hook=_object,
        )
    except (LookupError, ValueError, RecursionError) as error:
        raise BodyInvalid("The body is not JSON, although its content type says so.") from error
    for pointer in ignore:
        _remove(value, _steps(pointer))
    return value


def check_pointer(pointer: str) -> None:
    """Raise `ValueError` unless *pointer* is a JSON pointer to something inside the body."""
    if not pointer.startswith("/") or pointer == "/":
        raise ValueError(f'{pointer!r} is no JSON pointer (RFC 6901), such as "/sent_at".')


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON.")


def _object(pairs: list[tuple[str, Any]]) -> Any:
    members = dict(pairs)
    # Parsers differ in which of two equal names they take, so such a text equals only itself.
    return members if len(members) == len(pairs) else tuple(pairs)


def _steps(pointer: str) -> list[str]:
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]


def _remove(value: Any, steps: list[str]) -> None:
    *path, last = steps
    for parent in _reached(value, path):
        if isinstance(parent, dict):
            for name in list(parent) if last == "*" else [last]:
                parent.pop(name, None)
        elif isinstance(parent, list) and last == "*":
            parent.clear()
        elif isinstance(parent, list) and last.isdecimal() and int(last) < len(parent):
            parent[int(last)] = None  # Its place stays, or the others would move up.


def _reached(value: Any, path: list[str]) -> Iterable[Any]:
    if not path:
        return [value]
    step, rest = path[0], path[1:]
    children: list[Any] = []
    if isinstance(value, dict):
        children = list(value.values()) if step == "*" else [value[step]] if step in value else []
    elif isinstance(value, list):
        if step == "*":
            children = list(value)
        elif step.isdecimal() and int(step) < len(value):
            children = [value[int(step)]]
    return [found for child in children for found in _reached(child, rest)]
