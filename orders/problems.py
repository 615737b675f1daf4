"""Refusals as answers: what went wrong, as `application/problem+json` (RFC 9457)."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from http import HTTPStatus
from typing import Any, Concatenate, ParamSpec

from django.http import HttpRequest, HttpResponse, JsonResponse

from idempotency import IdempotencyError
from idempotency.http import problem_response

from .forms import BadInput
from .models import NotDue, NotPaid, Order, OutOfStock, Unchangeable

P = ParamSpec("P")
View = Callable[Concatenate[HttpRequest, P], HttpResponse]

STATUS: dict[type[Exception], HTTPStatus] = {
    BadInput: HTTPStatus.BAD_REQUEST,
    Order.DoesNotExist: HTTPStatus.NOT_FOUND,
    OutOfStock: HTTPStatus.CONFLICT,
    NotDue: HTTPStatus.CONFLICT,
    NotPaid: HTTPStatus.CONFLICT,
    Unchangeable: HTTPStatus.CONFLICT,
}


def answer_refusals(view: View[P]) -> View[P]:
    """Turn each refusal that *view* raises into the answer that `STATUS` has for it."""

    @wraps(view)
    def answer(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
        try:
            return view(request, *args, **kwargs)
        except tuple(STATUS) as refusal:
            return problem(STATUS[type(refusal)], refusal)
        except IdempotencyError as error:
            return problem_response(error)

    return answer


def problem(status: HTTPStatus, refusal: Exception) -> JsonResponse:
    """Describe *refusal* to a client; the errors of single fields come along."""
    content: dict[str, Any] = {
        "type": "about:blank",
        "title": status.phrase,
        "status": status,
        "detail": str(refusal),
    }
    if isinstance(refusal, BadInput) and refusal.errors:
        content["errors"] = refusal.errors
    return JsonResponse(content, status=status, content_type="application/problem+json")
