"""Rows of which no change is lost."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, ClassVar, Self

from asgiref.sync import sync_to_async
from django.core import checks
from django.db import connections, models, router, transaction
from django.db.models import F, Value
from django.db.models.functions import Greatest
from django.db.models.lookups import Exact

from ..exceptions import StaleObject
from ..rollbacks import on_rollback
from ..signals import RowEvent, announce_error
from .querysets import VersionedManager, VersionedQuerySet
from .versions import (
    NextVersion,
    VersionField,
    deferred,
    expected_version,
    facts_of,
    make_new,
    move_on,
    row_of,
    stored_version,
    version_field,
)


class _Unmatched(StaleObject):
    """The row has changed since it was read; read it again and decide anew."""

    @classmethod
    def of(
        cls, instance: models.Model, field: VersionField, using: str, expected: int | None
    ) -> _Unmatched:
        facts = facts_of(instance, field, using, expected)
        conflict = cls(**facts)
        conflict.using, conflict.facts = using, facts
        return conflict

    using: str
    facts: dict[str, Any]


class VersionedModel(models.Model):
    """
    A row of which no change is lost: every write takes effect only on the version that was read.

    A write of a row that has changed since raises `StaleObject`, leaves a surrounding transaction
    usable and the object as it was. A row that was deleted is never inserted again.
    """

    version = VersionField()

    objects: ClassVar[VersionedManager[Self]] = VersionedManager()
    # Used by Django for reverse relations and SET_NULL, which are writes like others.
    versioned: ClassVar[VersionedManager[Self]] = VersionedManager()

    class Meta:
        abstract = True
        base_manager_name = "versioned"

    def save(self, *args: Any, **options: Any) -> None:
        using = options.get("using") or router.db_for_write(type(self), instance=self)
        is_new, had_key = self._state.adding, self.pk is not None
        if not is_new:
            # Told here, as an error further in would mark the transaction as broken.
            expected_version(self, version_field(type(self)))
        # With parents, other tables may be written before the guard decides.
        with transaction.atomic(using=using) if self._meta.parents else nullcontext():
            try:
                super().save(*args, **options)
            except _Unmatched as conflict:
                _mend(conflict, self)
                error = StaleObject(str(conflict), **conflict.facts)
                announce_error(error, RowEvent(name=self._meta.label_lower, outcome="stale"))
                raise error from None
        if is_new:
            on_rollback(partial(make_new, self, had_key), using)

    save.alters_data = True  # type: ignore[attr-defined]

    @classmethod
    def check(cls, **options: Any) -> list[checks.CheckMessage]:
        return [*super().check(**options), *_check_managers(cls)]

    def _do_update(  # type: ignore[override]
        self, base_qs: Any, using: str, pk_val: Any, values: Any, *rest: Any, **named: Any
    ) -> Any:
        # Django's one private hook here: a save gives its WHERE no other. What follows the values
        # differs between versions.
        update: Callable[..., Any] = partial(super()._do_update, **named)
        field = version_field(type(self))
        if base_qs.model is not field.model:
            return update(base_qs, using, pk_val, values, *rest)
        others = [value for value in values if value[0] is not field]
        given = [value for owner, _, value in values if owner is field]
        if given and not isinstance(given[0], NextVersion):
            moved_on = Greatest(F(field.name) + 1, Value(given[0]))
            return update(base_qs, using, pk_val, [*others, (field, None, moved_on)], *rest)
        if self._state.adding:
            return self._refuse_to_overwrite(field, using)
        expected = expected_version(self, field)
        # Django made the queryset for this save, so adding to it is safe, and faster than filter().
        base_qs.query.where.add(Exact(field.get_col(field.model._meta.db_table), expected), "AND")
        updated = update(base_qs, using, pk_val, [*others, (field, None, expected + 1)], *rest)
        if not updated:
            raise _Unmatched.of(self, field, using, expected)
        move_on(self, field, using)
        return updated

    def _refuse_to_overwrite(self, field: VersionField, using: str) -> list[Any]:
        """Let an object that was never read be inserted, but overwrite nothing."""
        if stored_version(self, field, using) is not None:
            raise _Unmatched.of(self, field, using, None)
        return []

    def refresh_from_db(
        self, using: str | None = None, fields: Any = None, from_queryset: Any = None
    ) -> None:
        field = version_field(type(self))
        before = {name: self.__dict__[name] for name in [field.attname] if name in self.__dict__}
        asked = None if fields is None else set(fields)
        if asked == {field.attname} and not before:
            raise deferred(self, field)
        super().refresh_from_db(using=using, fields=asked, from_queryset=from_queryset)
        if asked is not None and not asked & {field.name, field.attname}:
            # Only what was asked for is newer now: the whole object is as old as before.
            self.__dict__.pop(field.attname, None)
            self.__dict__.update(before)

    def delete(
        self, using: Any = None, keep_parents: bool = False, **options: Any
    ) -> tuple[int, dict[str, int]]:
        remove: Callable[..., tuple[int, dict[str, int]]] = partial(
            super().delete, keep_parents=keep_parents, **options
        )
        if self.pk is None:
            return remove(using=using)
        using = using or router.db_for_write(type(self), instance=self)
        field = version_field(type(self))
        expected = expected_version(self, field)
        with transaction.atomic(using=using):
            row = row_of(self, field, using).filter(**{field.name: expected})
            if not row.update(**{field.name: expected + 1}):
                error = StaleObject(**facts_of(self, field, using, expected))
                announce_error(error, RowEvent(name=self._meta.label_lower, outcome="stale"))
                raise error
            return remove(using=using)

    delete.alters_data = True  # type: ignore[attr-defined]

    def touch(self, using: str | None = None) -> None:
        """
        Count the version up and change nothing else, as for a change of what belongs to the row.

        Raises: `StaleObject` if the row has changed since it was read.
        """
        self.save(using=using, update_fields=[version_field(type(self)).name])

    touch.alters_data = True  # type: ignore[attr-defined]

    async def atouch(self, using: str | None = None) -> None:
        await sync_to_async(self.touch)(using=using)

    atouch.alters_data = True  # type: ignore[attr-defined]


def _mend(conflict: _Unmatched, instance: models.Model) -> None:
    """Take back Django's mark on the transaction: the guard failed before anything was written."""
    connection = connections[conflict.using]
    if connection.in_atomic_block and not instance._meta.parents:
        transaction.set_rollback(False, using=conflict.using)


def _check_managers(model: type[models.Model]) -> list[checks.CheckMessage]:
    managers = {"default": model._default_manager, "base": model._base_manager}
    return [
        checks.Warning(
            f"The {kind} manager of {model._meta.label} does not count versions up, so that a stale"
            " object later overwrites what its update() wrote.",
            hint=_HINTS[kind],
            obj=model,
            id="idempotency.W007",
        )
        for kind, manager in managers.items()
        if not isinstance(manager.all(), VersionedQuerySet)
    ]


_HINTS = {
    "default": "Derive it from idempotency.models.VersionedManager.",
    "base": 'Set base_manager_name = "versioned" in the Meta of the model.',
}
