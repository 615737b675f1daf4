"""The states of a model and the transitions between them, drawn as text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.db import models

from .states import plain, state_fields
from .steps import Step

ANYWHERE = ("*", "+")
NOBODY_KNOWS = "?"
"""Where a transition leads whose target is not declared."""

RESERVED = {
    *("as", "choice", "class", "classdef", "click", "default", "direction", "end", "fork", "hide"),
    *("href", "join", "note", "root", "root_end", "root_start", "scale", "state", "statediagram"),
    "style",
}


def state_chart(model: type[models.Model], field: Any = None) -> str:
    """
    Draw the states and transitions of *model* as a `stateDiagram-v2` of Mermaid.

    Args:
        field: the state field, or its name; may be left out if there is one only.

    Raises: `LookupError` if there is no such field, or several to choose from.
    """
    return _Chart.of(model, _field_of(model, field)).draw()


def _field_of(model: type[models.Model], field: Any) -> Any:
    """Give the field as *model* has it, which also knows the transitions of a child's methods."""
    known = {each.name: each for each in state_fields(model)}
    if not known:
        raise LookupError(f"{model._meta.label} has no state field.")
    name = getattr(field, "name", field)
    if name is None and len(known) > 1:
        names = ", ".join(known)
        raise LookupError(f"{model._meta.label} has several state fields, choose one: {names}.")
    found = next(iter(known.values())) if name is None else known.get(name)
    if found is None:
        names = ", ".join(known)
        raise LookupError(f"{name!r} is no state field of {model._meta.label}; it has: {names}.")
    return found


@dataclass(frozen=True, slots=True)
class _Edge:
    source: Any
    target: Any
    label: str


@dataclass(frozen=True, slots=True)
class _Chart:
    field: Any
    steps: list[Step]
    states: list[Any]

    @classmethod
    def of(cls, model: type[models.Model], field: Any) -> _Chart:
        methods = field.transitions[model]
        names = dict.fromkeys(name for each in reversed(model.__mro__) for name in vars(each))
        steps = [Step(model, methods[name], "") for name in names if name in methods]
        named = [*_first_states(field), *(state for step in steps for state in _named_in(step))]
        return cls(field, steps, list(dict.fromkeys(map(plain, named))))

    def draw(self) -> str:
        edges = [edge for step in self.steps for edge in self._edges(step)]
        left = {edge.source for edge in edges if edge.target != edge.source}
        ids = _ids([*self.states, *(edge.target for edge in edges)])
        lines = [
            *self._descriptions(ids),
            *(f"[*] --> {ids[state]}" for state in self.states[:1] if self.field.has_default()),
            *(f"{ids[edge.source]} --> {ids[edge.target]} : {edge.label}" for edge in edges),
            *(f"{ids[state]} --> [*]" for state in self.states if state not in left),
        ]
        return "\n    ".join(["stateDiagram-v2", *lines]) + "\n"

    def _edges(self, step: Step) -> Iterator[_Edge]:
        for source in self.states:
            if step.leads_from(source):
                yield from _edges_from(step, source)

    def _descriptions(self, ids: dict[Any, str]) -> Iterator[str]:
        labels = {value: str(label) for value, label in self.field.flatchoices}
        for state, id in ids.items():
            if id != state:
                yield f'state "{_escape(_words(state))}" as {id}'
            if labels.get(state, "") not in ("", str(state)):
                yield f"{id} : {_escape(labels[state])}"


def _first_states(field: Any) -> list[Any]:
    """Give the initial state, and the choices in their order."""
    initial = [field.get_default()] if field.has_default() else []
    return [*initial, *(value for value, _ in field.flatchoices)]


def _named_in(step: Step) -> Iterator[Any]:
    """Give the states of a declaration; a set of sources has no order of its own."""
    declared = step.meta.transitions
    yield from sorted((state for state in declared if state not in ANYWHERE), key=str)
    for source in sorted(declared, key=str):
        yield from _states_of(declared[source].target)
        yield from _states_of(declared[source].on_error)


def _states_of(target: Any) -> list[Any]:
    """Give the states to which a declared target may lead, as far as it tells."""
    if hasattr(target, "get_state"):
        return list(target.allowed_states)
    return [] if target is None else [target]


def _edges_from(step: Step, source: Any) -> Iterator[_Edge]:
    found = step.meta.get_transition(source)
    targets = [source] if found.target is None else _states_of(found.target) or [NOBODY_KNOWS]
    guards = ", ".join(
        getattr(guard, "__name__", type(guard).__name__) for guard in found.conditions
    )
    label = f"{step.name} [{guards}]" if guards else step.name
    for target in targets:
        yield _Edge(source, plain(target), _escape(label))
    if found.on_error is not None:
        yield _Edge(source, plain(found.on_error), f"{step.name} (on error)")


def _ids(states: list[Any]) -> dict[Any, str]:
    """Give each state its name in the text: its own if it is a plain word, else a number."""
    free = (f"s{number}" for number in range(1, len(states) * 2 + 1) if f"s{number}" not in states)
    return {
        state: state if _is_plain_word(state) else next(free) for state in dict.fromkeys(states)
    }


def _is_plain_word(state: Any) -> bool:
    return (
        isinstance(state, str)
        and state.isidentifier()
        and state.isascii()
        and state.lower() not in RESERVED
    )


def _words(state: Any) -> str:
    return "(empty)" if state in (None, "") else str(state)


def _escape(text: str) -> str:
    """Write what Mermaid would take for its own signs as entities."""
    words = " ".join(text.split())
    return "".join(f"#{ord(sign)};" if sign in '"#%&:;<>' else sign for sign in words)
