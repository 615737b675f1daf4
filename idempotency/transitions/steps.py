"""One call of a transition, and what its declaration says of states."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import FieldDoesNotExist
from django.db import models, router

from ..optimistic import VersionedModel
from ..optimistic.versions import version_field


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """A transition that is asked for: of which row, by which method, on which database."""

    instance: Any
    method: Callable[..., Any]
    using: str = ""
    field: Any = None  # Of the state, in the table that has it.
    version: Any = None  # The field of the version, if there is one.
    keys: dict[str, Any] = dataclasses.field(default_factory=dict)  # As a body may change them.

    @classmethod
    def of(cls, instance: models.Model, method: Callable[..., Any]) -> Step:
        field = _field(instance, method)
        versioned = isinstance(instance, VersionedModel)
        version = version_field(type(instance)) if versioned else None
        tables = [type(instance), field.model, *([version.model] if version else [])]
        names = {table._meta.pk.attname for table in tables}
        keys = {name: getattr(instance, name) for name in names}
        using = router.db_for_write(type(instance), instance=instance)
        return cls(instance, method, using, field, version, keys)

    @property
    def model(self) -> type[models.Model]:
        return type(self.instance)

    @property
    def meta(self) -> Any:
        """What django-fsm keeps of the declaration."""
        return self.method._django_fsm  # type: ignore[attr-defined]

    @property
    def name(self) -> str:
        return self.method.__name__

    @property
    def label(self) -> str:
        """The model and the transition, such as "orders.order.pay"."""
        return f"{self.model._meta.label_lower}.{self.name}"

    @property
    def sources(self) -> tuple[Any, ...]:
        """The states from which the transition leads; "*" is any, "+" any but the target."""
        return tuple(self.meta.transitions)

    def leads_from(self, state: Any) -> bool:
        return bool(self.meta.has_transition(state)) and not self.is_settled_in(state)

    def is_settled_in(self, state: Any) -> bool:
        """Whether *state* is where the transition leads, and not one that it names to start in."""
        return state not in self.meta.transitions and any(
            declared.target is not None and state == declared.target
            for declared in self.meta.transitions.values()
        )

    def is_repeated(self, read: Any, actual: Any) -> bool:
        """Whether *actual* is where a call of an object in the state *read* would lead."""
        if self.leads_from(read):
            target = self.target_from(read)
            return target is not None and read != actual == target and not self._stays_in(actual)
        return self.is_settled_in(actual)

    def _stays_in(self, state: Any) -> bool:
        """Whether *state* is named as a source that leads to itself: then each call runs."""
        return state in self.meta.transitions and self.target_from(state) == state

    def target_from(self, source: Any) -> Any:
        """Give the state to store, or None if it stays or only the body tells."""
        target = self.meta.next_state(source)
        return None if hasattr(target, "get_state") else target

    def row_in(self, model: type[models.Model]) -> models.QuerySet[Any]:
        """Give the row in a table; no manager has a say in it, or counts a version up."""
        key = self.keys[model._meta.pk.attname]
        return models.QuerySet(model, using=self.using).filter(pk=key)


def _field(instance: models.Model, method: Callable[..., Any]) -> Any:
    declared = method._django_fsm.field  # type: ignore[attr-defined]
    name = getattr(declared, "name", declared)
    try:
        return instance._meta.get_field(name)
    except FieldDoesNotExist as error:
        raise TypeError(
            f"{method.__name__}() is a transition of {name!r}, which {instance._meta.label} lacks."
        ) from error
