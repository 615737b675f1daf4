"""Filters over millions of records, of which only some columns have an index."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from functools import lru_cache
from typing import Any

from django.contrib import admin
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from .. import words
from ..models import Statistic
from ..statistics.flushing import options
from ..statistics.stuck import abandoned, newest, record_databases, unknown
from ..stores.dialects import clock
from ..uptime import uptime

OPERATIONS = 50
"""Operations that can be chosen: those that were called within a day."""

REMEMBERED = 60
"""Seconds for which a process remembers them: it takes a while to find them among many rows."""

STATES = ("unknown", "stuck", "in_progress", "completed", "released")


class DatabaseFilter(admin.SimpleListFilter):
    """By database, where stores keep records in several; there are no records of all of them."""

    title = _("database")
    parameter_name = "database"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        found = record_databases()
        return [(using, using) for using in found] if len(found) > 1 else []

    def choices(self, changelist: Any) -> Iterator[Any]:
        for using, title in self.lookup_choices:
            yield {
                "selected": using == changelist.queryset.db,
                "query_string": changelist.get_query_string({self.parameter_name: using}),
                "display": title,
            }

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset  # It was asked for before the filters began.


def chosen_database(request: HttpRequest) -> str:
    """Give the alias of the database whose records *request* asks for."""
    found = record_databases()
    given = request.GET.get(DatabaseFilter.parameter_name)
    if given in found:
        return given
    return found[0] if found and DEFAULT_DB_ALIAS not in found else DEFAULT_DB_ALIAS


class StateFilter(admin.SimpleListFilter):
    """By state: an unknown outcome is found by an index, the others among the newest records."""

    title = _("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [(name, words.STATES[name]) for name in STATES]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        state = self.value()
        if state == "unknown":
            return unknown(queryset)
        if state == "stuck":
            return abandoned(queryset)
        if state in STATES:
            return newest(queryset).filter(state=state)
        return queryset

    @property
    def is_bounded(self) -> bool:
        """Whether only the newest records are looked at."""
        return self.value() in STATES[1:]


class OperationFilter(admin.SimpleListFilter):
    """By operation, of those that were called of late, among the newest records."""

    title = _("operation")
    parameter_name = "operation"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        found = [*_operations(int(uptime() / REMEMBERED))]
        given = request.GET.get(self.parameter_name)
        if given and given not in found:
            found.append(given)  # As from a link of the page with the numbers.
        return [(name, name) for name in found]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() is None:
            return queryset
        return newest(queryset).filter(operation=self.value())

    @property
    def is_bounded(self) -> bool:
        """Whether only the newest records are looked at."""
        return self.value() is not None


@lru_cache(maxsize=1)
def _operations(minute: int) -> list[str]:
    """Give the operations that can be chosen, once in each *minute*."""
    using = options()["USING"]
    since = clock(connections[using]) - timedelta(days=1)
    rows = Statistic.objects.using(using).filter(kind="call", starts_at__gte=since)
    names = rows.order_by("name").values_list("name", flat=True).distinct()
    return list(names[:OPERATIONS])
