"""Writes of many rows, each of which counts its version up."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from asgiref.sync import sync_to_async
from django.db import connections, models, transaction
from django.db.models import F

from ..signals import RowEvent, announce
from .versions import VersionField, expected_version, move_on, root_key, version_field

Row = TypeVar("Row", bound=models.Model)


class VersionedQuerySet(models.QuerySet[Row]):
    """A queryset whose writes count versions up, and which never leaves the version out."""

    def only(self, *fields: Any) -> Any:
        if fields == (None,):
            return super().only(*fields)  # type: ignore[arg-type]
        return super().only(*fields, version_field(self.model).name)

    def update(self, **values: Any) -> int:
        """Update the rows and count their versions up; a version among *values* is taken as is."""
        field = version_field(self.model)
        if not values or field.name in values:
            return super().update(**values)
        if not self.model._meta.parents:
            return super().update(**values, **{field.name: F(field.name) + 1})
        return self._update_tables(field, values)

    update.alters_data = True  # type: ignore[attr-defined]

    def _update_tables(self, field: VersionField, values: dict[str, Any]) -> int:
        """Count up first: so this meets a save in the same order, and a crash leaves no half."""
        with transaction.atomic(using=self.select_for_update().db):
            roots = field.model._base_manager.using(self.select_for_update().db)
            keys = sorted(self.order_by().values_list(field.model._meta.pk.name, flat=True))
            roots.filter(pk__in=keys).update(**{field.name: F(field.name) + 1})
            rows = self.filter(**{f"{field.model._meta.pk.name}__in": keys})
            return models.QuerySet.update(rows, **values)

    def bulk_update(  # type: ignore[override]
        self, objs: Iterable[Row], fields: Iterable[str], batch_size: int | None = None
    ) -> list[Row]:
        """
        Update *fields* of the objects whose version is still the stored one, and give the others.

        Nothing of the others is written; they are stale, or their rows are gone.
        """
        objects = list(objs)
        field = version_field(self.model)
        names = [name for name in fields if name != field.name]
        for one in objects:
            expected_version(one, field)
        using = self.select_for_update().db
        with transaction.atomic(using=using):
            versions = _lock_versions(field, using, [root_key(one, field) for one in objects])
            # Taken out when used, so that of two objects for one row the second is stale.
            fresh = [one for one in objects if _take(versions, one, field)]
            super().bulk_update(fresh, names, batch_size)
            for one in fresh:
                move_on(one, field, using)
        kept = {id(one) for one in fresh}
        stale = [one for one in objects if id(one) not in kept]
        for one in stale:
            announce(RowEvent(name=one._meta.label_lower, outcome="stale"))
        return stale

    bulk_update.alters_data = True  # type: ignore[attr-defined]

    async def abulk_update(  # type: ignore[override]
        self, objs: Iterable[Row], fields: Iterable[str], batch_size: int | None = None
    ) -> list[Row]:
        return await sync_to_async(self.bulk_update)(objs, fields, batch_size)

    def bulk_create(self, objs: Iterable[Row], *args: Any, **options: Any) -> list[Row]:
        if options.get("update_conflicts") or any(args[2:3]):  # Django takes it by position too.
            raise TypeError(
                "bulk_create(update_conflicts=True) would overwrite rows without a look at their"
                " version. Use update_or_create, or bulk_update for the rows that are there."
            )
        return super().bulk_create(objs, *args, **options)


if TYPE_CHECKING:  # What from_queryset() gives takes no type arguments.

    class Manager(models.Manager[Row]):
        def bulk_update(  # type: ignore[override]
            self, objs: Iterable[Row], fields: Iterable[str], batch_size: int | None = None
        ) -> list[Row]: ...

        async def abulk_update(  # type: ignore[override]
            self, objs: Iterable[Row], fields: Iterable[str], batch_size: int | None = None
        ) -> list[Row]: ...
else:
    Manager = models.Manager.from_queryset(VersionedQuerySet)


class VersionedManager(Manager[Row]):
    """A manager whose writes count versions up; derive your own from it."""


def _lock_versions(field: VersionField, using: str, keys: list[Any]) -> dict[Any, int]:
    """Lock the rows in the order of their keys, and give their versions."""
    rows = field.model._base_manager.using(using).filter(pk__in=keys)
    if connections[using].features.has_select_for_update:
        rows = rows.order_by("pk").select_for_update()
    else:  # A write that changes nothing takes the lock that a read does not.
        rows.update(**{field.name: F(field.name)})
    return dict(rows.values_list("pk", field.name))


def _take(versions: dict[Any, int], instance: models.Model, field: VersionField) -> bool:
    return versions.pop(root_key(instance, field), None) == expected_version(instance, field)
