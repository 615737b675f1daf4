"""A confirmed transition: what the page showed, and the one run of it."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from asgiref.sync import async_to_sync
from django import forms
from django.contrib.admin.utils import quote
from django.contrib.admin.widgets import AdminTextareaWidget
from django.core import signing
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import transaction
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from ..exceptions import IdempotencyError, StaleObject
from ..keys import MAX_LENGTH, uuid7
from ..pessimistic import lock_row
from ..protocol import run_once
from ..transitions.states import state_of, text_of
from ..transitions.steps import Step
from .offers import Offer, declared_from, state_in_words, step_of, version_of

SALT = "idempotency.admin"
PREFIX = "given"
WAIT = 5
"""Seconds for which a second click waits for the first."""


class NoteForm(forms.Form):
    """What the log keeps beside who did it."""

    note = forms.CharField(
        label=_("Note"), required=False, widget=AdminTextareaWidget(attrs={"rows": 3})
    )


class Invalid(Exception):
    """The form of the confirm page has errors."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a confirm page was shown for, with the key of its one run."""

    state: str
    version: int | None
    key: str

    @classmethod
    def now(cls, step: Step) -> Seen:
        state = text_of(state_of(step.instance, step.field))
        return cls(state, version_of(step.instance), str(uuid7()))

    @classmethod
    def read(cls, token: Any, step: Step) -> Seen | None:
        """Give what was signed for this transition of this object; None if it was not."""
        try:
            *of, state, version, key = signing.loads(str(token), salt=SALT)
        except (signing.BadSignature, ValueError):
            return None
        return cls(state, version, key) if of == _parts(step) else None

    def token(self, step: Step) -> str:
        return signing.dumps([*_parts(step), self.state, self.version, self.key], salt=SALT)


def _parts(step: Step) -> list[str]:
    concrete = step.model._meta.concrete_model or step.model
    return [concrete._meta.label_lower, step.name, str(step.instance.pk)]


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a confirmed transition: "done", "repeated", "refused" or "failed"."""

    came_to: str
    words: str = ""


class Confirmed:
    """The transition that a person has confirmed, with what they have entered."""

    def __init__(self, admin: Any, request: HttpRequest, step: Step, seen: Seen) -> None:
        self.admin, self.request, self.step, self.seen = admin, request, step, seen
        self.forms = forms_of(step, seen, request)
        self.failure: Exception | None = None

    def run(self) -> Report:
        """
        Run the transition once for the key of its page.

        Raises: `Invalid`, `PermissionDenied`, `StaleObject`, `TransitionConflict`, `DoesNotExist`
        and other errors of ours if nothing was done; what the body raises.
        """
        label, name, pk = _parts(self.step)
        outcome = run_once(
            self._work,
            scope=f"user:{self.request.user.pk}",
            operation=f"admin transition {label}.{name} {quote(pk)}"[:MAX_LENGTH],
            key=self.seen.key,
            wait=WAIT,
        )
        if self.failure is not None:
            raise self.failure
        report = Report(**outcome.result)
        if outcome.replayed and report.came_to == "done":
            return Report("repeated", report.words)
        return report

    def _work(self) -> dict[str, str]:
        """Move the row if it still is as it was seen; otherwise only say what it is."""
        with transaction.atomic(using=self.step.using):
            rows = self.step.model._base_manager.using(self.step.using)
            step = step_of(lock_row(rows, pk=self.step.instance.pk), self.step.name)
            declared = declared_from(step, self.seen.state)
            if declared is None or not declared.has_perm(step.instance, self.request.user):
                raise PermissionDenied
            return self._take(Offer(step, declared), self._arguments(step))

    def _arguments(self, step: Step) -> dict[str, Any]:
        """
        Give what was entered, if it was entered for the row as it is.

        In a state from which the transition does not lead nothing runs, so nothing is needed.
        """
        state = state_of(step.instance, step.field)
        if text_of(state) != self.seen.state and not step.leads_from(state):
            return {}
        seen = (self.seen.state, self.seen.version)
        if seen != (text_of(state), version_of(step.instance)):
            raise StaleObject(model=step.model, pk=step.instance.pk)
        # Each of them, so that the page shows all that is wrong.
        if False in [form.is_valid() for form in self.forms]:
            raise Invalid
        return {name: value for form in self.forms for name, value in form.cleaned_data.items()}

    def _take(self, offer: Offer, arguments: dict[str, Any]) -> dict[str, str]:
        step, source = offer.step, offer.source
        method = step.method
        call = async_to_sync(method) if inspect.iscoroutinefunction(method) else method
        try:
            outcome = call(step.instance, by=self.request.user, **arguments)
        except IdempotencyError:
            raise
        except self.admin.transition_errors as error:
            return self._ended(offer, source, "refused", _words_of(error), error)
        except Exception as error:
            # What a body raises is raised on, after the state for failures is committed.
            if not _has_failed(offer):
                raise
            self.failure = error
            return self._ended(offer, source, "failed", "", error)
        if outcome.repeated:
            return {"came_to": "repeated", "words": offer.source}
        return self._ended(offer, source, "done", offer.source)

    def _ended(
        self, offer: Offer, source: str, came_to: str, words: str, error: Any = None
    ) -> dict[str, str]:
        if error is None or _has_failed(offer):
            target = state_in_words(offer.step.field, offer.state)
            message = f"{offer.label}: {source} → {target}"
            self.admin.log_change(self.request, offer.step.instance, message)
        return {"came_to": came_to, "words": words}


def forms_of(step: Step, seen: Seen, request: HttpRequest) -> list[forms.Form]:
    """Give the forms of the confirm page, bound if they were sent; the last one is the note's."""
    sent: Any = [request.POST, request.FILES] if request.method == "POST" else []
    declared = declared_from(step, seen.state)
    asked: Any = Offer(step, declared).form if declared is not None else None
    given = [asked(*sent, prefix=PREFIX)] if asked is not None else []
    if not any("note" in form.fields for form in given):
        given.append(NoteForm(*sent))
    for form in given:
        form.required_css_class = "required"
    return given


def _has_failed(offer: Offer) -> bool:
    """Whether the state that is declared for failures was written."""
    failed = offer.declared.on_error
    return failed is not None and text_of(offer.state) == text_of(failed)


def _words_of(error: Exception) -> str:
    return " ".join(error.messages) if isinstance(error, ValidationError) else str(error)
