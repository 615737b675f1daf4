"""The log of transitions, to be read only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.utils.translation import gettext_lazy as _

from ..models import TransitionLog
from .pages import ReadOnlyMixin

if TYPE_CHECKING:
    Base = admin.ModelAdmin[TransitionLog]
else:  # Django's own class takes no type arguments.
    Base = admin.ModelAdmin


@admin.register(TransitionLog)
class TransitionLogAdmin(ReadOnlyMixin, Base):
    """The log as it is: it grows with every transition, so nothing here counts or joins it all."""

    list_display = ("at", "model", "object_id", "transition", "states", "by", "record_id")
    list_display_links = ("at",)
    search_fields = ("object_id__exact",)
    search_help_text = _("The key of an object, as it is in its address.")
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    list_select_related = False
    list_per_page = 50

    @admin.display(description=_("at"), ordering="id")
    def at(self, entry: TransitionLog) -> Any:
        return entry.created_at

    @admin.display(description=_("from → to"))
    def states(self, entry: TransitionLog) -> str:
        return f"{entry.source} → {entry.target}"
