"""Writes of many rows under one lock."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from asgiref.sync import sync_to_async
from django.db import models, transaction
from django.db.models.lookups import Exact

from ..pessimistic import lock_rows
from ..pessimistic.rows import Target, queryset_of
from .tokens import Held, fence_of, refuse_older, token_of

Row = TypeVar("Row", bound=models.Model)


def guard(target: Target[Row], held: Held, *, field: str = "fence") -> Guard[Row]:
    """
    Give `update()` and `delete()` of the rows that take effect only for the newest holder.

    Args:
        target: a queryset; or a model or manager, for all of its rows.
        held: the lock or claim under which the rows are written, always of the same name.
        field: the `BigIntegerField` in which each row keeps the newest token that wrote it.
    """
    return Guard(queryset_of(target), held, field)


class Guard(Generic[Row]):
    """Writes of rows under a lock: all of them, or none if one has met a newer holder."""

    def __init__(self, rows: models.QuerySet[Row], held: Held, field: str) -> None:
        fence_of(rows.model, field)
        self.rows = rows.using(rows.select_for_update().db)
        self.held = held
        self.field = field

    def update(self, **values: Any) -> int:
        """
        Update the rows and give their number; without *values* they just meet this holder.

        Raises: `StaleLock` if a newer holder has written one of them; then nothing was written.
        """
        token = token_of(self.held)
        if self.field in values:
            raise TypeError(f"{self.field} is written by the guard; leave it out of update().")
        values[self.field] = token
        if _is_one_row(self.rows):
            # The database looks again at a row for which it had to wait: one statement is enough.
            not_newer = self.rows.order_by().exclude(**{f"{self.field}__gt": token})
            if updated := not_newer.update(**values):
                return updated
        with transaction.atomic(using=self.rows.db):
            return self._locked(token).update(**values)

    def delete(self) -> int:
        """
        Delete the rows and what depends on them; give the number of the rows.

        Raises: `StaleLock` if a newer holder has written one of them; then nothing was deleted.
        """
        token = token_of(self.held)
        with transaction.atomic(using=self.rows.db):
            _, deleted = self._locked(token, no_key=False).delete()
        return deleted.get(self.rows.model._meta.label, 0)

    async def aupdate(self, **values: Any) -> int:
        return await sync_to_async(self.update)(**values)

    async def adelete(self) -> int:
        return await sync_to_async(self.delete)()

    def _locked(self, token: int, *, no_key: bool = True) -> models.QuerySet[Row]:
        """Give the rows, which nobody else writes from now on, unless one is newer than *token*."""
        found = lock_rows(self.rows.select_related(None).only(self.field), no_key=no_key)
        for row in found:
            refuse_older(type(row), getattr(row, self.field), token)
        return self.rows.order_by().filter(pk__in=[row.pk for row in found])


def _is_one_row(rows: models.QuerySet[Any]) -> bool:
    """Whether *rows* are looked up by primary key, in one table: no second one can be newer."""
    query = rows.query
    is_plain = not (query.is_sliced or query.distinct or query.combinator or query.group_by)
    return (
        is_plain
        and len(query.alias_map) == 1
        and not rows.model._meta.parents
        and query.where.connector == "AND"
        and not query.where.negated
        and any(_is_key(lookup) for lookup in query.where.children)
    )


def _is_key(lookup: Any) -> bool:
    target = getattr(getattr(lookup, "lhs", None), "target", None)
    is_key = isinstance(lookup, Exact) and bool(getattr(target, "primary_key", False))
    return is_key and not hasattr(lookup.rhs, "resolve_expression")
