"""What a transition writes of the row after its body."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db import models

from ..optimistic.versions import VersionField
from .memory import Values, changed_fields, related_of
from .states import put_state
from .steps import Step
from .taking import is_time
from .underway import Watch, note_written


def write_changes(step: Step, watch: Watch, values: Values | None = None) -> Values:
    """Write what the *watch* saw changed, and *values*; give what was written."""
    _follow_relations(step.instance, watch)
    changed = [f for f in changed_fields(step.instance, watch.values) if _is_written(step, f)]
    return _write(step, changed, values or {}) if changed or values else {}


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


def _write(step: Step, fields: Iterable[Any], values: Values) -> Values:
    values |= {field.attname: field.pre_save(step.instance, False) for field in fields}
    step.row_in(step.model).update(**values)
    note_written(step.instance, values, step.using)
    for name in [name for name, value in values.items() if hasattr(value, "resolve_expression")]:
        del step.instance.__dict__[name]
    return values


def forget_computed(instance: models.Model) -> None:
    """Let columns that the database computes be read when they are asked for."""
    for field in instance._meta.concrete_fields:
        if field.generated:
            instance.__dict__.pop(field.attname, None)


def _follow_relations(instance: models.Model, watch: Watch) -> None:
    """Take the key of each object that was assigned, as a save does: it may have got one since."""
    fields: Any = {field.attname: field for field in instance._meta.concrete_fields}
    for name, related in related_of(instance).items():
        if related is None or related is watch.related.get(name):
            continue
        field = fields[name]
        if related.pk is None:
            raise ValueError(f"Save {field.name} before the transition writes it: it has no key.")
        if instance.__dict__.get(name) is None:
            instance.__dict__[name] = getattr(related, field.target_field.attname)


def _is_written(step: Step, field: models.Field[Any, Any]) -> bool:
    return not (
        field in step.instance._meta.pk_fields
        or field.primary_key
        or field.generated
        or field.attname == step.field.attname
        or isinstance(field, VersionField)
    )
