"""The words in which the admin says what came of a transition."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.utils.translation import gettext_lazy as _

from ..transitions.steps import Step
from .offers import label_of

REPORTS = {
    "done": (_("“%(label)s” was done: %(object)s is now “%(words)s”."), messages.SUCCESS),
    "repeated": (_("“%(label)s” was done already, and was not done again."), messages.INFO),
    "refused": (_("“%(label)s” was not done. %(words)s"), messages.ERROR),
    "failed": (_("“%(label)s” had failed already, and was not tried again."), messages.ERROR),
}
CONFLICT = _("“%(label)s” was not done, as %(object)s is “%(words)s” by now.")
GUARDED = _("“%(label)s” was not done, as one of its conditions is not met.")
MOVED = _("“%(label)s” was not done, as %(object)s has changed since you looked. Look again:")
BUSY = _("“%(label)s” is still being done, as you have sent it before. Reload in a moment.")
UNSURE = _("“%(label)s” could not be done now. Look at what is stored before you try again.")
UNREADABLE = _("“%(label)s” was not done, as the page that confirmed it cannot be read. Try again:")


def said(message: Any, step: Step, words: str = "") -> str:
    label = label_of(step.model, step.name)
    return str(message % {"label": label, "object": step.instance, "words": words})
