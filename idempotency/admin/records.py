"""The records: found among millions, looked into, and decided about by those who may."""

from __future__ import annotations

import contextlib
import uuid
from functools import partial
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import Count, Q, QuerySet
from django.db.models.functions import Length
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import path
from django.utils.translation import gettext_lazy

from .. import words
from ..keys import record_id
from ..models import CallLog, IdempotencyRecord
from ..statistics.figures import DUPLICATES
from ..statistics.flushing import options
from ..statistics.stuck import NEWEST, record_databases
from ..stores.base import Seen
from .answers import shown
from .deciding import DecidingMixin
from .decisions import DECISIONS, Decision
from .filters import DatabaseFilter, OperationFilter, StateFilter, chosen_database
from .made import made_by
from .pages import ReadOnlyMixin
from .paging import MOST, CappedPaginator
from .timeline import calls_of, timeline_of, transitions_of

if TYPE_CHECKING:
    Base = admin.ModelAdmin[IdempotencyRecord]
else:  # Django's own class takes no type arguments.
    Base = admin.ModelAdmin


LONGEST_TERM = 10
"""Words of a search by scope, operation and key: each may have spaces."""


class RecordList(ChangeList):
    """A page of records, with how many duplicates each had: one more statement for all of them."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        records = list(self.result_list)
        calls = CallLog.objects.using(options()["USING"]).order_by()
        repeated = calls.filter(record_id__in=[row.pk for row in records], outcome__in=DUPLICATES)
        counts = dict(repeated.values_list("record_id").annotate(Count("pk")))
        for record in records:
            record.duplicates = counts.get(record.pk, 0)
        self.result_list = records


@admin.register(IdempotencyRecord)
class RecordAdmin(ReadOnlyMixin, DecidingMixin, Base):
    """Records can be read and, one at a time, decided about; nothing here writes a column."""

    list_display = (
        "shown_key",
        "shown_state",
        "duplicates",
        "age",
        "lease",
        "answer",
        "operation",
        "scope",
    )
    list_filter = (DatabaseFilter, StateFilter, OperationFilter)
    ordering = ("-purge_after",)
    sortable_by = ()
    search_fields = ("key",)
    search_help_text = gettext_lazy(
        "A whole key or record ID; or scope, operation and key, with spaces between."
    )
    paginator = CappedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    list_per_page = 50
    change_list_template = "admin/idempotency/record_list.html"
    change_form_template = "admin/idempotency/record.html"
    actions = None

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return RecordList

    def get_queryset(self, request: HttpRequest) -> QuerySet[IdempotencyRecord]:
        records: QuerySet[IdempotencyRecord] = super().get_queryset(request)
        records = records.using(chosen_database(request))
        if request.resolver_match is None or request.resolver_match.kwargs.get("object_id"):
            return records
        light = records.defer("body", "headers", "outline", "fingerprint")
        return light.annotate(size=Length("body"))

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> IdempotencyRecord | None:
        """Give a record, from whichever database has it."""
        try:
            pk = uuid.UUID(object_id)
        except ValueError:
            return None
        databases = record_databases() or [chosen_database(request)]
        found = (IdempotencyRecord.objects.using(using).filter(pk=pk) for using in databases)
        return next((record for records in found for record in records), None)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        found = Q(key=term) | Q(pk__in=_records_named(term))
        with contextlib.suppress(ValueError):
            found |= Q(pk=uuid.UUID(term))
        return queryset.filter(found), False

    @admin.display(description=gettext_lazy("key"))
    def shown_key(self, record: Any) -> str:
        return words.shortened(record.key)

    @admin.display(description=gettext_lazy("state"))
    def shown_state(self, record: Any) -> str:
        return words.state(record.state)

    @admin.display(description=gettext_lazy("answer"), empty_value="-")
    def answer(self, record: Any) -> str | None:
        if record.status is None:
            return None
        return f"{record.status}, {words.size(record.size)}"

    @admin.display(description=gettext_lazy("duplicates"))
    def duplicates(self, record: Any) -> str:
        return words.count(record.duplicates)

    @admin.display(description=gettext_lazy("age"))
    def age(self, record: Any) -> str:
        return words.duration(self.age_of(record.created_at))

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        response = super().changelist_view(request, extra_context)
        found = getattr(response, "context_data", None) or {}
        if "cl" in found:
            filters = found["cl"].filter_specs
            found["is_bounded"] = any(getattr(one, "is_bounded", False) for one in filters)
            found["newest"], found["most"] = words.count(NEWEST), words.count(MOST)
            found["is_capped"] = found["cl"].paginator.is_capped
        return response

    def get_urls(self) -> list[Any]:
        wrap = self.admin_site.admin_view
        decisions = [
            path(
                f"<path:object_id>/{each.name}/",
                wrap(partial(self.decide_view, decision=each)),
                name=f"idempotency_idempotencyrecord_{each.name}",
            )
            for each in DECISIONS
        ]
        return [*decisions, *super().get_urls()]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        record = self._record(request, object_id)
        if record is None:
            return self._gone(request, object_id)
        calls, transitions = calls_of(record), transitions_of(record)
        may_read = request.user.has_perm("idempotency.view_answer")
        context = {
            **self._frame(request, record, str(record.key)),
            "timeline": timeline_of(record, calls),
            "duplicates": sum(call.outcome in DUPLICATES for call in calls),
            "transitions": transitions,
            "made": made_by(transitions, self.admin_site, request),
            "answer": shown(record) if may_read else None,
            "state": words.state(record.state),
            "about": words.ABOUT.get(record.state, ""),
            "lease": self.lease(record),
            "decisions": [
                (each, self._url(each.name, record)) for each in self._decisions(request, record)
            ],
        }
        return TemplateResponse(request, self.change_form_template, context)

    def _decisions(self, request: HttpRequest, record: IdempotencyRecord) -> list[Decision]:
        seen = Seen(record.state, record.token, record.attempts, record.fingerprint)  # type: ignore[arg-type]
        return [
            each
            for each in DECISIONS
            if each.applies(seen) and request.user.has_perm(each.permission)
        ]


def _records_named(term: str) -> set[uuid.UUID]:
    """Give the IDs of the records that *term* may name by scope, operation and key."""
    words_of_term = term.split(" ")[:LONGEST_TERM]
    places = range(1, len(words_of_term))
    return {
        record_id(*(" ".join(words_of_term[a:b]) for a, b in pairwise((0, *ends, None))))
        for ends in combinations(places, 2)
    }
