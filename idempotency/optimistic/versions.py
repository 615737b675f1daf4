"""The version of a row: where it is kept, and what an object knows of it."""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING, Any

from django.db import connections, models

from ..rollbacks import on_rollback

if TYPE_CHECKING:
    Integers = models.BigIntegerField[int, int]
else:  # Django's own class takes no type arguments.
    Integers = models.BigIntegerField


class NextVersion(int):
    """The version that a save gives; a raw save, as of a fixture, has a plain number."""


class VersionField(Integers):
    """The number that every write of a row counts up, from 1."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"default": 1, "editable": False, **options})

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        version = super().pre_save(model_instance, add)
        return version if add else NextVersion(version + 1)


@cache
def version_field(model: type[models.Model]) -> VersionField:
    """Give the field that holds the version of *model*, of whatever name."""
    return next(field for field in model._meta.concrete_fields if isinstance(field, VersionField))


def is_deferred(instance: models.Model, field: VersionField) -> bool:
    return field.attname not in instance.__dict__


def deferred(instance: models.Model, field: VersionField) -> TypeError:
    return TypeError(
        f"This {instance._meta.label} was read without {field.name}, and a version that is read"
        f" later would let a stale save pass. Name {field.name!r} in only(), or read the object"
        " again."
    )


def expected_version(instance: models.Model, field: VersionField) -> int:
    """Give the version that *instance* was read with."""
    if is_deferred(instance, field):
        raise deferred(instance, field)
    version = field.to_python(instance.__dict__[field.attname])
    if version is None:
        raise TypeError(f"{field.name} of this {instance._meta.label} is None, not a version.")
    return int(version)


def move_on(instance: models.Model, field: VersionField, using: str) -> None:
    """Count up the version in memory, until the write is rolled back."""
    before = expected_version(instance, field)
    instance.__dict__[field.attname] = before + 1
    on_rollback(partial(_go_back, instance, field, before), using)


def _go_back(instance: models.Model, field: VersionField, before: int) -> None:
    # Of several writes that are rolled back together, the first one's version is right.
    instance.__dict__[field.attname] = min(before, instance.__dict__.get(field.attname, before))


def make_new(instance: models.Model, had_key: bool) -> None:
    """Make an object whose INSERT was rolled back one that can be inserted."""
    instance._state.adding = True
    if not had_key:
        instance.pk = None


def root_key(instance: models.Model, field: VersionField) -> Any:
    return getattr(instance, field.model._meta.pk.attname)


def row_of(instance: models.Model, field: VersionField, using: str) -> models.QuerySet[Any]:
    """Give the row of the table that holds the version."""
    return field.model._base_manager.using(using).filter(pk=root_key(instance, field))


def stored_version(instance: models.Model, field: VersionField, using: str) -> int | None:
    rows = row_of(instance, field, using)
    if connections[using].vendor == "mysql" and connections[using].in_atomic_block:
        # Under REPEATABLE READ a plain read would still show what was read before.
        rows = rows.select_for_update()
    return rows.values_list(field.name, flat=True).first()


def facts_of(
    instance: models.Model, field: VersionField, using: str, expected: int | None
) -> dict[str, Any]:
    actual = stored_version(instance, field, using)
    return {"model": type(instance), "pk": instance.pk, "expected": expected, "actual": actual}
