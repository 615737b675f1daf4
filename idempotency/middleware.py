"""Protection of every view, for requests that carry a key."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial, update_wrapper
from typing import Any, TypeVar

from asgiref.sync import async_to_sync, iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponseBase
from django.template.response import SimpleTemplateResponse
from django.urls import URLPattern, URLResolver

from .conf import settings
from .exceptions import IdempotencyError
from .http import Endpoint, problem_response
from .http.arriving import meta_name
from .http.placement import is_settled, name_of_view, refuse_inner_authentication
from .http.requests import SAFE, is_unsafe
from .http.transactions import own_transactions_of
from .policy import Policy

View = TypeVar("View", bound=Callable[..., Any] | tuple[Any, Any, Any])


class IdempotencyMiddleware:
    """
    Make every request that carries a key take effect once, and tell our errors as problems.

    Put it last, so that a replay is authenticated and checked for CSRF like a first request. A
    view with a decorator of its own keeps that one's options, and one with `not_idempotent` is left
    alone.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        if not apps.is_installed("idempotency"):
            raise ImproperlyConfigured(
                'IdempotencyMiddleware needs "idempotency" in INSTALLED_APPS.'
            )
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        if self.is_async:
            return self._acall(request)
        response = self.get_response(request)
        _raise_what_was_hidden(request)
        return response

    async def _acall(self, request: HttpRequest) -> Any:
        response = await self.get_response(request)
        _raise_what_was_hidden(request)
        return response

    @property
    def process_view(self) -> Callable[..., Any]:
        return self._aprocess_view if self.is_async else self._process_view

    def process_exception(
        self, request: HttpRequest, exception: Exception
    ) -> HttpResponseBase | None:
        return problem_response(exception) if isinstance(exception, IdempotencyError) else None

    def _process_view(
        self, request: HttpRequest, view: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> HttpResponseBase | None:
        if not _is_keyed(request, view):
            return None
        endpoint, respond = _endpoint(view), partial(view, request, *args, **kwargs)
        serve = async_to_sync(endpoint.aserve) if iscoroutinefunction(view) else endpoint.serve
        try:
            return serve(request, respond)
        except Exception as error:
            return _Raised(request, error)

    async def _aprocess_view(
        self, request: HttpRequest, view: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> HttpResponseBase | None:
        if not _is_keyed(request, view):
            return None
        endpoint, respond = _endpoint(view), partial(view, request, *args, **kwargs)
        serve = endpoint.aserve if iscoroutinefunction(view) else sync_to_async(endpoint.serve)
        try:
            return await serve(request, respond)
        except Exception as error:
            return _Raised(request, error)


_RAISED = "idempotency_raised"
"""The attribute of a request for what its view raised, until it is raised again."""


class _Raised(SimpleTemplateResponse):
    """
    What a view raised, to be raised again where Django renders.

    There it asks the `process_exception` of each middleware, as it does around a view; it asks
    nobody about what comes out of a `process_view`.
    """

    def __init__(self, request: HttpRequest, error: Exception) -> None:
        super().__init__("idempotency", context={}, status=500)
        self._idempotency_request = request
        setattr(request, _RAISED, error)

    def render(self) -> Any:
        _raise_what_was_hidden(self._idempotency_request)


def _raise_what_was_hidden(request: HttpRequest) -> None:
    """Raise what the view raised, if it was not yet: a middleware may have put a page over it."""
    error = request.__dict__.pop(_RAISED, None)
    if error is not None:
        try:
            raise error
        finally:
            del error


def not_idempotent(view: View) -> View:
    """
    Let the middleware leave *view* alone: a key that comes with its requests is not heeded.

    For functions, for `dispatch` of a class (through `method_decorator`), for what `as_view()`
    gives, and for what `include()` gives, whose views are left alone at those URLs.
    """
    if isinstance(view, tuple):
        for pattern in _patterns_of(getattr(view[0], "urlpatterns", view[0])):
            apart = update_wrapper(partial(pattern.callback), pattern.callback)
            pattern.callback = not_idempotent(apart)
        return view
    if isinstance(view, type) or not callable(view):
        raise TypeError(f"not_idempotent marks functions, not {view!r}.")
    view.not_idempotent = True  # type: ignore[attr-defined]
    return view


def _patterns_of(patterns: Sequence[URLPattern | URLResolver]) -> Iterator[URLPattern]:
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            yield from _patterns_of(pattern.url_patterns)
        else:
            yield pattern


def _is_keyed(request: HttpRequest, view: Any) -> bool:
    """Whether the request is to be protected here: by its key, and by nobody else."""
    if meta_name(settings.HEADER) not in request.META or is_settled(view, request.method):
        return False
    return request.method not in SAFE and is_unsafe(request)


def _endpoint(view: Any) -> Endpoint:
    refuse_inner_authentication(view)
    return Endpoint(
        policy=Policy(),
        required=False,
        view_name=name_of_view(view),
        own_transactions=own_transactions_of(view),
    )
