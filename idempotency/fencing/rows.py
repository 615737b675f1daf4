"""Rows that only the newest holder of their lock writes."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import Any

from asgiref.sync import sync_to_async
from django.db import models, router, transaction

from ..exceptions import StaleObject
from ..optimistic.versions import make_new
from ..rollbacks import on_rollback
from ..signals import RowEvent, announce_error
from .tokens import Held, fence_of, refuse_older, token_of


class FencedModel(models.Model):
    """
    A row that keeps the newest fencing token that wrote it: `save(held=…)`, `delete(held=…)`.

    A write of an older holder raises `StaleLock`; one of what was read before another holder
    wrote raises `StaleObject`. Both leave a surrounding transaction usable and the object as read.
    """

    fence = models.BigIntegerField(default=0, editable=False)

    class Meta:
        abstract = True

    def save(
        self,
        *,
        held: Held | None = None,
        using: str | None = None,
        force_insert: Any = False,
        **options: Any,
    ) -> None:
        using = using or router.db_for_write(type(self), instance=self)
        if self._state.adding or self.pk is None or force_insert:
            write = partial(super().save, using=using, **options)
            return _insert(self, write, held, using, force_insert)
        held = _require_held(self, "save", held)
        with transaction.atomic(using=using):
            _meet(self, held, using)
            super().save(using=using, **options)

    save.alters_data = True  # type: ignore[attr-defined]

    def delete(
        self, using: Any = None, keep_parents: bool = False, *, held: Held | None = None
    ) -> tuple[int, dict[str, int]]:
        if self.pk is None:
            return super().delete(using=using, keep_parents=keep_parents)
        held = _require_held(self, "delete", held)
        using = using or router.db_for_write(type(self), instance=self)
        with transaction.atomic(using=using):
            _meet(self, held, using)
            return super().delete(using=using, keep_parents=keep_parents)

    delete.alters_data = True  # type: ignore[attr-defined]

    async def asave(self, **options: Any) -> None:
        await sync_to_async(self.save)(**options)

    asave.alters_data = True  # type: ignore[attr-defined]

    async def adelete(self, *args: Any, **options: Any) -> tuple[int, dict[str, int]]:
        return await sync_to_async(self.delete)(*args, **options)

    adelete.alters_data = True  # type: ignore[attr-defined]


def _require_held(instance: models.Model, verb: str, held: Held | None) -> Held:
    if held is not None:
        return held
    raise TypeError(
        f"This {instance._meta.label} is written under a lock: {verb}(held=…), and that is None"
        " here, as current_lock() is outside of one. For a change that no lock guards, use"
        " QuerySet.update() or QuerySet.delete()."
    )


def _insert(
    instance: FencedModel, write: Any, held: Held | None, using: str, force_insert: Any
) -> None:
    """Insert the row, and never overwrite one: the object has not read its fence."""
    field = fence_of(type(instance), "fence")
    given = force_insert if isinstance(force_insert, tuple) else ()
    had_key = instance.pk is not None
    with nullcontext() if held is None else transaction.atomic(using=using):
        if held is not None:
            _note(instance, token_of(held), using)
        write(force_insert=(*given, field.model))
        on_rollback(partial(make_new, instance, had_key), using)


def _meet(instance: FencedModel, held: Held, using: str) -> None:
    """
    Let the row know the token of *held*, if nobody else has written it since it was read.

    An older holder may still have: it was paused between its write and its commit.
    """
    token = token_of(held)
    field = fence_of(type(instance), "fence")
    if field.attname not in instance.__dict__:
        raise TypeError(
            f"This {instance._meta.label} was read without its fence, so nobody knows who has"
            " written it since: name 'fence' in only(), or read the object again."
        )
    key = getattr(instance, field.model._meta.pk.attname)
    row: models.QuerySet[Any] = models.QuerySet(field.model, using=using).filter(pk=key)
    if row.filter(fence__in={instance.fence, token}, fence__lte=token).update(fence=token):
        return _note(instance, token, using)
    stored = row.select_for_update().values_list("fence", flat=True).first()
    refuse_older(type(instance), stored, token)
    error = StaleObject(model=type(instance), pk=instance.pk)
    announce_error(error, RowEvent(name=instance._meta.label_lower, outcome="stale"))
    raise error


def _note(instance: FencedModel, token: int, using: str) -> None:
    """Let the object know the token, until the write is rolled back."""
    before, instance.fence = instance.fence, token
    on_rollback(partial(_go_back, instance, before), using)


def _go_back(instance: FencedModel, before: int) -> None:
    # Of several writes that are rolled back together, the first one's fence is right.
    instance.fence = min(before, instance.fence)
