"""How much of a body there is, and whether all of it has arrived."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.conf import settings as django_settings
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, RawPostDataException, UnreadablePostError

from ..conf import settings
from ..exceptions import BodyInvalid

BROKE_OFF = "The connection broke before the body had arrived."


def meta_name(header: str) -> str:
    """Give the name of *header* in `request.META`; `request.headers` would parse all of them."""
    return "HTTP_" + header.upper().replace("-", "_")


def length_of(request: HttpRequest) -> int:
    """Give the bytes that the request names as the length of its body."""
    return _number(request.META.get("CONTENT_LENGTH"))


def _number(length: Any) -> int:
    return int(length) if str(length or "").isdecimal() else 0


def is_streamed(request: HttpRequest) -> bool:
    """Whether the body is too large for memory."""
    most = django_settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    return most is not None and length_of(request) > most


def keep_small_body(request: HttpRequest) -> None:
    """
    Read the body so that a view may read it itself; one that is too large is only streamed.

    Raises: `BodyInvalid` if it breaks off.
    """
    if is_streamed(request):
        return
    try:
        request.body  # noqa: B018 - it is kept by being read.
    except (RawPostDataException, RequestDataTooBig):
        return
    except UnreadablePostError as error:
        raise BodyInvalid(BROKE_OFF) from error


class _Counted:
    """What a server gives as the body; it counts the bytes that come, and notes the end."""

    def __init__(self, stream: Any, length: int) -> None:
        self._stream = stream
        self.missing = length
        self.has_ended = False

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._stream.read(size)
        self.missing -= len(data)
        self.has_ended = self.has_ended or size < 0 or len(data) < size
        return data

    def readline(self, size: int = -1) -> bytes:
        line: bytes = self._stream.readline(size)
        self.missing -= len(line)
        self.has_ended = self.has_ended or (not line and size != 0)
        return line

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def count_body(environ: dict[str, Any] | None = None, **kwargs: Any) -> None:
    """Count what comes of the body of a request with a key: a receiver of `request_started`."""
    if environ is None or meta_name(settings.HEADER) not in environ:
        return
    length = _number(environ.get("CONTENT_LENGTH"))
    if length:
        environ["wsgi.input"] = _Counted(environ["wsgi.input"], length)


def refuse_cut_body(request: HttpRequest) -> None:
    """
    Raise `BodyInvalid` if the body has come to its end before all of it was there.

    Some servers end it without a word when the client has gone: wsgiref, gunicorn, granian. It
    does not matter who has read it, nor what a middleware has made of it.
    """
    stream = getattr(request, "environ", {}).get("wsgi.input")
    if isinstance(stream, _Counted) and stream.has_ended and stream.missing > 0:
        raise BodyInvalid(BROKE_OFF)
