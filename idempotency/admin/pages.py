"""What the pages of both mixins have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import django
from django.contrib import admin
from django.forms import Media

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


def breadcrumbs_are_a_list() -> bool:
    """Whether the admin's style sheet is made for an `<ol>` of breadcrumbs."""
    return django.VERSION >= (6, 1)
