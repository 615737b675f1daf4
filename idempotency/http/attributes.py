"""What views tell the middleware outside by attributes of a response, and not by headers."""

from __future__ import annotations

import json
from typing import Any

from django.http import HttpResponseBase
from django.utils.functional import Promise

NAME = ""
"""The name under which they are kept among the headers: no header has it."""

EXEMPT = "xframe_options_exempt"
POLICY = "_csp_"
"""What the names begin with that decorators for a Content-Security-Policy set."""


def kept_attributes(response: HttpResponseBase) -> list[list[str]]:
    """Give what is kept of the attributes of *response*, as headers are."""
    values = {
        name: value
        for name, value in vars(response).items()
        if (name == EXEMPT or name.startswith(POLICY)) and _is_plain(value)
    }
    return [[NAME, json.dumps(values, default=_plain)]] if values else []


def set_attributes(response: HttpResponseBase, kept: str | None) -> None:
    """Give *response* the attributes that were *kept*."""
    for name, value in json.loads(kept or "{}").items():
        setattr(response, name, value)


def _is_plain(value: Any) -> bool:
    try:
        json.dumps(value, default=_plain)
    except (TypeError, ValueError):
        return False
    return True


def _plain(value: Any) -> Any:
    if isinstance(value, Promise):  # A string that is lazy, as of reverse_lazy().
        return str(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError
