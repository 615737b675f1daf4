"""httpx: transports that give requests a key, and repeat them under it."""

from __future__ import annotations

import asyncio
import time

import httpx

from .retrying import Retries, new_key


class IdempotentTransport(httpx.BaseTransport):
    """
    Gives each request that is not safe a key, and sends it again until there is an answer.

    For `httpx.Client(transport=IdempotentTransport())`. A request that has a key keeps it, so that
    an intent that outlives its process is still the same. What is sent is repeated if the
    connection breaks, if the answer allows it (`retry.same_key`, `Retry-After`), and if its body
    can be read again.
    """

    def __init__(
        self, transport: httpx.BaseTransport | None = None, retries: Retries | None = None
    ) -> None:
        self.transport = transport or httpx.HTTPTransport()
        self.retries = retries or Retries()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        _give_key(self.retries, request)
        sent = 0
        while True:
            sent += 1
            try:
                response = self.transport.handle_request(request)
            except httpx.TransportError:
                pause = _pause(self.retries, request, sent, None)
                if pause is None:
                    raise
            else:
                if not _may_be_read(self.retries, request, response):
                    return response
                response.read()
                pause = _pause(self.retries, request, sent, response)
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
        _give_key(self.retries, request)
        sent = 0
        while True:
            sent += 1
            try:
                response = await self.transport.handle_async_request(request)
            except httpx.TransportError:
                pause = _pause(self.retries, request, sent, None)
                if pause is None:
                    raise
            else:
                if not _may_be_read(self.retries, request, response):
                    return response
                await response.aread()
                pause = _pause(self.retries, request, sent, response)
                if pause is None:
                    return response
            await asyncio.sleep(pause)

    async def aclose(self) -> None:
        await self.transport.aclose()


def _give_key(retries: Retries, request: httpx.Request) -> None:
    if retries.needs_key(request.method, request.headers):
        request.headers[retries.header] = new_key()


def _may_be_read(retries: Retries, request: httpx.Request, response: httpx.Response) -> bool:
    """Whether the answer may ask for a repetition: any other one is left to its stream."""
    return retries.header in request.headers and response.status_code >= 400


def _pause(
    retries: Retries, request: httpx.Request, sent: int, response: httpx.Response | None
) -> float | None:
    if retries.header not in request.headers or not _is_repeatable(request):
        return None
    if response is None:
        return retries.pause_after(sent, None, {}, b"")
    return retries.pause_after(sent, response.status_code, response.headers, response.content)


def _is_repeatable(request: httpx.Request) -> bool:
    # What was given as bytes, text, form or JSON; a generator is at its end once it was sent.
    return isinstance(request.stream, httpx.ByteStream)
