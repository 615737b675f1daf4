"""What the OpenAPI schema says of a protected operation."""

from __future__ import annotations

from typing import Any

from ninja.operation import Operation
from ninja.params.models import Header

from ...http.schemas import header_parameter, problem_responses


def describe(operation: Operation, *, is_required: bool) -> None:
    """Add the header and the problems to what the schema says of *operation*."""
    extra: dict[str, Any] = dict(operation.openapi_extra or {})
    extra["parameters"] = [*extra.get("parameters", []), *_parameters(operation, is_required)]
    extra["responses"] = {**_responses(operation), **extra.get("responses", {})}
    operation.openapi_extra = extra


def _parameters(operation: Operation, is_required: bool) -> list[dict[str, Any]]:
    """Give the header that carries the key, unless the function asks for it by itself."""
    parameter = header_parameter(is_required=is_required)
    own = {
        one.alias.lower() for one in operation.signature.params if isinstance(one.source, Header)
    }
    return [] if parameter["name"].lower() in own else [parameter]


def _responses(operation: Operation) -> dict[Any, Any]:
    """Give the problems, beside what the operation itself answers with their statuses."""
    said = {str(status) for status in (operation.openapi_extra or {}).get("responses", {})}
    return {
        # As a number, like Ninja's own, or the status would stand there twice.
        int(status): _beside(problem) if int(status) in operation.response_models else problem
        for status, problem in problem_responses().items()
        if status not in said
    }


def _beside(problem: dict[str, Any]) -> dict[str, Any]:
    return {"content": problem["content"]}
