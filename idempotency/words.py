"""Outcomes, counts and durations in the words of the reader's language; it needs no admin."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.template.defaultfilters import filesizeformat
from django.utils.formats import number_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext, pgettext_lazy

NOTHING = "\u2013"

OUTCOMES: dict[str, Any] = {
    "replayed": pgettext_lazy("a call", "Replayed"),
    "in_progress": pgettext_lazy("a call", "Still in progress"),
    "reused": pgettext_lazy("a key", "Reused"),
    "unavailable": pgettext_lazy("a stored answer", "Not kept"),
    "unknown": pgettext_lazy("an outcome", "Unknown"),
    "executed": pgettext_lazy("a call", "Executed"),
    "released": pgettext_lazy("a key", "Without lasting effect"),
    "blocked": pgettext_lazy("a call", "Failed, effect unknown"),
    "lost": pgettext_lazy("a claim", "Lost"),
    "refused": pgettext_lazy("a request", "Refused"),
    "store_error": gettext_lazy("Store errors"),
    "unprotected": pgettext_lazy("a call", "Unprotected"),
    "taken_over": pgettext_lazy("a call", "Taken over"),
    "decided": pgettext_lazy("a call", "Decided"),
}

MEANINGS: dict[str, Any] = {
    "replayed": gettext_lazy("got the first answer again"),
    "in_progress": gettext_lazy("came while the first call was running"),
    "reused": gettext_lazy("the key of an earlier call, with another input"),
    "unavailable": gettext_lazy("ran before, but its answer was not kept"),
    "unknown": gettext_lazy("nobody knows what came of the first call"),
    "executed": gettext_lazy("ran, and the outcome is kept"),
    "released": gettext_lazy("failed cleanly; the key is free again"),
    "blocked": gettext_lazy("a person has to find out what came of it"),
    "lost": gettext_lazy("ran too long; its effects were refused"),
    "refused": gettext_lazy("had no key, a malformed one, or no readable body"),
    "store_error": gettext_lazy("the store of the keys could not be reached"),
    "unprotected": gettext_lazy("ran although the store could not be reached"),
    "taken_over": gettext_lazy("went on in place of a call that had died"),
    "decided": gettext_lazy("a person decided about the record"),
}

STATES: dict[str, Any] = {
    "in_progress": pgettext_lazy("a record", "In progress"),
    "completed": pgettext_lazy("a record", "Completed"),
    "released": pgettext_lazy("a record", "Released"),
    "unknown": pgettext_lazy("a record", "Unknown"),
    "stuck": pgettext_lazy("a record", "Stuck"),
}

ABOUT: dict[str, Any] = {
    "in_progress": gettext_lazy("Its work is running, or its worker died."),
    "completed": gettext_lazy("The outcome is kept, and replayed to every duplicate."),
    "released": gettext_lazy("The key is free, and the next call with it runs."),
    "unknown": gettext_lazy("Nobody knows whether it took effect, so that nothing runs."),
}

WINDOWS: dict[str, Any] = {
    "1h": gettext_lazy("1 hour"),
    "24h": gettext_lazy("24 hours"),
    "7d": gettext_lazy("7 days"),
    "30d": gettext_lazy("30 days"),
}

ALARMS = ("unknown", "blocked", "store_error", "unprotected")
"""The outcomes after which a person should look."""


def outcome(name: str) -> str:
    """Give an outcome in words; one that is not known here as it is."""
    return str(OUTCOMES.get(name, name))


def meaning(name: str) -> str:
    """Give what an outcome means."""
    return str(MEANINGS.get(name, ""))


def state(name: str) -> str:
    """Give the state of a record in words."""
    return str(STATES.get(name, name))


def count(value: int) -> str:
    """Give a count as the reader's language groups it."""
    return number_format(value, force_grouping=True)


def shortened(key: str) -> str:
    """Give a key so that it fits a column: its beginning, and its end by which keys differ."""
    return key if len(key) <= 22 else f"{key[:10]}…{key[-8:]}"


def size(octets: int | None) -> str:
    """Give the size of a body; one that was not kept has none."""
    return _("not kept") if octets is None else filesizeformat(octets)


def times(duplicates: int) -> str:
    words = ngettext("%(count)s duplicate", "%(count)s duplicates", duplicates)
    return words % {"count": count(duplicates)}


def duration(seconds: float | timedelta | None) -> str:
    """Give a length of time in one unit or two, such as "320 ms", "4.5 s" and "3 h 20 min"."""
    if seconds is None:
        return NOTHING
    seconds = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
    if seconds < 9.95:
        return _short(max(0.0, seconds))
    whole = round(seconds)
    if whole < 60:
        return _("%(seconds)s s") % {"seconds": whole}
    if whole < 3_600:
        parts = (_("%(first)s min"), whole // 60), (_("%(first)s s"), whole % 60)
    elif whole < 86_400:
        parts = (_("%(first)s h"), whole // 3_600), (_("%(first)s min"), whole % 3_600 // 60)
    else:
        parts = (_("%(first)s d"), whole // 86_400), (_("%(first)s h"), whole % 86_400 // 3_600)
    return " ".join(text % {"first": count(value)} for text, value in parts if value)


def _short(seconds: float) -> str:
    """Give less than ten seconds with two digits or so."""
    if seconds >= 0.9995:
        return _("%(seconds)s s") % {"seconds": decimal(seconds)}
    milliseconds = seconds * 1_000
    shown = decimal(milliseconds) if 0 < milliseconds < 9.95 else count(round(milliseconds))
    return _("%(milliseconds)s ms") % {"milliseconds": shown}


def decimal(value: float) -> str:
    """Give a number with one digit after the point."""
    return number_format(round(value, 1), 1)  # It cuts what it does not show.
