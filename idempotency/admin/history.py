"""The last transitions of one object, as its page shows them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db import models

from ..models import TransitionLog
from ..transitions import log_of
from .offers import label_of, state_in_words

SHOWN = 20


@dataclass(frozen=True, slots=True)
class Event:
    """A row of the log, in words."""

    entry: TransitionLog
    label: str
    source: str
    target: str
    by: str


def history_of(instance: models.Model) -> list[Event]:
    """Give the last transitions of *instance*, the last one first."""
    entries = list(log_of(instance)[:SHOWN])
    names = _names(entry.by for entry in entries)
    return [_event(instance, entry, names) for entry in entries]


def _event(instance: models.Model, entry: TransitionLog, names: dict[str, str]) -> Event:
    field: Any = instance._meta.get_field(entry.field)
    return Event(
        entry,
        label_of(type(instance), entry.transition),
        state_in_words(field, entry.source),
        state_in_words(field, entry.target),
        names.get(entry.by, entry.by),
    )


def _names(actors: Iterable[str]) -> dict[str, str]:
    """Give the names of those actors that are users, in one query."""
    model: Any = get_user_model()
    keys = {}
    for actor in actors:
        kind, _, key = actor.partition(":")
        if kind == "user":
            try:
                keys[actor] = model._meta.pk.to_python(key)
            except ValidationError:
                continue  # Words that only look like a user.
    found = model._default_manager.in_bulk(set(keys.values())) if keys else {}
    return {actor: str(found[key]) for actor, key in keys.items() if key in found}
