"""httpx: transports that give requests a key, and repeat them under it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterable, Iterable
from typing import cast

import anyio
import httpx

from .retrying import Retries, is_of_a_certificate, new_key

BROKEN = (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError, httpx.ProxyError)
"""What may have another end the next time."""

LONGEST_READ = 1024 * 1024
"""Bytes of the longest body that is read at once, before it is sent or given to the caller."""


class IdempotentTransport(httpx.BaseTransport):
    """
    Gives each request that is not safe a key, and sends it again until there is an answer.

    For `httpx.Client(transport=IdempotentTransport())`. A request that has a key keeps it, so that
    an intent that outlives its process is still the same. What is sent is repeated if the
    connection breaks, or if the answer allows it (`retry.same_key`, `Retry-After`); and if its body
    can be read again.
    """

    def __init__(
        self, transport: httpx.BaseTransport | None = None, retries: Retries | None = None
    ) -> None:
        self.transport = transport or httpx.HTTPTransport()
        self.retries = retries or Retries()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if _is_short_form(request, Iterable):
            request.read()
        sending = _Sending(self.retries, request)
        while True:
            raw = None
            try:
                response = self.transport.handle_request(request)
                if sending.may_read(response):
                    raw = _read(response)
            except BROKEN as error:
                pause = sending.pause_after_break(error)
                if pause is None:
                    raise
            else:
                pause = sending.pause_after(response, raw)
                if pause is None:
                    return response
            time.sleep(pause)

    def close(self) -> None:
        self.transport.close()


class AsyncIdempotentTransport(httpx.AsyncBaseTransport):
    """The same for `httpx.AsyncClient`."""

    def __init__(
        self, transport: httpx.AsyncBaseTransport | None = None, retries: Retries | None = None
    ) -> None:
        self.transport = transport or httpx.AsyncHTTPTransport()
        self.retries = retries or Retries()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if _is_short_form(request, AsyncIterable):
            await request.aread()
        sending = _Sending(self.retries, request)
        while True:
            raw = None
            try:
                response = await self.transport.handle_async_request(request)
                if sending.may_read(response):
                    raw = await _aread(response)
            except BROKEN as error:
                pause = sending.pause_after_break(error)
                if pause is None:
                    raise
            else:
                pause = sending.pause_after(response, raw)
                if pause is None:
                    return response
            await anyio.sleep(pause)

    async def aclose(self) -> None:
        await self.transport.aclose()


class _Sending:
    """One request, from its first attempt to its last."""

    def __init__(self, retries: Retries, request: httpx.Request) -> None:
        if retries.needs_key(request.method, request.headers):
            request.headers[retries.header] = new_key()
        self.retries = retries
        # What was given as bytes, text, form or JSON; a generator is at its end once it was sent.
        is_repeatable = isinstance(request.stream, httpx.ByteStream)
        self.may_repeat = is_repeatable and retries.header in request.headers
        self.sent = 0

    def may_read(self, response: httpx.Response) -> bool:
        """
        Whether the body is read here, where the request can be sent again if it breaks off.

        That of a stream, which names no length, is left to the caller.
        """
        is_short = _is_short(response.headers)
        return self.may_repeat and (is_short or self.retries.may_ask(response.status_code))

    def pause_after_break(self, error: Exception) -> float | None:
        """Give the seconds after which to send it again, if no whole answer came, or None."""
        self.sent += 1
        if not self.may_repeat or is_of_a_certificate(error):
            return None
        return self.retries.pause_after(self.sent, None, {}, b"")

    def pause_after(self, response: httpx.Response, raw: bytes | None) -> float | None:
        """Give the seconds after which to send it again because of *response*, or None."""
        self.sent += 1
        status, headers = response.status_code, response.headers
        if raw is None or not self.retries.may_ask(status):
            return None
        return self.retries.pause_after(self.sent, status, headers, _decoded(response, raw))


def _is_short(headers: httpx.Headers) -> bool:
    length = headers.get("Content-Length", "")
    return length.isdecimal() and int(length) <= LONGEST_READ


def _is_short_form(request: httpx.Request, readable: type[object]) -> bool:
    """Whether the body is in parts that are to be put together, so that it can be sent again."""
    is_whole = isinstance(request.stream, httpx.ByteStream)
    return not is_whole and isinstance(request.stream, readable) and _is_short(request.headers)


def _read(response: httpx.Response) -> bytes:
    """Take the body from its connection, and leave it in *response* as if it were still to come."""
    stream = cast(httpx.SyncByteStream, response.stream)
    try:
        raw = b"".join(stream)
    finally:
        stream.close()
    response.stream = httpx.ByteStream(raw)
    return raw


async def _aread(response: httpx.Response) -> bytes:
    stream = cast(httpx.AsyncByteStream, response.stream)
    try:
        raw = b"".join([part async for part in stream])
    finally:
        await stream.aclose()
    response.stream = httpx.ByteStream(raw)
    return raw


def _decoded(response: httpx.Response, raw: bytes) -> bytes:
    try:
        return httpx.Response(200, headers=response.headers, content=raw).content
    except httpx.DecodingError:  # The caller is told; to us it says nothing.
        return b""
