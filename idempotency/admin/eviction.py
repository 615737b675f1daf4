"""Releasing a lock of another holder: confirmed, with a reason, and only the one that was seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.widgets import AdminTextareaWidget
from django.core import signing
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..exceptions import IdempotencyError
from ..keys import record_id
from ..locks.aliases import get_backend
from ..locks.base import LiveLock
from ..models import LockLease
from .pages import breadcrumbs_are_a_list

if TYPE_CHECKING:
    Base = admin.ModelAdmin[Any]
else:  # Named before ModelAdmin, whose class takes no type arguments.
    Base = object

SALT = "idempotency.admin.locks"
OLDEST = 3_600
"""Seconds after which a page that showed a lock is too old to release it by."""


class ReasonForm(forms.Form):
    """Why somebody does by hand what the app does by itself, for those who ask later."""

    reason = forms.CharField(
        label=gettext_lazy("Reason"),
        max_length=1_000,
        widget=AdminTextareaWidget(attrs={"rows": 3}),
    )


def may_evict(request: HttpRequest) -> bool:
    return request.user.has_perm("idempotency.release_lock")


def seen_lock(alias: str, lock: LiveLock) -> str:
    """Give what proves that *lock* was shown, with this holder."""
    return signing.dumps([alias, lock.name, lock.owner, lock.token], salt=SALT, compress=True)


class EvictionMixin(Base):
    """The page that confirms the release of a lock."""

    def evict_view(self, request: HttpRequest) -> HttpResponse:
        """Show the page, or release the lock if it is confirmed."""
        if not (self.has_view_permission(request) and may_evict(request)):
            raise PermissionDenied
        seen = request.POST.get("lock") or request.GET.get("lock", "")
        try:
            alias, *facts = signing.loads(seen, salt=SALT, max_age=OLDEST)
        except signing.BadSignature:
            return self._say(request, _("That page is too old: look again."), messages.WARNING)
        lock = LiveLock(*facts, held_for=None, left=None)  # type: ignore[misc]
        form = ReasonForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            return self._evict(request, alias, lock, form.cleaned_data["reason"])
        context = {
            **self.admin_site.each_context(request),
            "title": _("Release the lock?"),
            "opts": self.opts,
            "alias": alias,
            "lock": lock,
            "seen": seen,
            "form": form,
            "breadcrumbs_are_a_list": breadcrumbs_are_a_list(),
        }
        return TemplateResponse(request, "admin/idempotency/evict.html", context)

    def _evict(self, request: HttpRequest, alias: str, lock: LiveLock, reason: str) -> HttpResponse:
        words = {"name": lock.name}
        try:
            freed = get_backend(alias).evict(lock)
        except IdempotencyError:
            return self._say(
                request, _("“%(name)s” cannot be reached now.") % words, messages.ERROR
            )
        if not freed:
            message = _("“%(name)s” has another holder by now, or none. Nothing was done.")
            return self._say(request, message % words, messages.WARNING)
        kept = LockLease(pk=record_id("lock", alias, lock.name), name=lock.name)
        self.log_change(request, kept, f"Released from {lock.owner} (token {lock.token}): {reason}")
        message = _("“%(name)s” is free. Whoever held it finds it lost.")
        return self._say(request, message % words, messages.SUCCESS)

    def _say(self, request: HttpRequest, message: str, level: int) -> HttpResponse:
        self.message_user(request, message, level)
        name = "admin:idempotency_statistic_changelist"
        return HttpResponseRedirect(reverse(name, current_app=self.admin_site.name))
