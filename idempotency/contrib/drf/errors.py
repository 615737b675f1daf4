"""Our errors as Django REST framework tells errors."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from django.http import HttpResponseBase
from rest_framework.views import exception_handler as default_handler
from rest_framework.views import set_rollback

from ...exceptions import IdempotencyError
from ...http import problem_response
from .answers import with_data
from .order import FirstMixin

if TYPE_CHECKING:
    from rest_framework.views import APIView as Base
else:
    Base = object


class ProblemMixin(FirstMixin, Base):  # type: ignore[misc]
    """Asks the handler of the project about our errors, and tells those that it leaves."""

    def handle_exception(self, error: Exception) -> HttpResponseBase:
        told: HttpResponseBase | None
        if not isinstance(error, IdempotencyError):
            told = super().handle_exception(error)
            return told
        handler = self.get_exception_handler()
        told = handler(error, self.get_exception_handler_context())
        # Handlers that tell all errors tell those by 500 which they do not know.
        is_unknown = told is None or told.status_code == HTTPStatus.INTERNAL_SERVER_ERROR
        response: Any = tell(error) if is_unknown else told
        response.exception = True
        return response  # type: ignore[no-any-return]


def exception_handler(error: Exception, context: Mapping[str, Any]) -> HttpResponseBase | None:
    """
    Tell the errors of this app as problems, and all others as the framework does.

    For `REST_FRAMEWORK = {"EXCEPTION_HANDLER": "idempotency.contrib.drf.exception_handler"}`, which
    views without `IdempotentMixin` need.
    """
    if isinstance(error, IdempotencyError):
        return tell(error)
    response: HttpResponseBase | None = default_handler(error, context)
    return response


def tell(error: IdempotencyError) -> HttpResponseBase:
    """Give the problem that tells *error*, and have what the request wrote rolled back."""
    set_rollback()
    return with_data(problem_response(error))
