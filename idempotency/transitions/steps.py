"""One call of a transition, and what its declaration says of states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db import models, router


@dataclass(frozen=True, slots=True)
class Step:
    """A transition that is asked for: of which row, by which method, on which database."""

    instance: Any
    method: Callable[..., Any]
    using: str

    @classmethod
    def of(cls, instance: models.Model, method: Callable[..., Any]) -> Step:
        return cls(instance, method, router.db_for_write(type(instance), instance=instance))

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
    def field(self) -> Any:
        """The field of the state, in the table that has it."""
        return self.instance._meta.get_field(self.meta.field.name)

    @property
    def sources(self) -> tuple[Any, ...]:
        """The states from which the transition leads; "*" is any, "+" any but the target."""
        return tuple(self.meta.transitions)

    def leads_from(self, state: Any) -> bool:
        return bool(self.meta.has_transition(state)) and not self.is_repeated_in(state)

    def is_repeated_in(self, state: Any) -> bool:
        """Whether *state* is where the transition leads, and not one that it names to start in."""
        return state not in self.meta.transitions and any(
            state in states_of(declared.target) for declared in self.meta.transitions.values()
        )

    def target_from(self, source: Any) -> Any:
        """Give the state to store, or None if it stays or only the body tells."""
        target = self.meta.next_state(source)
        return None if hasattr(target, "get_state") else target


def states_of(target: Any) -> list[Any]:
    """Give the states to which a declared target may lead; none if they are not declared."""
    if hasattr(target, "get_state"):
        return list(target.allowed_states)
    return [] if target is None else [target]


RUNNING = "_transitions_running"
"""Where an object keeps which of its states are just being changed."""


def enter(step: Step) -> None:
    """
    Mark the state as being changed.

    Raises: `TypeError` inside of a body that changes the same one.
    """
    running = running_in(step.instance)
    if step.field.attname in running:
        raise TypeError(
            f"{step.name}() is called while another transition of {step.field.name} runs on this"
            f" object. Call it afterwards, or in a receiver of post_transition."
        )
    step.instance.__dict__[RUNNING] = running | {step.field.attname}


def leave(step: Step) -> None:
    left = running_in(step.instance) - {step.field.attname}
    step.instance.__dict__[RUNNING] = left


def running_in(instance: models.Model) -> frozenset[str]:
    """Give the attributes of the states that are just being changed."""
    found: frozenset[str] = instance.__dict__.get(RUNNING, frozenset())
    return found
