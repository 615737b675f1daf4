"""What a transition writes of the row after its body."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db import models

from ..optimistic.versions import VersionField
from .memory import Values, changed_fields
from .states import put_state
from .steps import Step
from .taking import is_time


def write_changes(step: Step, before: Values, state: Any, target: Any) -> None:
    """Write what was changed since *before*, and *target* unless that is the *state* of the row."""
    _follow_relations(step.instance)
    changed = [f for f in changed_fields(step.instance, before) if _is_written(step, f)]
    if changed or target != state:
        _write(step, changed, {} if target == state else {step.field.attname: target})


def write_times(step: Step) -> None:
    """Write the times of the last change that other tables of the row keep."""
    fields = step.instance._meta.concrete_fields
    times = [field for field in fields if is_time(field) and field.model is not step.field.model]
    if times:
        _write(step, times, {})


def write_state(step: Step, state: Any) -> None:
    """Move the row, which this transition has moved already, to another state."""
    step.row_in(step.field.model).update(**{step.field.attname: state})
    put_state(step.instance, step.field, state)


def _write(step: Step, fields: Iterable[Any], values: Values) -> None:
    values |= {field.attname: field.pre_save(step.instance, False) for field in fields}
    step.row_in(step.model).update(**values)
    for name in [name for name, value in values.items() if hasattr(value, "resolve_expression")]:
        del step.instance.__dict__[name]


def forget_computed(instance: models.Model) -> None:
    """Let columns that the database computes be read when they are asked for."""
    for field in instance._meta.concrete_fields:
        if field.generated:
            instance.__dict__.pop(field.attname, None)


def _follow_relations(instance: models.Model) -> None:
    """Take the key of each related object, as a save does: it may have got one since."""
    fields: Iterable[Any] = instance._meta.concrete_fields
    for field in fields:
        related = _cached(instance, field)
        if related is None:
            continue
        if related.pk is None:
            raise ValueError(
                f"Save {field.name} before the transition writes it: it has no key yet."
            )
        if instance.__dict__.get(field.attname) is None:
            instance.__dict__[field.attname] = getattr(related, field.target_field.attname)


def _cached(instance: models.Model, field: Any) -> Any:
    if not field.is_relation or not field.is_cached(instance):
        return None
    return field.get_cached_value(instance)


def _is_written(step: Step, field: models.Field[Any, Any]) -> bool:
    return not (
        field in step.instance._meta.pk_fields
        or field.primary_key
        or field.generated
        or field.attname == step.field.attname
        or isinstance(field, VersionField)
    )
