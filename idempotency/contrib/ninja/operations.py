"""Operations, protected where both who calls and what is answered are known."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial, wraps
from typing import Any, TypeVar, overload

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from ninja.decorators import decorate_view
from ninja.operation import Operation
from ninja.signature.utils import get_typed_signature
from ninja.utils import contribute_operation_callback

from ...conf import settings
from ...exceptions import IdempotencyError
from ...http import Endpoint
from ...http.arriving import meta_name
from ...http.options import endpoint_of
from ...http.principals import is_anybody, scope_of_principal
from .answers import kept_answer, response_of, told
from .schemas import describe

View = TypeVar("View", bound=Callable[..., Any])

RESPONSE = "idempotency_response"
"""The argument by which an operation gets the response that Ninja prepares."""

_GUARDED = "idempotent_operation"
"""The attribute of a request whose operation is run by what protects it, in whichever thread."""


@overload
def idempotent_operation(view: View, /) -> View: ...


@overload
def idempotent_operation(**options: Any) -> Callable[[View], View]: ...


def idempotent_operation(view: Any = None, /, **options: Any) -> Any:
    """
    Let each idempotency key make the operation take effect once, and replay its answer after that.

    Stands below the decorator of the API, next to the function: `@api.post("/orders")`, then
    `@idempotent_operation`. It works after authentication and throttling, which a replay goes
    through as well, and after validation. Keys belong to what authentication returns: a user,
    another model's object, or a token. An error that is raised rolls back what was written.

    Args:
        options: those of `idempotent_view`.

    Raises: `TypeError` or `ValueError`, when decorating, for what cannot be protected.
    """

    def decorate(view: Any) -> Any:
        return _protected(view, options)

    return decorate if view is None else decorate(view)


def _protected(view: Any, options: dict[str, Any]) -> Any:
    if hasattr(view, "_ninja_operation"):
        raise TypeError("idempotent_operation stands below @api.post(…), next to the function.")
    if not callable(view) or inspect.isgeneratorfunction(view) or inspect.isasyncgenfunction(view):
        raise TypeError(f"idempotent_operation protects functions that return, not {view!r}.")
    guard = _Guard(view, options)
    is_async = iscoroutinefunction(view)
    if is_async:
        guard.endpoint.policy.refuse_async()

    @wraps(view)
    def protected(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        if isinstance(request, HttpRequest) and not getattr(request, _GUARDED, False):
            raise TypeError(
                f"{guard.endpoint.view_name} was called by something that hides it from Ninja, such"
                " as a decorator without functools.wraps: it would not be protected. Nothing was"
                " run. To call the function by itself, call its __wrapped__."
            )
        return view(request, *args, **kwargs)

    if is_async:
        markcoroutinefunction(protected)
    protected.__signature__ = guard.signature  # type: ignore[attr-defined]
    protected.idempotent_endpoint = guard.endpoint  # type: ignore[attr-defined]
    contribute_operation_callback(protected, partial(_join, protected, guard.endpoint))
    return decorate_view(guard.surround)(protected)


def _join(protected: Any, endpoint: Endpoint, operation: Operation) -> None:
    """Become part of *operation*, if nothing stands between that would get our answer."""
    if operation.view_func is not protected:
        raise TypeError(
            f"A decorator stands above idempotent_operation on {endpoint.view_name}, and would get"
            " a replay in place of a result. Put it below, where its work is part of what takes"
            " effect once, or, if it handles responses, into decorate_view(…). A controller of"
            " django-ninja-extra is one as well: call run_once in its methods."
        )
    if getattr(operation, "stream_format", None) is not None:
        raise TypeError(f"{endpoint.view_name} streams its answer, which cannot be protected.")
    describe(operation, is_required=endpoint.required)


class _Guard:
    """What one protected function needs at each call."""

    def __init__(self, view: Any, options: dict[str, Any]) -> None:
        name = getattr(view, "__qualname__", "") or getattr(view, "__name__", "operation")
        self.endpoint = endpoint_of(f"{view.__module__}.{name}", **options)
        self.of_principals = replace(self.endpoint, scope=_scope_of)
        self.signature, self.name = _with_response(view)
        self.is_own = self.name != RESPONSE
        """Whether the function itself asks for the response."""

    def surround(self, run: Callable[..., Any]) -> Callable[..., Any]:
        """
        Protect the function of the operation that *run* belongs to, before it is run first.

        Only then it has the decorators of its API and routers, of which each may be part of
        several: what they make of a result belongs to the answer.
        """
        operation = getattr(inspect.unwrap(run), "__self__", None)
        if not isinstance(operation, Operation):
            raise TypeError(
                f"A decorator of the view around {self.endpoint.view_name} hides what it decorates:"
                " it needs functools.wraps."
            )

        @wraps(run)
        def surrounded(request: HttpRequest, **kwargs: Any) -> Any:
            view = operation.view_func  # Read once: another thread may replace it meanwhile.
            if getattr(view, "idempotent_guard", None) is not self:
                operation.view_func = self._around(operation, view)
            _read_headers(request)
            return run(request, **kwargs)

        if iscoroutinefunction(run):
            markcoroutinefunction(surrounded)
        return surrounded

    def _around(self, operation: Operation, view: Any) -> Any:
        run = partial(self._arun if operation.is_async else self._run, operation)

        @wraps(view)
        def once(request: HttpRequest, **kwargs: Any) -> Any:
            prepared = kwargs[self.name] if self.is_own else kwargs.pop(self.name)
            return run(request, prepared, partial(view, request, **kwargs))

        once.idempotent_guard = self  # type: ignore[attr-defined]
        return once

    def _run(
        self, operation: Operation, request: HttpRequest, prepared: Any, view: Callable[[], Any]
    ) -> HttpResponseBase:
        def respond() -> HttpResponseBase:
            with _guarded(request):
                return response_of(operation, request, view(), prepared)

        tell = partial(kept_answer, operation)
        try:
            return self._endpoint(request).answer(request, respond, tell)
        except IdempotencyError as error:
            return told(operation, error)

    async def _arun(
        self, operation: Operation, request: HttpRequest, prepared: Any, view: Callable[[], Any]
    ) -> HttpResponseBase:
        async def respond() -> HttpResponseBase:
            with _guarded(request):
                return response_of(operation, request, await view(), prepared)

        tell = partial(kept_answer, operation)
        try:
            return await self._endpoint(request).aanswer(request, respond, tell)
        except IdempotencyError as error:
            return told(operation, error)

    def _endpoint(self, request: HttpRequest) -> Endpoint:
        is_named = self.endpoint.scope is not None or settings.SCOPE
        is_nobody = is_anybody(getattr(request, "auth", None))
        return self.endpoint if is_named or is_nobody else self.of_principals


@contextmanager
def _guarded(request: HttpRequest) -> Iterator[None]:
    setattr(request, _GUARDED, True)
    try:
        yield
    finally:
        setattr(request, _GUARDED, False)


def _scope_of(request: HttpRequest) -> str:
    return scope_of_principal(request.auth)  # type: ignore[attr-defined]


def _read_headers(request: HttpRequest) -> None:
    """Let the key be found that Ninja's test client gives, which spells its names in META so."""
    name = meta_name(settings.HEADER)
    if name not in request.META and settings.HEADER in request.headers:
        request.META[name] = request.headers[settings.HEADER]


def _with_response(view: Any) -> tuple[inspect.Signature, str]:
    """Give the signature by which Ninja also gives its response, and that argument's name."""
    try:
        # Read where the function is: Ninja would look the names up where its wrapper is.
        signature = inspect.signature(view, eval_str=True)
    except (NameError, AttributeError, TypeError):  # Of what only type checkers know.
        signature = get_typed_signature(view)
    for name, parameter in signature.parameters.items():
        if parameter.annotation is HttpResponse:
            return signature, name
    response = inspect.Parameter(RESPONSE, inspect.Parameter.KEYWORD_ONLY, annotation=HttpResponse)
    given = list(signature.parameters.values())
    place = len(given) - any(one.kind is inspect.Parameter.VAR_KEYWORD for one in given)
    return signature.replace(parameters=[*given[:place], response, *given[place:]]), RESPONSE
