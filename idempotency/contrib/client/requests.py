"""requests: an adapter that gives requests a key, and repeats them under it."""

from __future__ import annotations

import time
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.utils import rewind_body

from .retrying import Retries, new_key


class IdempotentAdapter(HTTPAdapter):
    """
    Gives each request that is not safe a key, and sends it again until there is an answer.

    For `session.mount("https://", IdempotentAdapter())`. A request that has a key keeps it, so that
    an intent that outlives its process is still the same. What is sent is repeated if the
    connection breaks, if the answer allows it (`retry.same_key`, `Retry-After`), and if its body
    can be read again.
    """

    def __init__(self, retries: Retries | None = None, **options: Any) -> None:
        self.retries = retries or Retries()
        super().__init__(**options)

    def send(
        self, request: requests.PreparedRequest, *args: Any, **kwargs: Any
    ) -> requests.Response:
        if self.retries.needs_key(request.method or "", request.headers):
            request.headers[self.retries.header] = new_key()
        sent = 0
        while True:
            sent += 1
            response = None
            try:
                response = super().send(request, *args, **kwargs)
            except (requests.ConnectionError, requests.Timeout):
                pause = self._pause(request, sent, None)
                if pause is None:
                    raise
            else:
                pause = self._pause(request, sent, response)
                if pause is None:
                    return response
            time.sleep(pause)
            _rewind(request)

    def _pause(
        self, request: requests.PreparedRequest, sent: int, response: requests.Response | None
    ) -> float | None:
        if self.retries.header not in request.headers or not _is_repeatable(request):
            return None
        if response is None:
            return self.retries.pause_after(sent, None, {}, b"")
        if response.status_code < 400:
            return None
        return self.retries.pause_after(
            sent, response.status_code, response.headers, response.content
        )


def _is_repeatable(request: requests.PreparedRequest) -> bool:
    # A file is at the place where its reading began; a generator is at its end.
    is_known = isinstance(request.body, bytes | str | None)
    return is_known or isinstance(getattr(request, "_body_position", None), int)


def _rewind(request: requests.PreparedRequest) -> None:
    if not isinstance(request.body, bytes | str | None):
        rewind_body(request)
