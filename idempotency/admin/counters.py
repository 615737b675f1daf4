"""The big numbers of the page "Locks and duplicates"."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from django.utils.translation import gettext as _

from .. import words
from ..statistics.figures import Summary

ALWAYS = ("in_progress", "reused", "refused", "lost", "store_error")
"""The outcomes that are shown even if there is none of them, as good news."""


@dataclass(frozen=True, slots=True)
class Counter:
    """One number, with what it tells; *alarms* if a person should look."""

    label: str
    value: str
    about: str
    alarms: bool = False


def leading(summary: Summary) -> list[Counter]:
    """Give the four numbers that say whether it is worth it."""
    calls = sum(summary.calls.values())
    return [
        Counter(_("Duplicates stopped"), words.count(summary.duplicates), _stopped(summary, calls)),
        Counter(_("Calls"), words.count(calls), _("with a key, whatever came of them")),
        Counter(
            _("Time saved"),
            words.duration(summary.saved),
            _("what the replays would have taken to run again"),
        ),
        Counter(
            words.outcome("taken_over"),
            words.count(summary.taken_over),
            str(words.MEANINGS["taken_over"]),
        ),
    ]


def _stopped(summary: Summary, calls: int) -> str:
    about = _("effects that did not take place twice")
    if not summary.duplicates or not calls:
        return about
    share = words.decimal(100 * summary.duplicates / calls)
    return _("%(about)s: %(share)s %% of the calls") % {"about": about, "share": share}


def others(summary: Summary) -> Iterator[Counter]:
    """Give what else calls came to: the usual ones, and each other of which there is any."""
    for name in words.OUTCOMES:
        number = summary.calls.get(name, 0)
        if name != "taken_over" and (number or name in ALWAYS):
            alarms = bool(number) and name in words.ALARMS
            about = str(words.MEANINGS[name])
            yield Counter(words.outcome(name), words.count(number), about, alarms)
