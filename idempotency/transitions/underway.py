"""Which transitions are under way in this context: the object is behind its row meanwhile."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from django.db import models

from ..rollbacks import on_rollback
from .memory import Values, related_of, values_of
from .steps import Step


@dataclass(slots=True, eq=False)
class Watch:
    """What the row of an object has, so that what is changed but not written can be told."""

    instance: Any
    values: Values
    related: dict[str, Any]
    step: Step | None  # The transition whose body runs.
    is_over: bool = field(default=False, init=False)


# Not kept in the object, as a copy of it, or a pickled one, is under way nowhere.
_watches: ContextVar[tuple[Watch, ...]] = ContextVar("idempotency_transitions", default=())


@contextmanager
def watching(instance: models.Model, step: Step | None = None) -> Iterator[Watch]:
    """Keep track of what is changed of *instance* and not written; in the body of *step*."""
    watch = Watch(instance, values_of(instance), related_of(instance), step)
    reset = _watches.set((*_watches.get(), watch))
    try:
        yield watch
    finally:
        watch.is_over = True  # A copy of the context may live on.
        _watches.reset(reset)


def _watches_of(instance: models.Model) -> list[Watch]:
    return [watch for watch in _watches.get() if watch.instance is instance and not watch.is_over]


def _steps_of(instance: models.Model) -> list[Step]:
    return [watch.step for watch in _watches_of(instance) if watch.step is not None]


def changing(instance: models.Model) -> set[str]:
    """Give the attributes of the states that are just being changed."""
    return {step.field.attname for step in _steps_of(instance)}


def note_read(instance: models.Model, names: Iterable[str]) -> None:
    """Take what was just read of the row for no change."""
    _note(instance, names)


def note_written(instance: models.Model, names: Iterable[str], using: str) -> None:
    """Take what was just written of the row for no change, until that is rolled back."""
    for watch, before in _note(instance, names):
        on_rollback(partial(watch.values.update, before), using)


def _note(instance: models.Model, names: Iterable[str]) -> list[tuple[Watch, Values]]:
    watches = _watches_of(instance)
    if not watches:
        return []
    now = values_of(instance)
    news = {name: now[name] for name in names if name in now}
    olds = [{name: w.values[name] for name in news if name in w.values} for w in watches]
    for watch in watches:
        watch.values.update(news)
    return list(zip(watches, olds, strict=True))


def is_called_by_its_override(step: Step) -> bool:
    """
    Whether the same transition is under way, declared in a child class that calls its parent's.

    Raises: `TypeError` if another one of the same state of the same object is.
    """
    same = [s for s in _steps_of(step.instance) if s.field.attname == step.field.attname]
    if not same:
        return False
    if same[-1].name == step.name and same[-1].method is not step.method:
        return True
    raise TypeError(
        f"{step.name}() is called while {same[-1].name}() changes the same {step.field.name} of"
        " this object. Call it afterwards, or in a receiver of post_transition."
    )
