"""What a transition writes of the row after its body."""

from __future__ import annotations

from typing import Any

from django.db import models

from ..optimistic.versions import VersionField
from .memory import Values, changed_fields
from .states import put_state
from .steps import Step
from .taking import is_time, row_gone, row_in


def write_changes(step: Step, before: Values, source: Any, target: Any) -> None:
    """Write the columns that the body changed, and a state that only the body told."""
    fields = {*changed_fields(step.instance, before), *_times_elsewhere(step)}
    values = {
        field.attname: field.pre_save(step.instance, False)
        for field in fields
        if _is_written(step, field)
    }
    declared = step.target_from(source)
    if target != (source if declared is None else declared):
        values[step.field.attname] = target
    if values and not row_in(step.model, step).update(**values):
        raise row_gone(step)
    for name in [name for name, value in values.items() if hasattr(value, "resolve_expression")]:
        del step.instance.__dict__[name]  # Read when it is asked for, as it is the row's to say.


def write_state(step: Step, state: Any) -> None:
    """Move the row, which this transaction has moved already, to another state."""
    if not row_in(step.field.model, step).update(**{step.field.attname: state}):
        raise row_gone(step)
    put_state(step.instance, step.field, state)


def _is_written(step: Step, field: models.Field[Any, Any]) -> bool:
    return not (
        field.primary_key
        or field.generated
        or field.attname == step.field.attname
        or isinstance(field, VersionField)
    )


def _times_elsewhere(step: Step) -> list[Any]:
    """Give the times of the last change that other tables of the row keep."""
    fields = step.instance._meta.concrete_fields
    return [field for field in fields if is_time(field) and field.model is not step.field.model]
