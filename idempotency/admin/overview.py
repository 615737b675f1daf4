"""The page "Locks and duplicates": what was stopped, what is held, and what is stuck."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.translation import gettext_lazy as _

from .. import words
from ..models import IdempotencyRecord, Statistic
from ..statistics.blocking import row_locks
from ..statistics.figures import WINDOWS, HeldLocks, RowLocks, Summary, Window
from ..statistics.holdings import held_locks
from ..statistics.jsons import Encoder, as_json
from ..statistics.listening import is_on
from ..statistics.stuck import keys_of
from ..statistics.summary import summarize
from . import counters, tables
from .chart import chart_of
from .eviction import EvictionMixin
from .pages import ReadOnlyMixin, breadcrumbs_are_a_list
from .standing import ReleaseUrl, blocked_table, held_table

if TYPE_CHECKING:
    Base = admin.ModelAdmin[Statistic]
else:  # Django's own class takes no type arguments.
    Base = admin.ModelAdmin

DEFAULT = "24h"
EVERY = 10
"""Seconds after which a page that is looked at asks what holds now."""

SELDOM = 60
"""Seconds after which it asks for sums as well that change little in ten seconds."""


@admin.register(Statistic)
class OverviewAdmin(EvictionMixin, ReadOnlyMixin, Base):
    """Shows one page in place of a list: the rows themselves say nothing to a person."""

    def get_urls(self) -> list[Any]:
        wrap = self.admin_site.admin_view
        return [
            path("", wrap(self.changelist_view), name="idempotency_statistic_changelist"),
            path("release/", wrap(self.release_view), name="idempotency_statistic_release"),
        ]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Show the page; `?format=part` gives what it renews, and `?format=now` the least of it."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        window = WINDOWS.get(request.GET.get("window", ""), WINDOWS[DEFAULT])
        wanted = request.GET.get("format")
        release_url = self.release_urls(request)
        if wanted == "now":
            return self._part(request, now_context(held_locks(), row_locks(), release_url))
        summary, held, blocked = summarize(window), held_locks(), row_locks()
        if wanted == "json":
            return JsonResponse(as_json(summary, held, blocked), encoder=Encoder)
        context = now_context(held, blocked, release_url)
        context |= summary_context(summary, self._record_cells(request, summary))
        if wanted == "part":
            return self._part(request, context)
        context |= self._frame(request, window) | (extra_context or {})
        return TemplateResponse(request, "admin/idempotency/overview.html", context)

    def _part(self, request: HttpRequest, context: dict[str, Any]) -> HttpResponse:
        return TemplateResponse(request, "admin/idempotency/overview_parts.html", context)

    def _frame(self, request: HttpRequest, window: Window) -> dict[str, Any]:
        return {
            **self.admin_site.each_context(request),
            "title": _("Locks and duplicates"),
            "opts": self.opts,
            "breadcrumbs_are_a_list": breadcrumbs_are_a_list(),
            "windows": [(name, words.WINDOWS[name], name == window.name) for name in WINDOWS],
            "window": window,
            "every": EVERY,
            "seldom": EVERY if window.step <= SELDOM else SELDOM,
        }

    def _record_cells(self, request: HttpRequest, summary: Summary) -> tables.RecordCell:
        """Give what names a record: by its key, if this person may see the page it links to."""
        site = self.admin_site
        may_view = site.is_registered(IdempotencyRecord) and (
            site.get_model_admin(IdempotencyRecord).has_view_permission(request)
        )
        named = {one.record_id for one in summary.stuck} | {one.record_id for one in summary.keys}
        keys = keys_of(named) if may_view else {}

        def record_cell(record_id: UUID) -> tables.Cell:
            if record_id not in keys:
                return tables.code(record_id.hex[:12])  # As the log names it.
            name = "admin:idempotency_idempotencyrecord_change"
            url = reverse(name, args=[record_id], current_app=site.name)
            return tables.code(words.shortened(keys[record_id]), url)

        return record_cell


def summary_context(summary: Summary, record_cell: tables.RecordCell) -> dict[str, Any]:
    """Give what the templates show of *summary*."""
    chart = chart_of(summary)
    return {
        "summary": summary,
        "is_on": is_on(),
        "is_empty": not (summary.calls or summary.taken_over),
        "leading": counters.leading(summary),
        "others": list(counters.others(summary)),
        "chart": chart,
        "bars": tables.bars(summary, [one.kind for one in chart.series]),
        "stuck": tables.stuck_claims(summary, record_cell),
        "callers": [tables.callers(summary), tables.keys(summary, record_cell)],
        "operations": tables.operations(summary),
        "guarded": [tables.locks(summary), tables.rows(summary)],
    }


def now_context(
    held: Sequence[HeldLocks], blocked: Sequence[RowLocks], release_url: ReleaseUrl
) -> dict[str, Any]:
    """Give what the templates show of the locks that are held."""
    return {
        "held": [held_table(one, release_url) for one in held],
        "blocked": [blocked_table(one) for one in blocked],
    }
