"""Protection of every view, for requests that carry a key."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from asgiref.sync import async_to_sync, iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.http import HttpRequest, HttpResponseBase
from django.template.response import SimpleTemplateResponse
from django.urls import URLPattern, URLResolver

from .conf import settings
from .exceptions import IdempotencyError
from .http import Endpoint, problem_response
from .http.arriving import count_stream
from .http.placement import is_settled, name_of_view, refuse_inner_authentication
from .http.requests import SAFE, is_keyed, is_unsafe, meta_name
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
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        if is_keyed(request):
            count_stream(request)  # The check for CSRF may read a form before the view is called.
        return self.get_response(request)

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
            return _Raised(error)

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
            return _Raised(error)


class _Raised(SimpleTemplateResponse):
    """
    What a view raised, to be raised again where Django renders.

    There it asks the `process_exception` of each middleware, as it does around a view; it asks
    nobody about what comes out of a `process_view`.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(template=[], context={})
        self._error = error

    def render(self) -> Any:
        raise self._error


def not_idempotent(view: View) -> View:
    """
    Let the middleware leave *view* alone: a key that comes with its requests is not heeded.

    For functions, for `dispatch` of a class (through `method_decorator`), for what `as_view()`
    gives, and for all views of what `include()` gives.
    """
    if isinstance(view, tuple):
        for each in _views_of(getattr(view[0], "urlpatterns", view[0])):
            not_idempotent(each)
        return view
    if isinstance(view, type) or not callable(view):
        raise TypeError(f"not_idempotent marks functions, not {view!r}.")
    view.not_idempotent = True  # type: ignore[attr-defined]
    return view


def _views_of(patterns: Sequence[URLPattern | URLResolver]) -> Iterator[Callable[..., Any]]:
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            yield from _views_of(pattern.url_patterns)
        else:
            yield pattern.callback


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
