"""What a person may decide about a record, and how it is carried out: only on what was seen."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib.admin.widgets import AdminTextareaWidget
from django.core import signing
from django.db import connections, router
from django.utils.translation import gettext_lazy as _

from ..conf import STORE, settings
from ..models import CallLog, IdempotencyRecord
from ..pessimistic import lock_row
from ..statistics.flushing import options
from ..statistics.instants import moment
from ..statistics.writing import worker
from ..stores import get_store
from ..stores.base import Answer, BaseStore, Call, Seen, State
from ..stores.database import DatabaseStore
from ..stores.reaching import reach
from .reasons import ReasonForm

SALT = "idempotency.admin.records"
OLDEST = 3_600
"""Seconds after which a page is too old to decide by."""
WAIT = 5
"""Seconds for which a decision waits for a call that holds the record."""


class ReleaseForm(ReasonForm):
    """What is asked before a key is freed."""

    def decided(self) -> tuple[State, Answer]:
        """Give what the record becomes."""
        return "released", Answer()


class LiveForm(ReleaseForm):
    """The same for a claim whose lease is not over."""

    sure = forms.BooleanField(
        label=_("Its work may still be running; what it completes will be refused")
    )
    field_order = ("sure", "reason")


class ResolveForm(ReleaseForm):
    """What somebody has found out about an outcome that nobody knew."""

    outcome = forms.ChoiceField(
        label=_("What came of it"),
        choices=(
            ("completed", _("It took effect: give every duplicate the answer below")),
            ("released", _("It took no effect: let the next call run")),
        ),
        widget=forms.RadioSelect,
    )
    status = forms.IntegerField(
        label=_("Status"), min_value=200, max_value=599, initial=200, required=False
    )
    body = forms.CharField(
        label=_("Body"),
        initial="{}",
        required=False,
        help_text=_("JSON, as the view would have answered."),
        widget=AdminTextareaWidget(attrs={"rows": 5, "spellcheck": "false"}),
    )
    field_order = ("outcome", "status", "body", "reason")

    def clean_body(self) -> str:
        body: str = self.cleaned_data["body"]
        if self.cleaned_data.get("outcome") == "completed" and not self._is_empty:
            try:
                json.loads(body, parse_constant=_refuse)
            except (ValueError, RecursionError) as error:
                raise forms.ValidationError(_("This is not JSON.")) from error
        return body

    def decided(self) -> tuple[State, Answer]:
        if self.cleaned_data["outcome"] == "released":
            return super().decided()
        if self._is_empty:
            return "completed", Answer(204, [], b"")
        body: str = self.cleaned_data["body"]
        headers = [["Content-Type", "application/json"]]
        return "completed", Answer(self.cleaned_data["status"] or 200, headers, body.encode())

    @property
    def _is_empty(self) -> bool:
        return self.cleaned_data.get("status") == 204  # It never has a body.


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON.")


@dataclass(frozen=True, slots=True)
class Decision:
    """One thing that can be decided about a record in some state."""

    name: str
    permission: str
    title: Any
    about: Any
    done: Any
    applies: Callable[[Seen], bool]
    form_for: Callable[[Seen], type[ReleaseForm]]


DECISIONS = (
    Decision(
        "release",
        "idempotency.release_record",
        _("Release the claim"),
        _("The key becomes free, and the next call with it runs."),
        _("The key is free."),
        lambda seen: seen.state == "in_progress",
        lambda seen: ReleaseForm if seen.is_abandoned else LiveForm,
    ),
    Decision(
        "resolve",
        "idempotency.resolve_record",
        _("Resolve the outcome"),
        _("Find out first what took place: with the payment provider, in the log, in the data."),
        _("The outcome is known from now on."),
        lambda seen: seen.state == "unknown",
        lambda seen: ResolveForm,
    ),
    Decision(
        "expire",
        "idempotency.expire_record",
        _("Expire now"),
        _("The outcome is forgotten: the next call with the key runs, and takes effect again."),
        _("The key is free."),
        lambda seen: seen.state == "completed",
        lambda seen: ReleaseForm,
    ),
)


def call_of(record: IdempotencyRecord) -> Call:
    """Give the call whose record this is."""
    return Call(record.scope, record.operation, record.key, record.fingerprint, record.outline)


class Keeper:
    """
    The table that has a record, and the stores in front of it that are to know what is decided.

    Every `DatabaseStore` on one database writes the same table, whatever its alias.
    """

    def __init__(self, call: Call, using: str, stores: list[BaseStore]) -> None:
        self.call, self.using = call, using
        retention = max(store.retention for store in stores)
        options = {**STORE, "RETENTION": retention, "OPTIONS": {"using": using}}
        self.table = DatabaseStore("", options)
        self.others = [store for store in stores if not isinstance(store, DatabaseStore)]

    def look(self) -> Seen | None:
        """Give the record as it is now."""
        return self.table.look(self.call)

    def look_again(self) -> Seen | None:
        """Give the record as it is, and as nobody renews it until the transaction ends."""
        rows = IdempotencyRecord._base_manager.using(self.using)
        try:
            reach(connections[self.using], lambda: lock_row(rows, pk=self.call.id, wait=WAIT))
        except IdempotencyRecord.DoesNotExist:
            return None
        return self.look()

    def decide(self, seen: Seen, state: State, answer: Answer) -> bool:
        """Write what was decided over the record that was *seen*; tell if it was still so."""
        return self.table.decide(self.call, seen, state, answer)

    def tell(self, seen: Seen, state: State, answer: Answer) -> None:
        """Let the other stores know, last in the transaction: one that cannot be told undoes it."""
        for store in self.others:
            store.decide(self.call, seen, state, answer)


def keeper_of(record: IdempotencyRecord) -> Keeper | None:
    """Give the keeper of *record*, or None if no store keeps records in its database any more."""
    using = router.db_for_write(IdempotencyRecord, instance=record)
    stores = [get_store(alias) for alias in settings.STORES]
    own = [store for store in stores if store.using == using]
    call = call_of(record)
    return Keeper(call, using, own) if own and call.id == record.pk else None


def mark_of(decision: Decision, record: IdempotencyRecord, seen: Seen) -> str:
    """Give what proves that *record* was shown as it was *seen*."""
    return signing.dumps([decision.name, str(record.pk), seen.state, seen.token], salt=SALT)


def is_as_seen(mark: str, decision: Decision, record: IdempotencyRecord, seen: Seen) -> bool:
    """Whether *record* is still as it was when *mark* was made."""
    try:
        marked = signing.loads(mark, salt=SALT, max_age=OLDEST)
    except signing.BadSignature:
        return False
    return bool(marked == [decision.name, str(record.pk), seen.state, seen.token])


def log_decision(record: IdempotencyRecord, by: str, note: str, at: float) -> None:
    """Note in the log of *record* who decided what, and what the record forgets by that."""
    if record.state == "completed" and record.completed_at is not None:
        took = (record.completed_at - record.created_at).total_seconds()
        _log(
            record, "executed", status=record.status, seconds=max(0.0, took), at=record.completed_at
        )
    _log(record, "decided", worker=worker(), by=by, note=note, at=moment(at))


def _log(record: IdempotencyRecord, outcome: str, **facts: Any) -> None:
    CallLog.objects.using(options()["USING"]).create(
        record_id=record.pk,
        scope=record.scope,
        operation=record.operation,
        outcome=outcome,
        **facts,
    )
