"""Views of Django REST framework, protected where it knows who calls and what is answered."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial, wraps
from typing import Any

from django.core.handlers.exception import response_for_exception
from django.db import connections
from django.http import HttpRequest, HttpResponseBase, UnreadablePostError
from rest_framework.exceptions import NotAcceptable

from ...conf import settings
from ...exceptions import BodyInvalid
from ...http import Endpoint
from ...http.endpoint import endpoint_of
from ...http.marks import is_replayed
from ...http.principals import scope_of_principal
from ...http.requests import is_heeded, is_unsafe, keep_small_body, meta_name
from ...http.transactions import OwnTransactions, opened, own_transactions_of
from .actions import check_names
from .answers import with_data
from .errors import ProblemMixin


class IdempotentMixin(ProblemMixin):
    """
    Let each idempotency key make an action take effect once, and replay its answer after that.

    Name it before the class of the framework: `class Orders(IdempotentMixin, ModelViewSet)`. It
    works after authentication, permissions and throttles, which a replay goes through as well. An
    error that is raised rolls back what the action wrote, and frees the key.

    Functions among the options get Django's request, whose `user` and `auth` are those that the
    framework has found.
    """

    idempotent_actions: Collection[str] | Mapping[str, Mapping[str, Any]] | None = None
    """Names of the actions that are protected (of the methods, in views without actions), with
    options of their own if it is a mapping. None protects all that are not safe."""

    idempotent_options: Mapping[str, Any] = {}
    """Options of `idempotent_view` for all of them."""

    _unacceptable: NotAcceptable | None = None
    _own_transactions: Collection[str] = ()

    @classmethod
    def as_view(cls, *args: Any, **kwargs: Any) -> Callable[..., HttpResponseBase]:
        if cls.view_is_async:
            raise TypeError(
                f"{cls.__name__} has asynchronous handlers, which IdempotentMixin cannot protect:"
                " await arun_once in them."
            )
        own = OwnTransactions(own_transactions_of(cls.dispatch))
        view: Any = super().as_view(*args, _own_transactions=own.aliases, **kwargs)
        shown = cls(**kwargs)
        routed: Mapping[str, str] = getattr(view, "actions", None) or {}
        check_names(cls, shown.idempotent_actions, routed)
        for action in shown.idempotent_actions or [""]:
            shown._endpoint_of(action)  # Tells of a wrong option here, not at the first request.

        @wraps(view)
        def entered(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            method = (request.method or "").lower()
            if _is_keyed(request) and shown._is_protected(routed.get(method, method)):
                answer: HttpResponseBase = view(request, *args, **kwargs)
                return answer
            with opened(own.aliases):
                return view(request, *args, **kwargs)  # type: ignore[no-any-return]

        own.mark(entered)
        entered.idempotent_endpoint = shown._endpoint_of("")  # type: ignore[attr-defined]
        return entered

    def initialize_request(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        if _is_keyed(request):
            with suppress(BodyInvalid):  # Whoever reads it next tells.
                keep_small_body(request)  # A permission may read the stream before we do.
        return super().initialize_request(request, *args, **kwargs)

    def perform_content_negotiation(self, request: Any, force: bool = False) -> Any:
        try:
            return super().perform_content_negotiation(request, force)
        except NotAcceptable as error:
            if not self._is_heeded(request):
                raise
            # A replay gives the first answer, whatever can be rendered now.
            self._unacceptable = error
            return super().perform_content_negotiation(request, force=True)

    def initial(self, request: Any, *args: Any, **kwargs: Any) -> None:
        if not self._is_heeded(request):
            super().initial(request, *args, **kwargs)
        else:
            # What may lock rows or write before it refuses, such as a throttle, comes before the
            # claim, whose transaction is another one.
            with opened(self._own_transactions):
                super().initial(request, *args, **kwargs)
        name = request.method.lower()
        handler = getattr(self, name, None) if name in self.http_method_names else None
        if handler is None:
            if self._unacceptable is not None:
                raise self._unacceptable
        elif self._is_protected(self._action_of(request.method)):
            setattr(self, name, partial(self._once, handler))

    def _once(
        self, handler: Callable[..., Any], request: Any, *args: Any, **kwargs: Any
    ) -> HttpResponseBase:
        inner: HttpRequest = request._request
        endpoint = self._endpoint_of(self._action_of(request.method))
        if not _is_keyed(inner):  # Its transactions are open already.
            endpoint = replace(endpoint, own_transactions=list(connections))
            return endpoint.answer(inner, partial(handler, request, *args, **kwargs))

        def finalized(response: Any) -> Any:
            finalize: Callable[..., Any] = self.finalize_response
            return finalize(request, response, *args, **kwargs)

        def respond() -> Any:
            if self._unacceptable is not None:
                raise self._unacceptable
            return finalized(handler(request, *args, **kwargs))

        def tell_kept(_: HttpRequest, error: Exception) -> Any:
            try:
                return finalized(self.handle_exception(error))
            except Exception as uncaught:
                return response_for_exception(inner, uncaught)

        _parse_parts(request)
        scope = _scope_of(request)  # Asks also an authentication that is lazy.
        if scope is not None and endpoint.scope is None and not settings.SCOPE:
            endpoint = replace(endpoint, scope=lambda _: scope)
        response = endpoint.answer(inner, respond, tell_kept)
        # It is final already, and a replay is to stay as it is.
        self.finalize_response = lambda request, response, *args, **kwargs: response
        return with_data(response) if is_replayed(inner) else response

    def is_key_required(self, method: str) -> bool | None:
        """Tell whether a request needs a key; None if its key would not be heeded."""
        action = self._action_of(method)
        if not (self._is_protected(action) and is_heeded(method)):
            return None
        return self._endpoint_of(action).required and method in settings.METHODS

    def _is_heeded(self, request: Any) -> bool:
        """Whether the request has a key that counts here."""
        return _is_keyed(request._request) and self._is_protected(self._action_of(request.method))

    def _action_of(self, method: str) -> str:
        action: str | None = getattr(self, "action", None)
        return action or method.lower()

    def _is_protected(self, action: str) -> bool:
        return self.idempotent_actions is None or action in self.idempotent_actions

    def _endpoint_of(self, action: str) -> Endpoint:
        actions = self.idempotent_actions
        own = actions.get(action, {}) if isinstance(actions, Mapping) else {}
        options = {**self.idempotent_options, **own}
        kind = type(self)
        name = ".".join(filter(None, [kind.__module__, kind.__qualname__, action]))
        return endpoint_of(name, own_transactions=self._own_transactions, **options)


def _parse_parts(request: Any) -> None:
    """Let the framework read a multipart body: Django itself does so for POST only."""
    inner: HttpRequest = request._request
    if inner.content_type == "multipart/form-data":
        try:
            request.data  # noqa: B018 - it is kept by being read, for Django's request as well.
        except UnreadablePostError as error:
            raise BodyInvalid("The connection broke before the body had arrived.") from error


def _scope_of(request: Any) -> str | None:
    """Give who may share keys, as the framework has found; None for nobody in particular."""
    user = request.user
    if user is not None and user.is_authenticated:
        return scope_of_principal(user)
    return None if request.auth is None else scope_of_principal(request.auth)


def _is_keyed(request: HttpRequest) -> bool:
    return is_unsafe(request) and meta_name(settings.HEADER) in request.META
