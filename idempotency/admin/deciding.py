"""Deciding about a record: a page that confirms it, and one write on what was seen."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import words
from ..exceptions import IdempotencyError, InvalidBackend
from ..models import IdempotencyRecord
from ..stores.base import Seen
from .decisions import Decision, Keeper, is_as_seen, keeper_of, log_decision, mark_of
from .pages import breadcrumbs_are_a_list

if TYPE_CHECKING:
    Base = admin.ModelAdmin[IdempotencyRecord]
else:  # Named before ModelAdmin, whose class takes no type arguments.
    Base = object


class DecidingMixin(Base):
    """The pages of one record that confirm a decision, and what all its pages share."""

    def decide_view(self, request: HttpRequest, object_id: str, decision: Decision) -> HttpResponse:
        """Show the page that confirms *decision*, or carry it out if it is confirmed."""
        record = self._record(request, object_id)
        if not request.user.has_perm(decision.permission):
            raise PermissionDenied
        if record is None:
            return self._gone(request, object_id)
        try:
            keeper = keeper_of(record)
            if keeper is None:
                return self._in_another_state(request, record)
            with transaction.atomic(using=keeper.using):
                return self._decide(request, record, decision, keeper)
        except (IdempotencyError, InvalidBackend):
            return self._say(request, record, _("The store cannot be reached now."))

    def _decide(
        self, request: HttpRequest, record: Any, decision: Decision, keeper: Keeper
    ) -> HttpResponse:
        seen = keeper.look_again() if request.method == "POST" else keeper.look()
        if seen is None or not decision.applies(seen):
            return self._in_another_state(request, record)
        form = decision.form_for(seen)(request.POST or None)
        if request.method != "POST" or not form.is_valid():
            return self._page(request, record, decision, form, seen)
        mark, decided = request.POST.get("seen", ""), form.decided()
        if not (is_as_seen(mark, decision, record, seen) and keeper.decide(seen, *decided)):
            return self._changed(request, record)
        note = f"{decision.title}: {form.cleaned_data['reason']}"
        self.log_change(request, record, note)
        log_decision(record, f"user:{request.user.pk}", note, time.time())
        keeper.tell(seen, *decided)
        return self._say(request, record, str(decision.done), messages.SUCCESS)

    def _page(
        self, request: HttpRequest, record: Any, decision: Decision, form: Any, seen: Seen
    ) -> HttpResponse:
        context = {
            **self._frame(request, record, decision.title),
            "decision": decision,
            "form": form,
            "seen": request.POST.get("seen") or mark_of(decision, record, seen),
            "state": words.state(seen.state),
            "lease": self.lease(record),
            "back": self._url("change", record),
            "object": record.key,
        }
        return TemplateResponse(request, "admin/idempotency/record_decision.html", context)

    def _in_another_state(self, request: HttpRequest, record: Any) -> HttpResponse:
        message = _("The record is in another state. Nothing was done.")
        return self._say(request, record, message)

    def _changed(self, request: HttpRequest, record: Any) -> HttpResponse:
        return self._say(request, record, _("It has changed since you looked. Nothing was done."))

    def _say(
        self, request: HttpRequest, record: Any, message: str, level: int = messages.WARNING
    ) -> HttpResponse:
        self.message_user(request, message, level)
        return HttpResponseRedirect(self._url("change", record))

    def _record(self, request: HttpRequest, object_id: str) -> IdempotencyRecord | None:
        if not self.has_view_permission(request):
            raise PermissionDenied
        return self.get_object(request, unquote(object_id))

    def _gone(self, request: HttpRequest, object_id: str) -> HttpResponse:
        message = _("There is no record “%(key)s” any more.") % {"key": unquote(object_id)}
        self.message_user(request, message, messages.WARNING)
        name = "admin:idempotency_idempotencyrecord_changelist"
        return HttpResponseRedirect(reverse(name, current_app=self.admin_site.name))

    def _url(self, page: str, record: Any) -> str:
        name = f"admin:idempotency_idempotencyrecord_{page}"
        return reverse(name, args=[quote(record.pk)], current_app=self.admin_site.name)

    def _frame(self, request: HttpRequest, record: Any, title: Any) -> dict[str, Any]:
        return {
            **self.admin_site.each_context(request),
            "title": title,
            "opts": self.opts,
            "record": record,
            "breadcrumbs_are_a_list": breadcrumbs_are_a_list(),
        }

    @admin.display(description=gettext_lazy("lease"), empty_value="-")
    def lease(self, record: Any) -> str | None:
        if record.ends_at is None or record.state != "in_progress":
            return None
        left = -self.age_of(record.ends_at)
        if left > 0:
            return _("%(time)s left") % {"time": words.duration(left)}
        return _("over for %(time)s") % {"time": words.duration(-left)}

    def age_of(self, instant: Any) -> float:
        """Give the seconds since *instant*, by the clock of this process: good enough to read."""
        return float((timezone.now() - instant).total_seconds())
