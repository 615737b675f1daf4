"""What an object knew before its transition, and what the body changed."""

from __future__ import annotations

import copy
import dataclasses
import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.core.files import File
from django.db import models

from .states import READ

UNCHANGING = (
    *(type(None), bool, int, float, complex, str, bytes, memoryview, Decimal, UUID),
    *(dt.date, dt.time, dt.timedelta),
)

Values = dict[str, Any]


def values_of(instance: models.Model) -> Values:
    """Give the loaded columns of *instance*, so that no later change reaches them."""
    known = instance.__dict__
    return {
        field.attname: _freeze(known[field.attname])
        for field in instance._meta.concrete_fields
        if field.attname in known
    }


def _freeze(value: Any) -> Any:
    if isinstance(value, UNCHANGING):
        return value
    if isinstance(value, File):
        # Read from a column, a file is its name; one that is new is not stored yet.
        stored = getattr(value, "_committed", False)
        return value.name if stored else _NewFile(id(value), value.name, value)
    try:
        return copy.deepcopy(value)
    except (TypeError, copy.Error):
        return value  # Only another object in its place is seen as a change.


@dataclass(frozen=True, slots=True)
class _NewFile:
    """A file that a save would store; a copy of it would hold the whole object."""

    identity: int
    name: str | None
    file: Any = dataclasses.field(compare=False)  # Kept, so that no other one gets its identity.


def related_of(instance: models.Model) -> dict[str, Any]:
    """Give the related objects that *instance* holds, by the attributes of their keys."""
    fields: Iterable[Any] = instance._meta.concrete_fields
    return {
        field.attname: field.get_cached_value(instance)
        for field in fields
        if field.is_relation and field.is_cached(instance)
    }


def changed_fields(instance: models.Model, before: Values) -> list[models.Field[Any, Any]]:
    """Give the fields that have another value than *before*, or were not loaded then."""
    now = values_of(instance)
    return [
        field
        for field in instance._meta.concrete_fields
        if field.attname in now
        and (field.attname not in before or not _is_same(now[field.attname], before[field.attname]))
    ]


def _is_same(now: Any, before: Any) -> bool:
    if isinstance(now, list | dict | tuple) and repr(now) != repr(before):
        return False  # In JSON, 1 is not true.
    same = now == before
    try:
        return bool(same)
    except ValueError:  # Arrays compare their elements.
        return bool(same.all())


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What can be put back: the loaded columns, the states as read, and the class."""

    values: Values
    states: Values
    kind: type[models.Model]

    @classmethod
    def of(cls, instance: models.Model) -> Snapshot:
        return cls(values_of(instance), instance.__dict__.get(READ, {}), type(instance))

    def restore(self, instance: models.Model, left: Values | None = None) -> None:
        """Put it back; where *left* is given, only what is still as it was left."""
        now = values_of(instance)
        for field in instance._meta.concrete_fields:
            name = field.attname
            if left is None or _is_same(now.get(name), left.get(name)):
                _put_back(instance, field, now, self.values)
        instance.__dict__[READ] = self.states
        instance.__class__ = self.kind  # Of a state with a proxy class.


def _put_back(instance: models.Model, field: Any, now: Values, before: Values) -> None:
    name = field.attname
    if name not in before:
        instance.__dict__.pop(name, None)
    elif name not in now or not _is_same(now[name], before[name]):
        value = before[name]
        instance.__dict__[name] = value.file if isinstance(value, _NewFile) else value
        if field.is_relation and field.is_cached(instance):
            field.delete_cached_value(instance)
