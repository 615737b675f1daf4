"""What became of one key, from its first call to the last that is known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.utils.translation import gettext as _

from .. import words
from ..models import CallLog, IdempotencyRecord, TransitionLog
from ..statistics.figures import DUPLICATES
from ..statistics.flushing import options

SHOWN = 200
"""Calls of one record, and transitions, that its page shows."""


@dataclass(frozen=True, slots=True)
class Moment:
    """One line of the timeline; *kind* says how it is marked."""

    at: datetime
    what: str
    about: str
    kind: str
    after: float | None = None  # Seconds since the first call.
    status: int | None = None
    seconds: float | None = None
    request_id: str = ""
    worker: str = ""
    differences: list[str] | None = None
    by: str = ""
    note: str = ""


def calls_of(record: IdempotencyRecord) -> list[CallLog]:
    """Give what is logged of *record*, the newest first."""
    logged = CallLog.objects.using(options()["USING"]).filter(record_id=record.pk)
    return list(logged.order_by("-at", "-pk")[:SHOWN])


def timeline_of(record: IdempotencyRecord, calls: list[CallLog]) -> list[Moment]:
    """Give what is known of *record*, the oldest first."""
    moments = [*_own(record), *map(_logged, calls)]
    return [
        replace(moment, after=_seconds(record.created_at, moment.at))
        for moment in sorted(moments, key=lambda moment: moment.at)
    ]


def transitions_of(record: IdempotencyRecord) -> list[TransitionLog]:
    """Give the transitions that were made under the claims of *record*."""
    logged = TransitionLog.objects.using(record._state.db).filter(record_id=record.pk)
    return list(logged.order_by("pk")[:SHOWN])


def _own(record: IdempotencyRecord) -> Iterator[Moment]:
    yield Moment(record.created_at, _("First call"), _("claimed the key, and ran"), "first")
    if record.completed_at is not None:
        yield Moment(
            record.completed_at,
            words.state(record.state),
            str(words.ABOUT.get(record.state, "")),
            "end",
            status=record.status,
            # What was decided by a person took no such time.
            seconds=(
                _seconds(record.created_at, record.completed_at)
                if record.state == "completed"
                else None
            ),
        )


def _seconds(first: datetime, last: datetime) -> float | None:
    """Give the seconds between; None if none, or clocks that differ, went by."""
    return max(0.0, (last - first).total_seconds()) or None


def _logged(call: CallLog) -> Moment:
    return Moment(
        call.at,
        words.outcome(call.outcome),
        words.meaning(call.outcome),
        "duplicate" if call.outcome in DUPLICATES else call.outcome,
        status=call.status,
        seconds=call.seconds or None,
        request_id=call.request_id,
        worker=call.worker,
        differences=_paths(call.differences),
        by=call.by,
        note=call.note,
    )


def _paths(differences: Any) -> list[str] | None:
    return None if differences is None else [path or "/" for path in differences]
