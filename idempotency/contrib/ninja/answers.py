"""What the API of an operation answers to a result or an error, asked before Ninja would."""

from __future__ import annotations

from typing import Any

from django.core.handlers.exception import response_for_exception
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from ninja.operation import Operation

from ...exceptions import IdempotencyError
from ...http import problem_response


def response_of(
    operation: Operation, request: HttpRequest, result: Any, prepared: HttpResponse
) -> HttpResponseBase:
    # Ninja has no public name for that: a result is to be an answer while it can be undone.
    return operation._result_to_response(request, result, prepared)


def told(operation: Operation, error: IdempotencyError) -> HttpResponseBase:
    """Tell *error* as a problem, unless the API has a handler for it, which Ninja will ask."""
    # Ninja has no public name for that either: its own handler of every Exception makes it a 500.
    handled = operation.api._exception_handlers
    if any(issubclass(kind, IdempotencyError) and isinstance(error, kind) for kind in handled):
        raise error
    return problem_response(error)


def kept_answer(operation: Operation, request: HttpRequest, error: Exception) -> HttpResponseBase:
    """Tell an error of the function as its API does, and one without a handler as Django does."""
    try:
        return operation.api.on_exception(request, error)
    except Exception as uncaught:
        return response_for_exception(request, uncaught)
