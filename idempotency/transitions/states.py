"""The fields that hold a state, and what an object has in them."""

from __future__ import annotations

from functools import cache
from typing import Any

from django.db import models
from django_fsm import FSMFieldMixin

READ = "_states_as_read"
"""Where an object keeps the states it was read with, so that a save sees which were set by hand."""


def state_fields(model: type[models.Model]) -> tuple[Any, ...]:
    return _fields_of(model)


@cache
def _fields_of(model: type[models.Model]) -> tuple[Any, ...]:
    return tuple(field for field in model._meta.concrete_fields if isinstance(field, FSMFieldMixin))


def protected_names(model: type[models.Model]) -> frozenset[str]:
    """Give the attributes that refuse to be set once they are."""
    return frozenset(field.name for field in state_fields(model) if is_protected(field))


def is_protected(field: Any) -> bool:
    """Whether nobody can set the state by hand; that of a key, of another name, is set anyway."""
    return bool(field.protected) and not field.is_relation


def plain(state: Any) -> Any:
    """Give a member of an enumeration as what is stored."""
    return getattr(state, "value", state)


def text_of(state: Any) -> str:
    """Give a state as the log has it."""
    return "" if state is None else str(plain(state))


def state_of(instance: models.Model, field: Any, using: str | None = None) -> Any:
    """Give the state that *instance* was read with; one that was deferred is read now."""
    if field.attname not in instance.__dict__:
        rows: models.QuerySet[Any] = models.QuerySet(
            type(instance), using=using or instance._state.db
        )
        instance.refresh_from_db(using=using, fields=[field.attname], from_queryset=rows)
    return field.get_state(instance)


def put_state(instance: models.Model, field: Any, state: Any) -> None:
    """Set a state in memory, as one that is stored."""
    field.set_proxy(instance, state)
    field.set_state(instance, state)
    remember(instance, [field])


def remember(instance: models.Model, fields: Any) -> None:
    """Take the states in memory for those of the row."""
    known = instance.__dict__
    read = {field.attname: known[field.attname] for field in fields if field.attname in known}
    known[READ] = {**known.get(READ, {}), **read}


def is_as_read(instance: models.Model, field: Any) -> bool:
    """Whether no hand has set the state since it was read."""
    if is_protected(field):
        return True
    read = instance.__dict__.get(READ, {})
    return field.attname in read and read[field.attname] == instance.__dict__.get(field.attname)
