"""The transitions of an object as a person sees them: which there are, and in which words."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django import forms
from django.db import models
from django.utils.module_loading import import_string

from ..optimistic import VersionedModel
from ..optimistic.versions import expected_version, version_field
from ..transitions.journal import FOR_THE_LOG
from ..transitions.states import state_fields, state_of, text_of
from ..transitions.steps import Step

UNKNOWN = "…"


@dataclass(frozen=True, slots=True)
class Offer:
    """A transition of an object, and what its declaration says of one state."""

    step: Step
    declared: Any

    @property
    def name(self) -> str:
        return self.step.name

    @property
    def label(self) -> str:
        return label_of(self.step.model, self.name)

    @property
    def source(self) -> str:
        return state_in_words(self.step.field, self.state)

    @property
    def target(self) -> str:
        """The state to which it leads, or all that it may lead to."""
        target = self.declared.target
        if target is None:
            return self.source
        if not hasattr(target, "get_state"):
            return state_in_words(self.step.field, target)
        states = [state_in_words(self.step.field, one) for one in target.allowed_states or ()]
        return " / ".join(states) or UNKNOWN

    @property
    def state(self) -> Any:
        return state_of(self.step.instance, self.step.field)

    @property
    def form(self) -> type[forms.Form] | None:
        """The class of the form that asks for what the method needs."""
        given = self.declared.custom.get("form")
        form: type[forms.Form] | None = import_string(given) if isinstance(given, str) else given
        return form

    @property
    def is_for_the_admin(self) -> bool:
        """Whether it is not hidden, and all that the method needs can be asked for."""
        if self.declared.custom.get("admin", True) is False:
            return False
        return self.form is not None or not _needs(self.step.method)


def offers(instance: Any, user: Any) -> list[Offer]:
    """Give what *user* may do with *instance* as it is, in the order of the declarations."""
    found = [
        offer
        for field in state_fields(type(instance))
        for offer in _available(instance, user, field)
    ]
    declared = [name for base in reversed(type(instance).__mro__) for name in vars(base)]
    return sorted(found, key=lambda offer: declared.index(offer.name))


def _available(instance: Any, user: Any, field: Any) -> Iterator[Offer]:
    state = state_of(instance, field)
    for declared in getattr(instance, f"get_available_user_{field.name}_transitions")(user):
        if declared.name.startswith("_"):
            continue  # Private, and not even to be found by that name.
        offer = Offer(step_of(instance, declared.name), declared)
        # What is in its target state already has nothing to be done.
        if offer.step.leads_from(state) and offer.is_for_the_admin:
            yield offer


def step_of(instance: Any, name: str) -> Step:
    return Step.of(instance, getattr(type(instance), name))


def find_step(instance: Any, name: str) -> Step | None:
    """Give the transition of that name, whatever the state is."""
    return step_of(instance, name) if name in _names_of(type(instance)) else None


def _names_of(model: type[models.Model]) -> set[str]:
    return {name for field in state_fields(model) for name in field.transitions.get(model, {})}


def declared_from(step: Step, state: str) -> Any:
    """Give what is declared for a state that is given as text; None if nothing is."""
    named = {text_of(source): declared for source, declared in step.meta.transitions.items()}
    return named.get(state) or named.get("*") or named.get("+")


def label_of(model: type[models.Model], name: str) -> str:
    """Give the label of a transition, or its name in words if it has none."""
    meta = getattr(getattr(model, name, None), "_django_fsm", None)
    declared = () if meta is None else meta.transitions.values()
    labels = [one.custom["label"] for one in declared if "label" in one.custom]
    return str(labels[0]) if labels else name.replace("_", " ").capitalize()


def state_in_words(field: Any, state: Any) -> str:
    """Give the label of a state, which may be as in the log: text."""
    labels = {text_of(value): str(label) for value, label in field.flatchoices}
    return labels.get(text_of(state), text_of(state))


def version_of(instance: models.Model) -> int | None:
    if not isinstance(instance, VersionedModel):
        return None
    return expected_version(instance, version_field(type(instance)))


def _needs(method: Any) -> list[str]:
    """Give the names of what the method cannot do without."""
    fixed = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    _, *parameters = inspect.signature(method).parameters.values()
    return [
        parameter.name
        for parameter in parameters
        if parameter.default is parameter.empty and parameter.kind not in fixed
        if parameter.name not in FOR_THE_LOG
    ]
