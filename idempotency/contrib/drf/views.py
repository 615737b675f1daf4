"""Views of Django REST framework, protected where it knows who calls and what is answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from dataclasses import replace
from functools import cached_property, partial, wraps
from typing import Any

from django.core.handlers.exception import response_for_exception
from django.http import HttpRequest, HttpResponseBase, UnreadablePostError
from rest_framework.exceptions import NotAcceptable

from ...conf import settings
from ...exceptions import BodyInvalid
from ...http.arriving import BROKE_OFF, is_streamed, keep_small_body
from ...http.marks import is_replayed
from ...http.principals import is_anybody, scope_of_principal
from ...http.requests import is_heeded, is_keyed
from ...http.transactions import OwnTransactions, joined, opened, own_transactions_of
from ...stores.base import Unconfirmed
from .actions import Actions, Plan
from .answers import with_data
from .errors import ProblemMixin, tell


class IdempotentMixin(ProblemMixin):
    """
    Let each idempotency key make an action take effect once, and replay its answer after that.

    Name it before the class of the framework: `class Orders(IdempotentMixin, ModelViewSet)`. It
    works after authentication, permissions and throttles, which a replay goes through as well. An
    error that is raised rolls back what the action wrote, and frees the key.

    Functions among the options get Django's request, whose `user` and `auth` are those that the
    framework has found.
    """

    idempotent_actions: Actions = None
    """Names of the actions that are protected (of the methods, in views without actions), with
    options of their own if it is a mapping. None protects all that are not safe."""

    idempotent_options: Mapping[str, Any] = {}
    """Options of `idempotent_view` for all of them."""

    _unacceptable: NotAcceptable | None = None
    _broken: BodyInvalid | None = None

    @classmethod
    def as_view(cls, *args: Any, **kwargs: Any) -> Callable[..., HttpResponseBase]:
        if cls.view_is_async:
            raise TypeError(
                f"{cls.__name__} has asynchronous handlers, which IdempotentMixin cannot protect:"
                " await arun_once in them."
            )
        view: Any = super().as_view(*args, **kwargs)
        own = OwnTransactions(own_transactions_of(cls.dispatch))
        plan = Plan(
            cls,
            kwargs.get("idempotent_actions", cls.idempotent_actions),
            kwargs.get("idempotent_options", cls.idempotent_options),
            own.aliases,
            getattr(view, "actions", None) or {},
        )
        plan.check()

        @wraps(view)
        def entered(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            reset = _entered.set(plan)
            try:
                return _within(plan, request, partial(view, request, *args, **kwargs))
            finally:
                _entered.reset(reset)

        own.mark(entered)
        entered.idempotent_endpoint = plan.endpoint_of("")  # type: ignore[attr-defined]
        return entered

    @cached_property
    def _plan(self) -> Plan:
        plan = _entered.get()
        if plan is not None and plan.view is type(self):
            return plan
        actions, options = self.idempotent_actions, self.idempotent_options
        return Plan(type(self), actions, options, (), getattr(self, "action_map", None) or {})

    def initialize_request(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        if self._plan.is_heeded(request):
            try:
                keep_small_body(request)  # A permission may read the stream before we do.
            except BodyInvalid as error:
                self._broken = error
        return super().initialize_request(request, *args, **kwargs)

    def perform_content_negotiation(self, request: Any, force: bool = False) -> Any:
        try:
            return super().perform_content_negotiation(request, force)
        except NotAcceptable as error:
            if not self._plan.is_heeded(request._request):
                raise
            # A replay gives the first answer, whatever can be rendered now.
            self._unacceptable = error
            return super().perform_content_negotiation(request, force=True)

    def initial(self, request: Any, *args: Any, **kwargs: Any) -> None:
        if self._broken is not None:
            raise self._broken
        with self._own_transaction(request):
            super().initial(request, *args, **kwargs)
        name = request.method.lower()
        handler = getattr(self, name, None) if name in self.http_method_names else None
        if handler is None:
            self._refuse_unacceptable()
        elif self._plan.is_protected(self._plan.action_of(name)):
            setattr(self, name, partial(self._once, handler))

    def handle_exception(self, error: Exception) -> HttpResponseBase:
        with self._own_transaction(self.request):
            response: HttpResponseBase = super().handle_exception(error)
        return response

    def _own_transaction(self, request: Any) -> AbstractContextManager[None]:
        """
        Open what Django would have opened around all, if the claim cannot be part of that.

        What comes before a claim with a lease is another transaction, and what tells of an error
        as well: it may lock rows, and it rolls back.
        """
        plan, inner = self._plan, request._request
        is_apart = plan.is_heeded(inner) and plan.alias_to_join(inner) is None
        return opened(plan.own_transactions) if is_apart else nullcontext()

    def _refuse_unacceptable(self) -> None:
        if self._unacceptable is not None:
            raise self._unacceptable

    def _once(
        self, handler: Callable[..., Any], request: Any, *args: Any, **kwargs: Any
    ) -> HttpResponseBase:
        inner: HttpRequest = request._request
        endpoint = self._plan.endpoint_of(self._plan.action_of(request.method))
        if not is_keyed(inner):  # Its transactions are open already.
            return endpoint.answer(inner, partial(handler, request, *args, **kwargs))

        def finalized(response: Any) -> Any:
            finalize: Callable[..., Any] = self.finalize_response
            return finalize(request, response, *args, **kwargs)

        def respond() -> Any:
            return finalized(handler(request, *args, **kwargs))

        def tell_kept(_: HttpRequest, error: Exception) -> Any:
            try:
                return finalized(self.handle_exception(error))
            except Exception as uncaught:
                return response_for_exception(inner, uncaught)

        if endpoint.fingerprint is None and is_streamed(inner):
            _parse_parts(request)
        user = request.user  # Asks also an authentication that is lazy.
        if endpoint.scope is None and not settings.SCOPE:
            scope = _scope_of(user, request.auth)
            endpoint = endpoint if scope is None else replace(endpoint, scope=lambda _: scope)
        response = endpoint.answer(inner, respond, tell_kept, self._refuse_unacceptable)
        # It is final already, and a replay is to stay as it is.
        self.finalize_response = lambda request, response, *args, **kwargs: response
        return with_data(response) if is_replayed(inner) else response

    def is_key_required(self, method: str) -> bool | None:
        """Tell whether a request needs a key; None if its key would not be heeded."""
        action = self._plan.action_of(method)
        if not (self._plan.is_protected(action) and is_heeded(method)):
            return None
        return self._plan.endpoint_of(action).required and method in settings.METHODS


_entered: ContextVar[Plan | None] = ContextVar("idempotency_plan", default=None)
"""The plan of the view that is being called."""


def _within(
    plan: Plan, request: HttpRequest, respond: Callable[[], HttpResponseBase]
) -> HttpResponseBase:
    """Respond in the transactions that Django would have opened, if a claim may be part of them."""
    if not plan.is_heeded(request):
        with opened(plan.own_transactions):
            return respond()
    alias = plan.alias_to_join(request)
    if alias is None:
        return respond()
    try:
        with joined(plan.own_transactions, alias):
            return respond()
    except Unconfirmed as error:
        return tell(error)


def _parse_parts(request: Any) -> None:
    """Let the framework read a multipart body: Django itself does so for POST only."""
    inner: HttpRequest = request._request
    if inner.content_type == "multipart/form-data":
        try:
            request.data  # noqa: B018 - it is kept by being read, for Django's request as well.
        except UnreadablePostError as error:
            raise BodyInvalid(BROKE_OFF) from error


def _scope_of(user: Any, auth: Any) -> str | None:
    """Give who may share keys, as the framework has found; None for nobody in particular."""
    if user is not None and user.is_authenticated:
        return scope_of_principal(user)
    return None if is_anybody(auth) else scope_of_principal(auth)
