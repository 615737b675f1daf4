"""What the pages of the admin have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import django
from django.contrib import admin
from django.forms import Media
from django.http import HttpRequest

if TYPE_CHECKING:
    Base = admin.ModelAdmin[Any]
else:
    Base = object


class PageMixin(Base):
    """One template for both, so that they work together in either order."""

    change_form_template = "admin/idempotency/change_form.html"

    @property
    def media(self) -> Media:
        return super().media + Media(css={"all": ["idempotency/admin.css"]})


class ReadOnlyMixin(Base):
    """Rows that only the app itself writes; name it before `ModelAdmin`."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


def breadcrumbs_are_a_list() -> bool:
    """Whether the admin's style sheet is made for an `<ol>` of breadcrumbs."""
    return django.VERSION >= (6, 1)
