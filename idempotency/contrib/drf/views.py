"""Views of Django REST framework, protected where it knows who calls and what is answered."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, cast

from django.core.handlers.exception import response_for_exception
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBase, UnreadablePostError
from rest_framework.exceptions import NotAcceptable

from ...conf import settings
from ...exceptions import BodyInvalid
from ...http import Endpoint
from ...http.endpoint import endpoint_of
from ...http.marks import is_replayed
from ...http.principals import scope_of_principal
from ...http.requests import is_heeded, is_unsafe, keep_small_body, meta_name
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

    @classmethod
    def as_view(cls, *args: Any, **kwargs: Any) -> Callable[..., HttpResponseBase]:
        view: Any = super().as_view(*args, **kwargs)
        shown = cls(**kwargs)
        for action in shown.idempotent_actions or [""]:
            shown._endpoint_of(action)  # Tells of a wrong option here, not at the first request.
        view.idempotent_endpoint = shown._endpoint_of("")
        # Django must not open the transaction: a claim would stay invisible inside of it.
        view._non_atomic_requests = set(shown._own_transactions)
        for alias in connections:
            transaction.non_atomic_requests(using=alias)(view)
        return view  # type: ignore[no-any-return]

    def initialize_request(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        if _is_keyed(request):
            with suppress(BodyInvalid):  # Whoever reads it next tells.
                keep_small_body(request)  # A permission may read the stream before we do.
        return super().initialize_request(request, *args, **kwargs)

    def perform_content_negotiation(self, request: Any, force: bool = False) -> Any:
        try:
            return super().perform_content_negotiation(request, force)
        except NotAcceptable as error:
            if not _is_keyed(request._request):
                raise
            # A replay gives the first answer, whatever can be rendered now.
            self._unacceptable = error
            return super().perform_content_negotiation(request, force=True)

    def initial(self, request: Any, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        name = request.method.lower()
        handler = getattr(self, name, None) if name in self.http_method_names else None
        if handler is not None:
            setattr(self, name, partial(self._once, handler))
        elif self._unacceptable is not None:
            raise self._unacceptable

    def _once(
        self, handler: Callable[..., Any], request: Any, *args: Any, **kwargs: Any
    ) -> HttpResponseBase:
        inner: HttpRequest = request._request

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

        action = getattr(self, "action", None) or request.method.lower()
        endpoint = self._endpoint_of(action)
        if not self._is_protected(action):
            response = endpoint.pass_through(respond)
        else:
            _parse_parts(request)
            scope = _scope_of(request)  # Asks also an authentication that is lazy.
            if scope is not None and endpoint.scope is None and not settings.SCOPE:
                endpoint = replace(endpoint, scope=lambda _: scope)
            response = endpoint.answer(inner, respond, tell_kept)
            if is_replayed(inner):
                response = _with_data(cast(HttpResponse, response))
        # It is final already, and a replay is to stay as it is.
        self.finalize_response = lambda request, response, *args, **kwargs: response
        return response

    def is_key_required(self, method: str) -> bool | None:
        """Tell whether a request needs a key; None if its key would not be heeded."""
        action = getattr(self, "action", None) or method.lower()
        if not (self._is_protected(action) and is_heeded(method)):
            return None
        return self._endpoint_of(action).required and method in settings.METHODS

    def _is_protected(self, action: str) -> bool:
        return self.idempotent_actions is None or action in self.idempotent_actions

    def _endpoint_of(self, action: str) -> Endpoint:
        actions = self.idempotent_actions
        own = actions.get(action, {}) if isinstance(actions, Mapping) else {}
        options = {**self.idempotent_options, **own}
        kind = type(self)
        name = ".".join(filter(None, [kind.__module__, kind.__qualname__, action]))
        return endpoint_of(name, own_transactions=self._own_transactions, **options)

    @cached_property
    def _own_transactions(self) -> frozenset[str]:
        return frozenset(getattr(type(self).dispatch, "_non_atomic_requests", ()))


def _parse_parts(request: Any) -> None:
    """Let the framework read a multipart body: Django itself does so for POST only."""
    inner: HttpRequest = request._request
    if _is_keyed(inner) and inner.content_type == "multipart/form-data":
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


class Replay(HttpResponse):
    """A replay, of which tests may ask `data` as of the first answer."""

    @cached_property
    def data(self) -> Any:
        """Give what the body says if it is JSON, else None."""
        if "json" not in self.get("Content-Type", ""):
            return None
        return json.loads(self.content) if self.content else None


def _with_data(response: HttpResponse) -> Replay:
    replay = Replay(response.content, status=response.status_code)
    replay.headers = response.headers
    return replay


def _is_keyed(request: HttpRequest) -> bool:
    return is_unsafe(request) and meta_name(settings.HEADER) in request.META
