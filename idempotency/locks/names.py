"""The names of locks: literal, or templates that a call's arguments fill."""

from __future__ import annotations

import hashlib
import inspect
import re
import warnings
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Context, Decimal
from enum import Enum
from functools import partial
from string import Formatter
from typing import Any, cast
from urllib.parse import quote
from uuid import UUID

from ..keys import MAX_LENGTH, has_control

Namer = Callable[..., str]

_KINDS = (str, int, UUID, Decimal, date, Enum)
_LIKE_A_TEMPLATE = re.compile(r"\{[^\W\d][\w.\[\]]*\}")
_LIKE_A_CUT = re.compile(r"~[0-9a-f]{64}\Z")
_formatter = Formatter()


def check_lock_name(name: str) -> str:
    """
    Give *name* as backends keep it: one that is too long, or seems to be cut, ends in its digest.

    Raises: `TypeError` or `ValueError` if nobody can keep it.
    """
    if not isinstance(name, str):
        raise TypeError(f"The name of a lock is a string, not {type(name).__name__}.")
    if not name:
        raise ValueError("The name of a lock is empty.")
    if has_control(name):
        raise ValueError(f"The name of a lock has characters that are no text: {name[:80]!r}.")
    if len(name) <= MAX_LENGTH and not (len(name) == MAX_LENGTH and _LIKE_A_CUT.search(name)):
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()
    return f"{name[: MAX_LENGTH - len(digest) - 1]}~{digest}"


def literal(name: str | Namer) -> str:
    """Give the name of a lock around a block, which has no arguments to fill a template with."""
    if not isinstance(name, str):
        raise TypeError("A lock around a block needs its name as a string.")
    if _LIKE_A_TEMPLATE.search(name):
        warnings.warn(
            f"The lock {name!r} is taken by just this name, as a block has no arguments to fill a"
            " template with: is the f before the string missing?",
            RuntimeWarning,
            stacklevel=4,
        )
    return check_lock_name(name)


def namer_for(name: str | Namer, function: Callable[..., Any]) -> Namer:
    """
    Give what names the lock of each call of *function*.

    Raises: `TypeError` if *function* does not have an argument that the template *name* needs;
    `ValueError` for a malformed template.
    """
    if not isinstance(name, str):
        return _checked(name)
    fields = _fields(name)
    if not fields:
        fixed = check_lock_name("".join(text for text, *_ in _formatter.parse(name)))
        return lambda *args, **kwargs: fixed
    signature = _signature(function)
    for field in fields:
        _check_field(name, field, signature)
    return _Template(name, signature)


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    """Give what *function* is called with; a partial knows what it binds, as `self`."""
    innermost = inspect.unwrap(function, stop=lambda one: isinstance(one, partial))
    return inspect.signature(innermost, follow_wrapped=False)


def _checked(namer: Namer) -> Namer:
    return lambda *args, **kwargs: check_lock_name(namer(*args, **kwargs))


def _fields(template: str) -> list[str]:
    """Give what stands in the braces of *template*."""
    fields = []
    try:
        for _, field, form, conversion in _formatter.parse(template):
            if field is None:
                continue
            if form or conversion:
                raise ValueError(f"no format and no conversion, just {{{field}}}")
            fields.append(field)
    except ValueError as error:
        raise ValueError(f"{template!r} is no template: {error}.") from error
    return fields


class _Anything:
    """Has whatever the path of a field asks for."""

    def __getitem__(self, name: object) -> Any:
        return self

    def __getattr__(self, name: str) -> Any:
        return self


def _first(field: str) -> str:
    return field.partition(".")[0].partition("[")[0]


def _check_field(template: str, field: str, signature: inspect.Signature) -> None:
    first = _first(field)
    if not first.isidentifier():
        raise ValueError(f"{template!r}: {{{field}}} does not begin with the name of an argument.")
    try:
        _formatter.get_field(field, (), cast(Any, _Anything()))
    except ValueError as error:
        raise ValueError(f"{template!r}: {{{field}}} is no path of attributes: {error}.") from error
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    if first not in signature.parameters and inspect.Parameter.VAR_KEYWORD not in kinds:
        raise TypeError(
            f"{template!r} needs an argument {first!r}, which the function does not have:"
            f" {signature}."
        )


class _Template:
    """Fills a template with the arguments of a call, each written so that it cannot run over."""

    def __init__(self, template: str, signature: inspect.Signature) -> None:
        self.template = template
        self.signature = signature
        variable = inspect.Parameter.VAR_KEYWORD
        self.rest = [name for name, one in signature.parameters.items() if one.kind is variable]

    def __call__(self, *args: Any, **kwargs: Any) -> str:
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        arguments = dict(bound.arguments)
        for name in self.rest:
            arguments = {**arguments[name], **arguments}
        parts = []
        for text, field, _, _ in _formatter.parse(self.template):
            parts.append(text)
            if field is not None:
                parts.append(self._written(field, arguments))
        return check_lock_name("".join(parts))

    def _written(self, field: str, arguments: dict[str, Any]) -> str:
        if _first(field) not in arguments:
            raise TypeError(f"{self.template!r} needs an argument {_first(field)!r}.")
        value, _ = _formatter.get_field(field, (), arguments)
        if isinstance(value, Enum):
            value = value.value
        if value is None:
            raise TypeError(
                f"{{{field}}} in {self.template!r} is None, which identifies nothing: is that"
                " an object that is not saved yet, or a visitor who has not logged in?"
            )
        if not isinstance(value, _KINDS) or _is_no_number(value):
            raise TypeError(
                f"{{{field}}} in {self.template!r} is {value!r}. Name what identifies it, such as"
                f" {{{field}.pk}}: a string, a whole number, a date or a UUID."
            )
        return quote(_spelled(value), safe="", errors="surrogatepass")


def _is_no_number(value: object) -> bool:
    return isinstance(value, Decimal) and not value.is_finite()


def _spelled(value: Any) -> str:
    """Give one spelling for what is equal."""
    if isinstance(value, Decimal):
        return _digits(value)
    if isinstance(value, datetime) and value.utcoffset() is not None:
        value = value.astimezone(UTC)
    return str(value)


def _digits(value: Decimal) -> str:
    """Give the spelling of a number; a whole one has that of `int`."""
    if not value:
        return "0"
    exact = value.normalize(Context(prec=len(value.as_tuple().digits)))
    return f"{exact:f}" if abs(exact.adjusted()) < MAX_LENGTH else str(exact)
