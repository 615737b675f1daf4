"""What the OpenAPI schema says of a protected operation."""

from __future__ import annotations

from typing import Any

from ninja.operation import Operation
from ninja.params.models import Header

from ...http.schemas import header_parameter, problem_responses, replay_header


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
    """Give the problems and the header of a replay, beside what the operation itself answers."""
    own = {status for status in operation.response_models if isinstance(status, int)}
    said = {str(status) for status in (operation.openapi_extra or {}).get("responses", {})}
    added: dict[int, dict[str, Any]] = {
        status: {"headers": replay_header()} for status in own if 200 <= status < 300
    }
    # By numbers, as Ninja itself does: otherwise a status would stand there twice.
    for status, problem in ((int(text), problem) for text, problem in problem_responses().items()):
        added[status] = {"content": problem["content"]} if status in own else problem
    return {status: response for status, response in added.items() if str(status) not in said}
