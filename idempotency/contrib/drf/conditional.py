"""Views of versioned rows: ETag out, If-Match in."""

from __future__ import annotations

from typing import Any

from django.http import Http404, HttpResponseBase
from rest_framework.views import set_rollback

from ...conditional import admit, answer_to, condition_of, etag_for
from ...exceptions import PreconditionFailed, StaleObject
from ...http.etags import IfMatch
from ...optimistic import VersionedModel
from .errors import ProblemMixin


class ConditionalMixin(ProblemMixin):
    """
    Let clients change only the version of a row that they have seen.

    Name it before the class of the framework. `get_object()` asks `If-Match`; answers about one row
    have its `ETag`. A change that came in between is told by 412 as well.
    """

    if_match_required = True
    """Whether a request that is not safe is answered 428 if it has no `If-Match`."""

    _condition: IfMatch | None = None
    _row: Any = None

    @property
    def is_conditional(self) -> bool:
        """Whether the client has named the version that it means, as the row still is."""
        return self._condition is not None

    def get_object(self) -> Any:
        request = self.request._request
        self._condition = condition_of(request, required=self.if_match_required)
        try:
            row = super().get_object()
        except Http404 as error:
            if self._condition is None:
                raise
            raise PreconditionFailed from error
        etag_for(row)  # Tells of a row without a version, whatever the condition.
        self._row = row
        admit(row, self._condition)
        return row

    def perform_create(self, serializer: Any) -> None:
        super().perform_create(serializer)
        self._row = serializer.instance

    def handle_exception(self, error: Exception) -> HttpResponseBase:
        if isinstance(error, StaleObject) and self._row is not None:
            set_rollback()
            return answer_to(error, self._row, self._condition)
        response: HttpResponseBase = super().handle_exception(error)
        return response

    def finalize_response(self, *args: Any, **kwargs: Any) -> Any:
        response = super().finalize_response(*args, **kwargs)
        is_shown = isinstance(self._row, VersionedModel) and not self._row._state.adding
        is_about_it = is_shown and self.request.method != "DELETE"
        is_successful = 200 <= response.status_code < 300
        if is_about_it and is_successful and not response.has_header("ETag"):
            response["ETag"] = etag_for(self._row)
        return response
