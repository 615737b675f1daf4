"""Our errors as answers of an API."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from ninja import NinjaAPI

from ...exceptions import IdempotencyError
from ...http import problem_response


def add_exception_handlers(api: NinjaAPI) -> None:
    """Let *api* tell the errors of this app as problems, whichever operation raises them."""
    api.add_exception_handler(IdempotencyError, tell)


def tell(request: HttpRequest, error: Any) -> HttpResponse:
    return problem_response(error)
