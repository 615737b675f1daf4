"""The conditional UPDATE that decides a transition before anything of it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db import models

from ..exceptions import StaleObject
from ..optimistic.versions import expected_version, facts_of, move_on
from .outcomes import other_state
from .states import put_state, state_of
from .steps import Step


@dataclass(frozen=True, slots=True)
class Taken:
    """The row is in the state that was aimed at; if *repeated*, since an earlier call."""

    source: Any
    repeated: bool = False


def take(step: Step) -> Taken:
    """
    Move the row to the target if it is in a state from which the transition leads.

    What the object in memory says is only where to try first: the row itself decides.

    Raises: `TransitionConflict`, `StaleObject`.
    """
    read = state_of(step.instance, step.field, step.using)
    if step.leads_from(read) and _move(step, read):
        return Taken(read)
    actual = stored_state(step)
    if step.is_repeated(read, actual):
        put_state(step.instance, step.field, actual)
        return Taken(actual, repeated=True)
    if not step.leads_from(actual):
        raise other_state(step, actual)
    _require_version(step)
    # What the object knows is old, so the body gets the row as it is.
    step.instance.refresh_from_db(using=step.using, from_queryset=locked(step, step.model))
    return take(step)


def current_row(step: Step) -> Any:
    """Give the row as it is, as another object."""
    return locked(step, step.model).get()


def stored_state(step: Step) -> Any:
    """Give the state of the row, which nobody else changes from now on."""
    found = locked(step, step.field.model).values_list(step.field.attname).first()
    if found is None:
        raise row_gone(step)
    return found[0]


def row_gone(step: Step) -> StaleObject:
    expected = None if step.version is None else expected_version(step.instance, step.version)
    return StaleObject(
        model=step.model, pk=step.keys[step.model._meta.pk.attname], expected=expected, actual=None
    )


def is_time(field: models.Field[Any, Any]) -> bool:
    """Whether *field* keeps the time of the last change."""
    return bool(getattr(field, "auto_now", False))


def locked(step: Step, model: type[models.Model]) -> models.QuerySet[Any]:
    return step.row_in(model).order_by().select_for_update()


def _move(step: Step, source: Any) -> bool:
    """Try the UPDATE from *source*; no row is a No, and then the object is as it was."""
    known, target = step.instance.__dict__, step.target_from(source)
    times = [field for field in step.field.model._meta.local_concrete_fields if is_time(field)]
    before = {field.attname: known.get(field.attname) for field in times if field.attname in known}
    values = {field.attname: field.pre_save(step.instance, False) for field in times}
    moved = _update(
        step, source, {step.field.attname: source if target is None else target, **values}
    )
    if not moved:
        for name in values:
            known.pop(name)
        known.update(before)
    elif step.version is not None:
        move_on(step.instance, step.version, step.using)
    return moved


def _update(step: Step, source: Any, values: dict[str, Any]) -> bool:
    field, version = step.field, step.version
    rows = step.row_in(field.model).filter(is_state(field, source))
    if version is None:
        return bool(rows.update(**values))
    expected = expected_version(step.instance, version)
    guard, counted = {version.name: expected}, {version.name: expected + 1}
    if version.model is field.model:
        return bool(rows.filter(**guard).update(**values, **counted))
    # As in a save, the table with the version is locked first.
    root = locked(step, version.model).filter(**guard)
    return bool(root.values_list("pk")) and bool(rows.update(**values) and root.update(**counted))


def _require_version(step: Step) -> None:
    if step.version is None:
        return
    expected = expected_version(step.instance, step.version)
    facts = facts_of(step.instance, step.version, step.using, expected)
    if facts["actual"] != expected:
        raise StaleObject(**facts)


def is_state(field: Any, state: Any) -> models.Q:
    name = field.attname
    return models.Q(**{f"{name}__isnull": True} if state is None else {name: state})
