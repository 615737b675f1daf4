"""What views tell the middleware outside by attributes of a response, and not by headers."""

from __future__ import annotations

import json
from typing import Any

from django.http import HttpResponseBase

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
    return [[NAME, json.dumps(values, default=list)]] if values else []


def set_attributes(response: HttpResponseBase, kept: str | None) -> None:
    """Give *response* the attributes that were *kept*."""
    for name, value in json.loads(kept or "{}").items():
        setattr(response, name, value)


def _is_plain(value: Any) -> bool:
    try:
        json.dumps(value, default=list)
    except (TypeError, ValueError):
        return False
    return True
