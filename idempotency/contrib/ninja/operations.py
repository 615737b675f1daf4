"""Operations, protected where both who calls and what is answered are known."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import replace
from functools import partial, wraps
from typing import Any, TypeVar, overload

from asgiref.sync import iscoroutinefunction
from django.core.handlers.exception import response_for_exception
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from ninja.decorators import decorate_view
from ninja.operation import Operation
from ninja.utils import contribute_operation_callback

from ...conf import settings
from ...exceptions import IdempotencyError
from ...http import Endpoint, problem_response
from ...http.endpoint import endpoint_of
from ...http.principals import scope_of_principal
from .schemas import describe

View = TypeVar("View", bound=Callable[..., Any])

RESPONSE = "idempotency_response"
"""The argument by which an operation gets the response that Ninja prepares."""

_operation: ContextVar[Operation | None] = ContextVar("idempotency_operation", default=None)


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
    if iscoroutinefunction(view):
        guard.endpoint.policy.refuse_async()

        @wraps(view)
        async def protected(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            return await guard.arun(request, args, kwargs)

    else:

        @wraps(view)
        def protected(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            return guard.run(request, args, kwargs)

    protected.__signature__ = guard.signature  # type: ignore[attr-defined]
    protected.idempotent_endpoint = guard.endpoint  # type: ignore[attr-defined]
    contribute_operation_callback(protected, partial(describe, is_required=guard.endpoint.required))
    return decorate_view(_tell_operation)(protected)


def _tell_operation(run: Callable[..., Any]) -> Callable[..., Any]:
    """Let the function know of which operation it is run: a router may be part of several APIs."""
    operation: Operation = inspect.unwrap(run).__self__
    if iscoroutinefunction(run):

        @wraps(run)
        async def aknown(request: HttpRequest, **kwargs: Any) -> Any:
            reset = _operation.set(operation)
            try:
                return await run(request, **kwargs)
            finally:
                _operation.reset(reset)

        return aknown

    @wraps(run)
    def known(request: HttpRequest, **kwargs: Any) -> Any:
        reset = _operation.set(operation)
        try:
            return run(request, **kwargs)
        finally:
            _operation.reset(reset)

    return known


class _Guard:
    """What one protected function needs at each call."""

    def __init__(self, view: Any, options: dict[str, Any]) -> None:
        self.view = view
        self.endpoint = endpoint_of(f"{view.__module__}.{view.__qualname__}", **options)
        self.of_principals = replace(self.endpoint, scope=_scope_of)
        self.signature, self.name = _with_response(view)
        self.is_own = self.name != RESPONSE
        """Whether the function itself asks for the response."""

    def run(self, request: HttpRequest, args: Any, kwargs: dict[str, Any]) -> Any:
        operation, prepared, kwargs = self._of(kwargs)
        if operation is None:  # Somebody calls the function, and no request has come.
            return self.view(request, *args, **kwargs)

        def respond() -> HttpResponseBase:
            result = self.view(request, *args, **kwargs)
            return _response(operation, request, result, prepared)

        tell = partial(_tell, operation)
        try:
            return self._endpoint(request).answer(request, respond, tell)
        except IdempotencyError as error:
            return problem_response(error)

    async def arun(self, request: HttpRequest, args: Any, kwargs: dict[str, Any]) -> Any:
        operation, prepared, kwargs = self._of(kwargs)
        if operation is None:
            return await self.view(request, *args, **kwargs)

        async def respond() -> HttpResponseBase:
            result = await self.view(request, *args, **kwargs)
            return _response(operation, request, result, prepared)

        tell = partial(_tell, operation)
        try:
            return await self._endpoint(request).aanswer(request, respond, tell)
        except IdempotencyError as error:
            return problem_response(error)

    def _of(self, kwargs: dict[str, Any]) -> tuple[Operation | None, Any, dict[str, Any]]:
        prepared = kwargs.get(self.name)
        if not self.is_own:
            kwargs = {name: value for name, value in kwargs.items() if name != self.name}
        return (_operation.get() if prepared is not None else None), prepared, kwargs

    def _endpoint(self, request: HttpRequest) -> Endpoint:
        is_named = self.endpoint.scope is not None or settings.SCOPE
        return (
            self.endpoint
            if is_named or getattr(request, "auth", None) is None
            else self.of_principals
        )


def _scope_of(request: HttpRequest) -> str:
    return scope_of_principal(request.auth)  # type: ignore[attr-defined]


def _with_response(view: Any) -> tuple[inspect.Signature, str]:
    """Give the signature by which Ninja also gives its response, and that argument's name."""
    # Read where the function is: Ninja would look the names up where its wrapper is.
    signature = inspect.signature(view, eval_str=True)
    for name, parameter in signature.parameters.items():
        if parameter.annotation is HttpResponse:
            return signature, name
    response = inspect.Parameter(RESPONSE, inspect.Parameter.KEYWORD_ONLY, annotation=HttpResponse)
    given = list(signature.parameters.values())
    place = len(given) - any(one.kind is inspect.Parameter.VAR_KEYWORD for one in given)
    return signature.replace(parameters=[*given[:place], response, *given[place:]]), RESPONSE


def _response(
    operation: Operation, request: HttpRequest, result: Any, prepared: HttpResponse
) -> HttpResponseBase:
    # Ninja has no public name for that: a result is to be an answer while it can be undone.
    return operation._result_to_response(request, result, prepared)


def _tell(operation: Operation, request: HttpRequest, error: Exception) -> HttpResponseBase:
    """Tell an error of the function as its API does, and one without a handler as Django does."""
    try:
        return operation.api.on_exception(request, error)
    except Exception as uncaught:
        return response_for_exception(request, uncaught)
