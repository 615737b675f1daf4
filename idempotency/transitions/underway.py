"""Which transitions are under way in this context: the object is behind its row meanwhile."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from django.db import models

from .memory import Values, values_of
from .steps import Step


@dataclass(slots=True, eq=False)
class Underway:
    """A transition whose body runs, and the values of its object that are no change of it."""

    step: Step
    values: Values


# Not kept in the object, as a copy of it, or a pickled one, is under way nowhere.
_underway: ContextVar[tuple[Underway, ...]] = ContextVar("idempotency_transitions", default=())


@contextmanager
def under_way(step: Step) -> Iterator[Underway]:
    entry = Underway(step, values_of(step.instance))
    reset = _underway.set((*_underway.get(), entry))
    try:
        yield entry
    finally:
        _underway.reset(reset)


def steps_under_way(instance: models.Model) -> list[Step]:
    return [entry.step for entry in _underway.get() if entry.step.instance is instance]


def changing(instance: models.Model) -> set[str]:
    """Give the attributes of the states that are just being changed."""
    return {step.field.attname for step in steps_under_way(instance)}


def note_read(instance: models.Model, names: Iterable[str]) -> None:
    """Take what was just read from the database for no change of a body."""
    for entry in _underway.get():
        if entry.step.instance is instance:
            now = values_of(instance)
            entry.values.update({name: now[name] for name in names if name in now})


def is_called_by_its_override(step: Step) -> bool:
    """
    Whether the same transition is under way, declared in a child class that calls its parent's.

    Raises: `TypeError` if another one of the same state of the same object is.
    """
    same = [s for s in steps_under_way(step.instance) if s.field.attname == step.field.attname]
    if not same:
        return False
    if same[-1].name == step.name and same[-1].method is not step.method:
        return True
    raise TypeError(
        f"{step.name}() is called while {same[-1].name}() changes the same {step.field.name} of"
        " this object. Call it afterwards, or in a receiver of post_transition."
    )
