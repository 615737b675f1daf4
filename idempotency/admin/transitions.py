"""Buttons for transitions: each leads to a page that confirms it, and takes effect once."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.admin.templatetags.admin_urls import add_preserved_filters
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import ObjectDoesNotExist, PermissionDenied, ValidationError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.translation import gettext as _

from ..exceptions import IdempotencyError, KeyInProgress, StaleObject, TransitionConflict
from ..transitions.states import state_fields, state_of, text_of
from ..transitions.steps import Step
from .confirming import Confirmed, Invalid, Seen, forms_of
from .history import history_of
from .offers import Offer, declared_from, find_step, offers, state_in_words
from .pages import PageMixin, breadcrumbs_are_a_list
from .saying import BUSY, CONFLICT, GUARDED, MOVED, REPORTS, UNREADABLE, UNSURE, said

if TYPE_CHECKING:
    Base = admin.ModelAdmin[Any]
else:  # Named before ModelAdmin, whose class takes no type arguments.
    Base = object

logger = logging.getLogger("idempotency")


class TransitionsAdmin(PageMixin, Base):
    """
    A `ModelAdmin` of a model with transitions: it shows them as buttons, and what they did.

    Name it before `ModelAdmin`. States are read-only; a button leads to a page that confirms the
    transition, and however often that is sent, it takes effect once.
    """

    transition_errors: tuple[type[Exception], ...] = (ValidationError,)
    """Errors by which the body of a transition refuses; the user gets their message."""
    confirm_transition_template = "admin/idempotency/confirm_transition.html"

    def __init__(self, model: Any, admin_site: Any) -> None:
        super().__init__(model, admin_site)
        editable = {field.name for field in state_fields(model)} & set(self.list_editable)
        if editable:
            raise TypeError(f"list_editable has a state, which only transitions set: {editable}.")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        given = super().get_readonly_fields(request, obj)
        states = [field.name for field in state_fields(self.model)]
        return [*given, *(name for name in states if name not in given)]

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.transition_view)
        address = "<path:object_id>/transition/<str:name>/"
        return [path(address, view, name=self._name("transition")), *super().get_urls()]

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **options: Any
    ) -> HttpResponse:
        original = context.get("original")
        if original is not None:
            context["transitions"] = self._buttons(request, original)
            context["transition_log"] = history_of(original)
        return super().render_change_form(request, context, *args, **options)

    def _buttons(self, request: HttpRequest, obj: Any) -> list[dict[str, str]]:
        if not self.has_change_permission(request, obj):
            return []
        return [
            {"label": offer.label, "url": self._url("transition", obj, offer.name)}
            for offer in offers(obj, request.user)
        ]

    def transition_view(self, request: HttpRequest, object_id: str, name: str) -> HttpResponse:
        """Show the page that confirms a transition, or run the transition if it is confirmed."""
        obj = self.get_object(request, unquote(object_id))
        if not self.has_change_permission(request, obj):
            raise PermissionDenied
        if obj is None:
            return self._gone(request, unquote(object_id))
        step = find_step(obj, name)
        if step is None:
            raise Http404(f"{self.model._meta.label} has no transition {name}.")
        return self._take(request, step) if request.method == "POST" else self._ask(request, step)

    def _ask(self, request: HttpRequest, step: Step) -> HttpResponse:
        state = state_of(step.instance, step.field)
        declared = declared_from(step, text_of(state))
        if declared is not None and not Offer(step, declared).is_for_the_admin:
            raise Http404(f"{step.name} is not for the admin.")
        if declared is not None and not declared.has_perm(step.instance, request.user):
            raise PermissionDenied
        if step.name not in [offer.name for offer in offers(step.instance, request.user)]:
            return self._say_conflict(request, step, state)
        seen = Seen.now(step)
        return self._page(request, Offer(step, declared), seen, forms_of(step, seen, request))

    def _page(self, request: HttpRequest, offer: Offer, seen: Seen, forms: Any) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "title": offer.label,
            "subtitle": str(offer.step.instance),
            "opts": self.opts,
            "object": offer.step.instance,
            "offer": offer,
            "seen": seen.token(offer.step),
            "forms": forms,
            "is_multipart": any(form.is_multipart() for form in forms),
            "has_errors": any(form.is_bound and form.errors for form in forms),
            "back": self._url("change", offer.step.instance),
            "breadcrumbs_are_a_list": breadcrumbs_are_a_list(),
            "media": sum((form.media for form in forms), self.media),
            "preserved_filters": self.get_preserved_filters(request),
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, self.confirm_transition_template, context)

    def _take(self, request: HttpRequest, step: Step) -> HttpResponse:
        seen = Seen.read(request.POST.get("seen"), step)
        if seen is None:
            return self._say(request, said(UNREADABLE, step), messages.ERROR, step, again=True)
        declared = declared_from(step, seen.state)
        if declared is None or not Offer(step, declared).is_for_the_admin:
            raise Http404(f"{step.name} is not for the admin.")
        confirmed = Confirmed(self, request, step, seen)
        try:
            report = confirmed.run()
        except Invalid:
            return self._page(request, Offer(step, declared), seen, confirmed.forms)
        except StaleObject:
            return self._say(request, said(MOVED, step), messages.WARNING, step, again=True)
        except TransitionConflict as conflict:
            return self._say_conflict(request, step, conflict.actual)
        except ObjectDoesNotExist:
            return self._gone(request, step.instance.pk)
        except KeyInProgress:
            return self._say(request, said(BUSY, step), messages.WARNING, step)
        except IdempotencyError as error:
            logger.error("%s was not confirmed.", step.name, exc_info=error)
            return self._say(request, said(UNSURE, step), messages.ERROR, step)
        words, level = REPORTS[report.came_to]
        return self._say(request, said(words, step, report.words), level, step)

    def _say_conflict(self, request: HttpRequest, step: Step, state: Any) -> HttpResponse:
        words = GUARDED if step.leads_from(state) else CONFLICT
        message = said(words, step, state_in_words(step.field, state))
        return self._say(request, message, messages.WARNING, step)

    def _say(
        self, request: HttpRequest, message: str, level: int, step: Step, *, again: bool = False
    ) -> HttpResponse:
        """Leave a message for the page of the object, or for the one that confirms *again*."""
        self.message_user(request, message, level)
        name = [step.name] if again else []
        to = self._url("transition" if again else "change", step.instance, *name)
        return HttpResponseRedirect(self._filtered(request, to))

    def _gone(self, request: HttpRequest, key: Any) -> HttpResponse:
        message = _("There is no %(name)s with the key “%(key)s” any more.")
        words = {"name": self.opts.verbose_name, "key": key}
        self.message_user(request, message % words, messages.WARNING)
        return HttpResponseRedirect(reverse("admin:index", current_app=self.admin_site.name))

    def _filtered(self, request: HttpRequest, url: str) -> str:
        filters = self.get_preserved_filters(request)
        return add_preserved_filters({"preserved_filters": filters, "opts": self.opts}, url)

    def _url(self, page: str, obj: Any, *more: str) -> str:
        name = f"admin:{self._name(page)}"
        return reverse(name, args=(quote(obj.pk), *more), current_app=self.admin_site.name)

    def _name(self, page: str) -> str:
        return f"{self.opts.app_label}_{self.opts.model_name}_{page}"
