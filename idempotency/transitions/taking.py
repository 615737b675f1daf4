"""The conditional UPDATE that decides a transition before anything of it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db import models

from ..exceptions import StaleObject
from ..optimistic import VersionedModel
from ..optimistic.versions import expected_version, move_on, version_field
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
    source = state_of(step.instance, step.field)
    if step.leads_from(source) and _move(step, source):
        return Taken(source)
    actual = _stored(step)
    if step.is_repeated_in(actual):
        put_state(step.instance, step.field, actual)
        return Taken(actual, repeated=True)
    if not step.leads_from(actual):
        raise other_state(step, actual)
    # What the object knows is old, so the body and its guards get the row as it is.
    step.instance.refresh_from_db(using=step.using, from_queryset=_locked(step.model, step))
    return take(step)


def current_row(step: Step) -> Any:
    """Give the row as it is, as another object."""
    row = _locked(step.model, step).first()
    if row is None:
        raise row_gone(step)
    return row


def is_versioned(step: Step) -> bool:
    return isinstance(step.instance, VersionedModel)


def is_time(field: models.Field[Any, Any]) -> bool:
    """Whether *field* keeps the time of the last change."""
    return bool(getattr(field, "auto_now", False))


def row_in(model: type[models.Model], step: Step) -> models.QuerySet[Any]:
    """Give the row in the table of *model*; no manager has a say in it, or counts a version up."""
    key = getattr(step.instance, model._meta.pk.attname)
    return models.QuerySet(model, using=step.using).filter(pk=key)


def row_gone(step: Step) -> StaleObject:
    model, pk = step.model, step.instance.pk
    return StaleObject(model=model, pk=pk, expected=_expected(step), actual=None)


def _move(step: Step, source: Any) -> bool:
    """Try the UPDATE from *source*; no row is a No."""
    field, target = step.field, step.target_from(source)
    values = {field.attname: source if target is None else target, **_times(step)}
    rows = row_in(field.model, step).filter(_is(field.attname, source))
    version = _version(step)
    if version is None:
        return bool(rows.update(**values))
    expected = expected_version(step.instance, version)
    guard, moved = {version.name: expected}, {version.name: expected + 1}
    if version.model is field.model:
        done = bool(rows.filter(**guard).update(**values, **moved))
    else:
        # As in a save, the table with the version is locked first.
        root = _locked(version.model, step).filter(**guard)
        done = bool(root.values_list("pk")) and bool(rows.update(**values) and root.update(**moved))
    if done:
        move_on(step.instance, version, step.using)
    return done


def _stored(step: Step) -> Any:
    """Give the state of the row, which nobody else changes from now on."""
    rows = _locked(step.field.model, step)
    version = _version(step)
    found = rows.values_list(step.field.attname).first()
    if found is None:
        raise row_gone(step)
    if version is not None and not step.is_repeated_in(found[0]) and step.leads_from(found[0]):
        _require_version(step, version)
    return found[0]


def _require_version(step: Step, version: Any) -> None:
    expected = _expected(step)
    actual = _locked(version.model, step).values_list(version.name, flat=True).first()
    if actual != expected:
        facts = {"model": step.model, "pk": step.instance.pk}
        raise StaleObject(**facts, expected=expected, actual=actual)


def _version(step: Step) -> Any:
    return version_field(step.model) if is_versioned(step) else None


def _expected(step: Step) -> int | None:
    version = _version(step)
    return None if version is None else expected_version(step.instance, version)


def _times(step: Step) -> dict[str, Any]:
    """Give the times of the last change that the table of the state keeps."""
    times = [field for field in step.field.model._meta.local_concrete_fields if is_time(field)]
    return {field.attname: field.pre_save(step.instance, False) for field in times}


def _is(name: str, state: Any) -> models.Q:
    return models.Q(**{f"{name}__isnull": True} if state is None else {name: state})


def _locked(model: type[models.Model], step: Step) -> models.QuerySet[Any]:
    return row_in(model, step).select_for_update()
