"""One spelling for each value, in bytes that tell values and their types apart."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import uuid
from collections.abc import Callable, Mapping, Set
from typing import Any


class Number(str):
    """A number of a JSON text, exact however long, spelled so that 1, 1.0 and 1e0 are one."""

    __slots__ = ()

    @classmethod
    def parse(cls, literal: str) -> Number:
        try:
            sign, digits, exponent = decimal.Decimal(literal).as_tuple()
        except decimal.InvalidOperation:
            return cls(literal)
        significant = "".join(map(str, digits)).lstrip("0")
        stripped = significant.rstrip("0")
        if not stripped:
            return cls("0")
        scale = int(exponent) + len(significant) - len(stripped)
        return cls(f"{'-' if sign else ''}{stripped}e{scale}")


def encode(value: Any) -> bytes:
    """
    Give the bytes of *value*: equal for equal values, in every process, and for no others.

    Takes what JSON has, and bytes, dates, times, `Decimal`, `UUID`, enumerations, sets, tuples,
    dataclasses and saved model instances (by label and primary key). 1, 1.0, True and "1" differ.

    Raises: `TypeError` for anything else: a `repr` may carry an address, or leave out what matters.
    """
    writer = _WRITERS.get(type(value)) or _writer_of(value)
    return writer(value)


def _framed(tag: str, content: bytes) -> bytes:
    return b"%s%d:%s" % (tag.encode(), len(content), content)


def _text(tag: str) -> Callable[[Any], bytes]:
    return lambda value: _framed(tag, str(value).encode("utf-8", "surrogatepass"))


def _isoformat(tag: str) -> Callable[[Any], bytes]:
    return lambda value: _framed(tag, value.isoformat().encode())


def _sequence(tag: str) -> Callable[[Any], bytes]:
    return lambda value: _framed(tag, b"".join(map(encode, value)))


def _set(value: Set[Any]) -> bytes:
    return _framed("set", b"".join(sorted(map(encode, value))))


def _mapping(value: Mapping[Any, Any]) -> bytes:
    pairs = sorted((encode(name), encode(item)) for name, item in value.items())
    return _framed("map", b"".join(name + item for name, item in pairs))


def _class_name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _enum(value: enum.Enum) -> bytes:
    return _framed("enum", encode(_class_name(value)) + encode(value.name))


def _dataclass(value: Any) -> bytes:
    fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return _framed("dataclass", encode(_class_name(value)) + encode(fields))


def _model(value: Any) -> bytes:
    if value.pk is None:
        raise TypeError(f"An unsaved {_class_name(value)} has nothing yet that tells it apart.")
    return _framed("model", encode(value._meta.label) + encode(value.pk))


_WRITERS: dict[type, Callable[[Any], bytes]] = {
    type(None): lambda value: b"null",
    bool: lambda value: b"true" if value else b"false",
    str: _text("str"),
    Number: _text("number"),
    int: _text("int"),
    float: lambda value: _framed("float", repr(value).encode()),
    decimal.Decimal: _text("decimal"),
    uuid.UUID: _text("uuid"),
    bytes: lambda value: _framed("bytes", value),
    bytearray: lambda value: _framed("bytes", bytes(value)),
    memoryview: lambda value: _framed("bytes", bytes(value)),
    datetime.datetime: _isoformat("datetime"),
    datetime.date: _isoformat("date"),
    datetime.time: _isoformat("time"),
    datetime.timedelta: lambda value: _framed("timedelta", repr(value).encode()),
    list: _sequence("list"),
    tuple: _sequence("tuple"),
    set: _set,
    frozenset: _set,
    dict: _mapping,
}


def _writer_of(value: Any) -> Callable[[Any], bytes]:
    from django.db.models import Model

    if isinstance(value, enum.Enum):
        return _enum
    if isinstance(value, Model):
        return _model
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _dataclass
    for kind in type(value).__mro__:
        if kind in _WRITERS:
            return _WRITERS[kind]
    raise TypeError(
        f"A {_class_name(value)} has no canonical form; give its identifying values instead,"
        " for instance a string, a number or a tuple of them."
    )
