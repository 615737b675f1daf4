"""What the OpenAPI schema says of a protected operation."""

from __future__ import annotations

from typing import Any

from ninja.operation import Operation

from ...http.schemas import header_parameter, problem_responses


def describe(operation: Operation, *, is_required: bool) -> None:
    """Add the header and the problems to what the schema says of *operation*."""
    extra: dict[str, Any] = dict(operation.openapi_extra or {})
    extra["parameters"] = [*extra.get("parameters", []), header_parameter(is_required=is_required)]
    extra["responses"] = {**problem_responses(), **extra.get("responses", {})}
    operation.openapi_extra = extra
