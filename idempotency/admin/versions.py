"""Change forms and editable lists that save only over what the user has seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.forms import BaseModelFormSet, HiddenInput
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.translation import gettext_lazy as _

from ..exceptions import StaleObject
from ..forms import VersionedForm
from ..forms.versioned import FIELD, versioned
from .pages import PageMixin

if TYPE_CHECKING:
    Base = admin.ModelAdmin[Any]
    RowSet = BaseModelFormSet[Any, Any]
else:  # Named before ModelAdmin, whose class takes no type arguments.
    Base = object
    RowSet = BaseModelFormSet


class VersionedAdmin(PageMixin, Base):
    """
    A `ModelAdmin` of a `VersionedModel` in which nobody overwrites what they have not seen.

    Name it before `ModelAdmin`. The form for changes, the rows of `list_editable` and the page
    for deletions refuse what has changed meanwhile, and show it.
    """

    def __init__(self, model: Any, admin_site: Any) -> None:
        super().__init__(model, admin_site)
        self.form = versioned(self.form)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        fieldsets: list[Any] = [
            (title, {**options, "fields": _without_version(options["fields"])})
            for title, options in super().get_fieldsets(request, obj)
        ]
        if obj is not None and fieldsets and self.has_change_permission(request, obj):
            fieldsets[-1][1]["fields"].append(FIELD)
        return fieldsets

    def get_changelist_formset(self, request: HttpRequest, **options: Any) -> Any:
        formset = super().get_changelist_formset(request, **{"formset": RowFormSet, **options})
        formset.form = versioned(formset.form, RowForm)
        return formset

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **options: Any
    ) -> HttpResponse:
        form = context["adminform"].form
        context |= {
            "stale": form.stale,
            "changes": [change for change in form.changes if change.concerns],
            "differing": sum(change.differs for change in form.changes),
            "same": sum(not change.concerns for change in form.changes),
            "reload_url": request.get_full_path(),
        }
        return super().render_change_form(request, context, *args, **options)

    def changeform_view(self, request: HttpRequest, *args: Any, **options: Any) -> Any:
        def view() -> Any:
            return super(VersionedAdmin, self).changeform_view(request, *args, **options)

        try:
            return view()
        except StaleObject:
            # Rolled back; on the row as it is now, the form itself finds what has changed.
            return self._reload_if_stale(request, view)

    def changelist_view(self, request: HttpRequest, *args: Any, **options: Any) -> Any:
        view = super().changelist_view
        return self._reload_if_stale(request, lambda: view(request, *args, **options))

    def delete_view(self, request: HttpRequest, *args: Any, **options: Any) -> Any:
        view = super().delete_view
        return self._reload_if_stale(request, lambda: view(request, *args, **options))

    def _reload_if_stale(self, request: HttpRequest, view: Callable[[], Any]) -> Any:
        try:
            return view()
        except StaleObject:
            self.message_user(request, _MEANWHILE, messages.WARNING)
            return HttpResponseRedirect(request.get_full_path())


_MEANWHILE = _(
    "This was changed in the very moment in which you sent it, so nothing was written."
    " Here is what is stored now."
)


def _without_version(fields: Any) -> list[Any]:
    return [field for field in fields if field != FIELD]


class RowForm(VersionedForm):
    """A row of an editable list: there is no room for a table, so the error tells all."""

    def stale_error(self) -> ValidationError:
        others = [change for change in self.changes if change.changed_by_others]
        stored = "; ".join(f"{change.label}: {change.stored}" for change in others)
        words = _STALE_ROW if stored else _STALE_ELSEWHERE
        return ValidationError(words, code="stale", params={"stored": stored})

    def _require_seen(self) -> None:
        # A row that the user left alone is not written, so it can be as old as it likes.
        if self.changed_data or not self.stale:
            super()._require_seen()


_STALE_ROW = _(
    "This row has been changed since you opened the list, so nothing was saved."
    " Stored now is %(stored)s. Saving again overwrites it."
)
_STALE_ELSEWHERE = _(
    "This row has been changed since you opened the list, though in no column that can be"
    " edited here, so nothing was saved. Saving again saves your values."
)


class RowFormSet(RowSet):
    """The rows of an editable list; what shows a row's key shows its version as well."""

    def add_fields(self, form: Any, index: int | None) -> None:
        super().add_fields(form, index)
        if FIELD in form.fields:
            form.fields[form._meta.model._meta.pk.name].widget = _KeyAndVersion(form)


class _KeyAndVersion(HiddenInput):
    """Django renders of each row its hidden key and nothing else that is hidden."""

    def __init__(self, form: forms.BaseForm) -> None:
        super().__init__()
        self.versioned_form = form

    def render(self, *args: Any, **options: Any) -> Any:
        return super().render(*args, **options) + self.versioned_form[FIELD].as_widget()
