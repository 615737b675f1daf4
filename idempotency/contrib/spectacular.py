"""drf-spectacular: the schema of protected actions says so."""

from __future__ import annotations

from inspect import cleandoc
from typing import Any

from django.core.exceptions import ImproperlyConfigured

try:
    from drf_spectacular.openapi import AutoSchema as DefaultSchema
except ImportError as error:
    raise ImproperlyConfigured(
        "idempotency.contrib.spectacular needs drf-spectacular: pip install"
        " 'django-idempotency[spectacular]'."
    ) from error

from ..http.schemas import header_parameter, problem_responses, replay_header
from .drf import IdempotentMixin


class IdempotentSchemaMixin(DefaultSchema):
    """
    Adds the key's header, the problems and the replay's header to protected actions.

    For a schema class of your own; name it before `AutoSchema`.
    """

    def get_operation(self, *args: Any, **kwargs: Any) -> Any:
        operation = super().get_operation(*args, **kwargs)
        view = self.view
        is_required = (
            view.is_key_required(self.method) if isinstance(view, IdempotentMixin) else None
        )
        if operation and is_required is not None:
            _describe(operation, is_required=is_required)
        return operation

    def get_description(self) -> Any:
        description = super().get_description()
        # A view without a docstring has that of our mixin, which is for its authors.
        ours = (kind.__doc__ for kind in type(self.view).__mro__ if _is_ours(kind))
        return "" if description in map(cleandoc, filter(None, ours)) else description


def _is_ours(kind: type) -> bool:
    return kind.__module__.startswith("idempotency.")


class AutoSchema(IdempotentSchemaMixin):
    """The whole schema class, to be named as `DEFAULT_SCHEMA_CLASS` of `REST_FRAMEWORK`."""


def _describe(operation: dict[str, Any], *, is_required: bool) -> None:
    parameters = operation.setdefault("parameters", [])
    parameter = header_parameter(is_required=is_required)
    if parameter["name"].lower() not in {one["name"].lower() for one in parameters}:
        parameters.append(parameter)
    responses = operation["responses"]
    for status, response in responses.items():
        if status.startswith("2"):
            response["headers"] = {**replay_header(), **response.get("headers", {})}
    for status, problem in problem_responses().items():
        own = responses.setdefault(status, problem)
        own["content"] = {**problem["content"], **own.get("content", {})}
