"""requests: an adapter that gives requests a key, and repeats them under it."""

from __future__ import annotations

import time
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.utils import rewind_body

from .retrying import Retries, is_of_a_certificate, new_key

BROKEN = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
)
"""What may have another end the next time."""


class IdempotentAdapter(HTTPAdapter):
    """
    Gives each request that is not safe a key, and sends it again until there is an answer.

    For `session.mount("https://", IdempotentAdapter())`. A request that has a key keeps it, so that
    an intent that outlives its process is still the same. What is sent is repeated if the
    connection breaks, or if the answer allows it (`retry.same_key`, `Retry-After`); and if its body
    can be read again.
    """

    __attrs__ = [*HTTPAdapter.__attrs__, "retries"]  # noqa: RUF012 - as its base has it.

    def __init__(self, retries: Retries | None = None, **options: Any) -> None:
        self.retries = retries or Retries()
        super().__init__(**options)

    def send(
        self, request: requests.PreparedRequest, stream: bool = False, *args: Any, **kwargs: Any
    ) -> requests.Response:
        if self.retries.needs_key(request.method or "", request.headers):
            request.headers[self.retries.header] = new_key()
        sent = 0
        while True:
            sent += 1
            try:
                response = super().send(request, stream, *args, **kwargs)
                if self._may_read(request, response, is_stream=stream):
                    response.content  # noqa: B018 - it may break off, and is kept by being read.
            except requests.exceptions.ContentDecodingError:
                status, headers = response.status_code, response.headers
                pause = self.retries.pause_after(sent, status, headers, b"")
                if pause is None:
                    raise
            except BROKEN as error:
                pause = self._pause_after_break(request, sent, error)
                if pause is None:
                    raise
            else:
                pause = self._pause_after(request, sent, response)
                if pause is None:
                    return response
            time.sleep(pause)
            _rewind(request)

    def _pause_after_break(
        self, request: requests.PreparedRequest, sent: int, error: Exception
    ) -> float | None:
        may_repeat = self._may_repeat(request) and not is_of_a_certificate(error)
        return self.retries.pause_after(sent, None, {}, b"") if may_repeat else None

    def _pause_after(
        self, request: requests.PreparedRequest, sent: int, response: requests.Response
    ) -> float | None:
        status = response.status_code
        if not (self._may_repeat(request) and self.retries.may_ask(status)):
            return None
        return self.retries.pause_after(sent, status, response.headers, response.content)

    def _may_read(
        self, request: requests.PreparedRequest, response: requests.Response, *, is_stream: bool
    ) -> bool:
        is_asking = self.retries.may_ask(response.status_code)
        return self._may_repeat(request) and (is_asking or not is_stream)

    def _may_repeat(self, request: requests.PreparedRequest) -> bool:
        return self.retries.header in request.headers and _is_repeatable(request)


def _is_repeatable(request: requests.PreparedRequest) -> bool:
    # A file is at the place where its reading began; a generator is at its end.
    is_known = isinstance(request.body, bytes | str | None)
    return is_known or isinstance(getattr(request, "_body_position", None), int)


def _rewind(request: requests.PreparedRequest) -> None:
    if not isinstance(request.body, bytes | str | None):
        rewind_body(request)
