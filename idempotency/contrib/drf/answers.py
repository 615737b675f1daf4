"""Answers that are no `Response`, with the `data` that code and tests of the framework ask for."""

from __future__ import annotations

import json
from functools import cached_property
from typing import Any

from django.http import HttpResponse, HttpResponseBase


class Answer(HttpResponse):
    """A replay or a problem: it is rendered already."""

    @cached_property
    def data(self) -> Any:
        """Give what the body says if it is JSON, else None."""
        if "json" not in self.get("Content-Type", ""):
            return None
        try:
            return json.loads(self.content) if self.content else None
        except ValueError:  # Of a kind that only sounds like it, such as lines of JSON.
            return None


def with_data(response: HttpResponseBase) -> HttpResponseBase:
    """Give the same answer with `data`; one that is streamed has none."""
    if not isinstance(response, HttpResponse):
        return response
    answer = Answer(response.content, status=response.status_code, reason=response.reason_phrase)
    answer.headers = response.headers
    answer.cookies = response.cookies
    return answer
