"""The page "Locks and duplicates": what was stopped, what is held, and what is stuck."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template.response import TemplateResponse
from django.urls import NoReverseMatch, path, reverse
from django.utils.translation import gettext as _

from ..locks.aliases import get_backend
from ..models import Statistic
from ..statistics.blocking import row_locks
from ..statistics.figures import WINDOWS, Summary
from ..statistics.holdings import held_locks
from ..statistics.jsons import Encoder, as_json
from ..statistics.listening import is_on
from ..statistics.summary import summarize
from . import words
from .chart import chart_of
from .eviction import EvictionMixin, may_evict, seen_lock
from .pages import ReadOnlyMixin, breadcrumbs_are_a_list

if TYPE_CHECKING:
    Base = admin.ModelAdmin[Statistic]
else:  # Django's own class takes no type arguments.
    Base = admin.ModelAdmin

DEFAULT = "24h"
SHOWN = ("executed", "in_progress", "reused", "released", "refused", "lost", "store_error")
"""Outcomes that have a number of their own, besides those that sum up the duplicates."""


@dataclass(frozen=True, slots=True)
class Number:
    """One of the numbers at the top: *kind* says how it is shown."""

    name: str
    value: str
    about: str
    kind: str = ""


@admin.register(Statistic)
class OverviewAdmin(ReadOnlyMixin, EvictionMixin, Base):
    """Shows one page in place of a list: the rows themselves say nothing to a person."""

    def get_urls(self) -> list[Any]:
        wrap = self.admin_site.admin_view
        return [
            path("", wrap(self.changelist_view), name="idempotency_statistic_changelist"),
            path("release/", wrap(self.evict_view), name="idempotency_statistic_release"),
        ]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        window = WINDOWS.get(request.GET.get("window", ""), WINDOWS[DEFAULT])
        summary, held, blocked = summarize(window), held_locks(), row_locks()
        if request.GET.get("format") == "json":
            return JsonResponse(as_json(summary, held, blocked), encoder=Encoder)
        is_part = request.GET.get("format") == "part"
        context = {
            **({} if is_part else self._frame(request)),
            "summary": summary,
            "numbers": list(_numbers(summary)),
            "chart": chart_of(summary.bars, days=window.length > 86_400),
            "windows": [(name, words.WINDOWS[name], name == window.name) for name in WINDOWS],
            "window_words": words.WINDOWS[window.name],
            "held": [
                (one, [(lock, _release_url(request, self, one.alias, lock)) for lock in one.locks])
                for one in held
            ],
            "blocked": blocked,
            "stuck": [(one, self._record_url(one)) for one in summary.stuck],
            "keys": [(key, self._record_url(key)) for key in summary.keys],
            "is_on": is_on(),
        }
        template = "overview_part" if is_part else "overview"
        return TemplateResponse(request, f"admin/idempotency/{template}.html", context)

    def _frame(self, request: HttpRequest) -> dict[str, Any]:
        return {
            **self.admin_site.each_context(request),
            "title": _("Locks and duplicates"),
            "opts": self.opts,
            "breadcrumbs_are_a_list": breadcrumbs_are_a_list(),
        }

    def _record_url(self, one: Any) -> str:
        """Give the page of a record, where the admin has one."""
        name = "admin:idempotency_idempotencyrecord_change"
        try:
            return reverse(name, args=[one.record_id], current_app=self.admin_site.name)
        except NoReverseMatch:
            return ""


def _release_url(request: HttpRequest, of: OverviewAdmin, alias: str, lock: Any) -> str:
    if not (may_evict(request) and get_backend(alias).supports_eviction):
        return ""
    name = "admin:idempotency_statistic_release"
    address = reverse(name, current_app=of.admin_site.name)
    return f"{address}?lock={seen_lock(alias, lock)}"


def _numbers(summary: Summary) -> Iterator[Number]:
    calls = sum(summary.calls.values())
    stopped = words.count(summary.duplicates)
    yield Number(_("Duplicates stopped"), stopped, _("effects that did not happen twice"), "first")
    yield Number(_("Calls"), words.count(calls), _("with a key, of all outcomes"))
    saved = words.duration(summary.saved)
    yield Number(_("Work saved"), saved, _("what the replays would have taken to run again"))
    for name in SHOWN:
        number = summary.calls.get(name, 0)
        if number:
            kind = "warning" if name in ("lost", "store_error") else ""
            yield Number(words.outcome(name), words.count(number), str(words.MEANINGS[name]), kind)
    if summary.taken_over:
        meaning = str(words.MEANINGS["taken_over"])
        yield Number(words.outcome("taken_over"), words.count(summary.taken_over), meaning)
