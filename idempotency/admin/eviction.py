"""Releasing a lock of another holder: confirmed, with a reason, and only the one that was seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.core import signing
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext as _

from ..exceptions import IdempotencyError, InvalidBackend
from ..locks.aliases import get_backend
from ..locks.base import BaseLockBackend, LiveLock
from ..models import LockLease
from .pages import breadcrumbs_are_a_list
from .reasons import ReasonForm
from .standing import ReleaseUrl

if TYPE_CHECKING:
    Base = admin.ModelAdmin[Any]
else:  # Named before ModelAdmin, whose class takes no type arguments.
    Base = object

SALT = "idempotency.admin.locks"


def seen_lock(alias: str, lock: LiveLock) -> str:
    """Give what proves that *lock* was shown, with this holder; the same each time."""
    shown = [alias, lock.name, lock.owner, lock.token]
    return signing.Signer(salt=SALT).sign_object(shown, compress=True)


def read_seen(seen: str) -> tuple[BaseLockBackend, LiveLock] | None:
    """Give the backend and the lock that were shown; None if they were not."""
    try:
        alias, name, owner, token = signing.Signer(salt=SALT).unsign_object(seen)
        return get_backend(alias), LiveLock(name, owner, token, None, None)
    except (signing.BadSignature, InvalidBackend):
        return None


class EvictionMixin(Base):
    """The page that confirms the release of a lock."""

    def release_urls(self, request: HttpRequest) -> ReleaseUrl:
        """Give what gives the address of that page, if this person may release the lock."""
        is_allowed = _may_release(request)
        page = self._address("release")

        def release_url(alias: str, lock: LiveLock) -> str:
            if not (is_allowed and get_backend(alias).supports_eviction):
                return ""
            return f"{page}?{urlencode({'lock': seen_lock(alias, lock)})}"

        return release_url

    def release_view(self, request: HttpRequest) -> HttpResponse:
        """Show the page, or release the lock if it is confirmed."""
        if not (self.has_view_permission(request) and _may_release(request)):
            raise PermissionDenied
        seen = request.POST.get("lock") or request.GET.get("lock", "")
        found = read_seen(seen)
        if found is None or not found[0].supports_eviction:
            message = _("That page cannot be read any more, and nothing was done. Look again.")
            return self._say(request, message, messages.WARNING)
        form = ReasonForm(request.POST if request.method == "POST" else None)
        if form.is_valid():
            return self._release(request, *found, form.cleaned_data["reason"])
        context = {
            **self.admin_site.each_context(request),
            "title": _("Release this lock?"),
            "opts": self.opts,
            "below_list": True,
            "page_url": self._address("changelist"),
            "alias": found[0].alias,
            "lock": found[1],
            "seen": seen,
            "form": form,
            "breadcrumbs_are_a_list": breadcrumbs_are_a_list(),
        }
        return TemplateResponse(request, "admin/idempotency/release_lock.html", context)

    def _release(
        self, request: HttpRequest, backend: BaseLockBackend, lock: LiveLock, reason: str
    ) -> HttpResponse:
        words = {"name": lock.name, "owner": lock.owner, "token": lock.token, "reason": reason}
        try:
            is_freed = backend.evict(lock)
        except IdempotencyError as error:
            message = _("Nobody can tell whether “%(name)s” was released. Look again. %(why)s")
            return self._say(request, message % {**words, "why": error}, messages.ERROR)
        if not is_freed:
            message = _("“%(name)s” has another holder by now, or none: nothing was done.")
            return self._say(request, message % words, messages.WARNING)
        message = _("Released from %(owner)s, token %(token)s: %(reason)s")
        self.log_change(request, LockLease(pk=None, name=lock.name), message % words)
        message = _("“%(name)s” was released. Whoever held it finds it lost.")
        return self._say(request, message % words, messages.SUCCESS)

    def _say(self, request: HttpRequest, message: str, level: int) -> HttpResponse:
        self.message_user(request, message, level)
        return HttpResponseRedirect(self._address("changelist"))

    def _address(self, page: str) -> str:
        name = f"admin:idempotency_statistic_{page}"
        return reverse(name, current_app=self.admin_site.name)


def _may_release(request: HttpRequest) -> bool:
    return request.user.has_perm("idempotency.release_lock")
