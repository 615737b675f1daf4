"""Which responses are kept, and how they are given again."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from itertools import chain
from typing import Any, cast

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.http import FileResponse, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.utils.translation import get_language

from ..codecs import Verdict
from ..conf import settings
from ..exceptions import ReplayUnavailable
from ..stores.base import Answer
from .attributes import NAME, kept_attributes, set_attributes
from .marks import REPLAYED

FREEING = frozenset({401, 403, 407, 408, 409, 413, 415, 423, 425, 429})
"""Statuses after which the same request may succeed, so that it has to be run again."""

DROPPED = frozenset(
    {
        "set-cookie",
        "date",
        "server",
        "www-authenticate",
        "content-length",
        "content-encoding",
        # Hop by hop (RFC 9110, section 7.6.1).
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authentication-info",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)

Final = Callable[[HttpResponseBase], bool]


class ResponseCodec:
    """Keeps status, headers and the exact bytes of one response."""

    def __init__(
        self, final: Final | None = None, *, buffer: bool = False, is_translated: bool = False
    ) -> None:
        self.final = final
        self.buffer = buffer
        self.is_translated = is_translated
        """Whether the language is that of the request, so that a replay has to name it."""
        self.has_failed = False
        """Whether the effects are undone: the view raised an error, or asked for it."""
        self._read: bytes | None = None

    def prepare(self, response: Any) -> HttpResponseBase:
        """Have all that is to be kept of *response* at hand: rendered, and read if asked."""
        render = _render_of(response)
        response = self._in_language(response if render is None else render())
        if self._is_to_be_read(response) and not response.is_async:
            self._read_stream(response)
        return cast(HttpResponseBase, response)

    async def aprepare(self, response: Any) -> HttpResponseBase:
        """Do what `prepare` does, also for asynchronous streams."""
        render = _render_of(response)
        if render is not None:  # In a thread, as Django does: it may ask the database.
            arender = render if iscoroutinefunction(render) else sync_to_async(render)
            response = await arender()
        response = self._in_language(response)
        if not self._is_to_be_read(response):
            return cast(HttpResponseBase, response)
        if not response.is_async:
            await sync_to_async(self._read_stream)(response)
            if self._read is not None:  # Django warns of a synchronous stream in this place.
                response.streaming_content = _achain([self._read])
            return cast(HttpResponseBase, response)
        stream = aiter(cast(AsyncIterable[bytes], response.streaming_content))
        taken = _Taken()
        async for chunk in stream:
            if taken.is_too_much(chunk):
                break
        else:
            self._read = b"".join(taken.chunks)
        response.streaming_content = _achain(taken.chunks, stream)
        return cast(HttpResponseBase, response)

    def judge(self, response: HttpResponseBase) -> Verdict:
        if self.has_failed:
            return Verdict.FAIL
        if self.final is not None and self.final(response):
            return Verdict.KEEP
        if response.status_code >= 500:
            return Verdict.FAIL
        if self.final is not None or response.status_code in FREEING:
            return Verdict.FREE
        return Verdict.KEEP

    def dump(self, response: HttpResponseBase) -> Answer:
        dropped = DROPPED.union(name.lower() for name in settings.DROP_HEADERS)
        headers = [[name, value] for name, value in response.items() if name.lower() not in dropped]
        headers += kept_attributes(response)
        return Answer(response.status_code, headers, self._body(response))

    def dump_error(self, error: BaseException) -> Answer:
        return Answer(500, [], None)

    def load(self, answer: Answer) -> HttpResponseBase:
        headers = dict(answer.headers or [])
        attributes = headers.pop(NAME, None)
        if answer.body is None or answer.status is None:
            raise ReplayUnavailable(location=headers.get("Location"))
        response = HttpResponse(answer.body, status=answer.status)
        del response["Content-Type"]
        for name, value in headers.items():
            response[name] = value
        response[REPLAYED] = "true"
        set_attributes(response, attributes)
        return response

    def _in_language(self, response: Any) -> Any:
        language = get_language() if self.is_translated else None
        if language and not response.has_header("Content-Language"):
            response["Content-Language"] = language
        return response

    def _is_to_be_read(self, response: HttpResponseBase) -> bool:
        """Whether a stream is read here: a file that can be kept, or any with `buffer=True`."""
        if not isinstance(response, StreamingHttpResponse):
            return False
        length = response.get("Content-Length", "")
        is_file = isinstance(response, FileResponse) and length.isdecimal()
        return self.buffer or (is_file and int(length) <= settings.MAX_BODY)

    def _read_stream(self, response: StreamingHttpResponse) -> None:
        stream = iter(cast(Iterable[bytes], response.streaming_content))
        taken = _Taken()
        for chunk in stream:
            if taken.is_too_much(chunk):
                break
        else:
            self._read = b"".join(taken.chunks)
        response.streaming_content = chain(taken.chunks, stream)

    def _body(self, response: HttpResponseBase) -> bytes | None:
        """Give the bytes to keep, not compressed; None if open-ended, too many or unreadable."""
        body = response.content if isinstance(response, HttpResponse) else self._read
        encoding = response.get("Content-Encoding", "identity").strip().lower()
        if body is not None and encoding != "identity":
            body = _decompressed(body, encoding)
        return None if body is None or len(body) > settings.MAX_BODY else body


class _Taken:
    """What was taken out of a stream, to be kept if it is not too much, and sent in any case."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.size = 0

    def is_too_much(self, chunk: bytes) -> bool:
        """Take *chunk*, and tell whether all of it is more than is kept."""
        self.chunks.append(chunk)
        self.size += len(chunk)
        return self.size > settings.MAX_BODY


def _render_of(response: Any) -> Callable[[], Any] | None:
    """Give what renders *response*, or None if it is written already."""
    if not isinstance(response, HttpResponseBase):
        raise TypeError(f"The view did not return an HttpResponse but {type(response).__name__}.")
    render = getattr(response, "render", None)
    return render if callable(render) else None


def _decompressed(body: bytes, encoding: str) -> bytes | None:
    if encoding not in ("gzip", "x-gzip", "deflate"):
        return None
    decompressor = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # Either of the two headers.
    try:
        plain = decompressor.decompress(body, settings.MAX_BODY + 1)
    except zlib.error:
        return None
    return plain if decompressor.eof else None


async def _achain(
    chunks: list[bytes], stream: AsyncIterator[bytes] | None = None
) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
    if stream is not None:
        async for chunk in stream:
            yield chunk
