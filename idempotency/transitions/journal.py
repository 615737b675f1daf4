"""The log of transitions: who moved what from where to where, under which claim."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from ..current import current_record_id
from ..models import TransitionLog
from .states import state_fields
from .steps import Step

LONGEST = 255


def name_of(by: Any) -> str:
    """
    Give the words by which the log names an actor: "user:42" for a user, else its own.

    Raises: `ValueError` if they are longer than the log keeps.
    """
    words = "" if by is None else str(by)
    if isinstance(by, models.Model):
        kind = "user" if isinstance(by, AbstractBaseUser) else by._meta.label_lower
        words = f"{kind}:{by.pk}"
    if len(words) > LONGEST:
        raise ValueError(f"by= has {len(words)} characters; the log keeps up to {LONGEST}.")
    return words


def write_log(step: Step, source: Any, target: Any, by: str, note: str) -> None:
    """Note a transition in the transaction that is open."""
    row = TransitionLog(
        **_of(step.instance, step.field),
        transition=step.name,
        source=_text(source),
        target=_text(target),
        by=by,
        note=note,
        record_id=current_record_id(),
        created_at=Now(),
    )
    row.save(using=step.using, force_insert=True)


def log_of(instance: models.Model) -> models.QuerySet[TransitionLog]:
    """Give the transitions of *instance*, the last one first."""
    logged = [Q(**_of(instance, field)) for field in state_fields(type(instance))]
    return TransitionLog.objects.using(instance._state.db).filter(reduce(or_, logged))


def _of(instance: models.Model, field: Any) -> dict[str, str]:
    """Name a row by the table that has its state, whichever child or proxy it was read as."""
    owner = field.model._meta
    key = getattr(instance, owner.pk.attname)
    return {"model": owner.label_lower, "object_id": str(key), "field": field.name}


def _text(state: Any) -> str:
    return "" if state is None else str(getattr(state, "value", state))
