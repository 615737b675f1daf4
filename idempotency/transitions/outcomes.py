"""What a call of a transition comes to: its outcome, or a conflict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db import models
from django_fsm import TransitionNotAllowed

from ..exceptions import TransitionConflict
from .states import plain
from .steps import Step


@dataclass(frozen=True, slots=True)
class TransitionOutcome:
    """
    What came of a call of a transition.

    `repeated` says that the row was in its target state already, so that nothing ran; `result` is
    what the body returned.
    """

    result: Any
    repeated: bool
    source: Any
    target: Any


class NotAllowed(TransitionConflict, TransitionNotAllowed):
    """The row is in a state from which this transition does not lead."""

    def __init__(self, message: str = "", **facts: Any) -> None:
        of_row = {name: facts.pop(name, None) for name in ("object", "method")}
        super().__init__(message, **facts)
        # Set afterwards: the last of the bases sets them to None.
        self.object, self.method = of_row["object"], of_row["method"]

    @classmethod
    def of(cls, step: Step, message: str, actual: Any) -> NotAllowed:
        method = getattr(step.instance, step.name, step.method)
        return cls(
            message, expected=step.sources, actual=actual, object=step.instance, method=method
        )


def other_state(step: Step, actual: Any) -> NotAllowed:
    sources = ", ".join(repr(plain(state)) for state in step.sources)
    unknown = " (which is none of its states)" if is_unknown(step.field, actual) else ""
    return NotAllowed.of(
        step,
        f"{_name(step.instance)} is in state {plain(actual)!r}{unknown};"
        f" {step.name}() leads only from {sources}.",
        actual,
    )


def guard_failed(step: Step, source: Any, guard: Any) -> NotAllowed:
    return NotAllowed.of(
        step,
        f"{_name(step.instance)} may not {step.name}() from {plain(source)!r}:"
        f" its guard {getattr(guard, '__name__', repr(guard))} forbids it.",
        source,
    )


def moved_on(step: Step, target: Any, actual: Any) -> NotAllowed:
    return NotAllowed.of(
        step,
        f"{_name(step.instance)} was moved from {plain(target)!r} to {plain(actual)!r} while the"
        f" body of {step.name}() ran.",
        actual,
    )


def is_unknown(field: Any, state: Any) -> bool:
    return bool(field.choices) and state not in {value for value, _ in field.flatchoices}


def _name(instance: models.Model) -> str:
    return f"{instance._meta.label} {instance.pk}"
