"""Pages of a table that nobody counts."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from django.core.paginator import Paginator

if TYPE_CHECKING:
    Base = Paginator[Any]
else:  # Django's own class takes no type arguments.
    Base = Paginator

MOST = 10_000
"""Rows that are counted, and that can be leafed through; what is further behind is searched for."""


class CappedPaginator(Base):
    """Counts at most `MOST` rows: counting millions takes longer than anybody waits."""

    @cached_property
    def _found(self) -> int:
        rows: Any = self.object_list
        return int(rows.values("pk")[: MOST + 1].count())

    @property
    def is_capped(self) -> bool:
        """Whether there are more rows than are counted."""
        return self._found > MOST

    @cached_property
    def count(self) -> int:
        return min(self._found, MOST)
