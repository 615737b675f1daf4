"""How much of a body there is, and whether all of it has arrived."""

from __future__ import annotations

from collections.abc import Callable

from django.conf import settings as django_settings
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, RawPostDataException, UnreadablePostError

from ..exceptions import BodyInvalid

BROKE_OFF = "The connection broke before the body had arrived."


def length_of(request: HttpRequest) -> int:
    """Give the bytes that the request names as the length of its body."""
    length = request.META.get("CONTENT_LENGTH") or "0"
    return int(length) if str(length).isdecimal() else 0


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
        body = request.body
    except (RawPostDataException, RequestDataTooBig):
        return
    except UnreadablePostError as error:
        raise BodyInvalid(BROKE_OFF) from error
    refuse_cut_body(request, body)


def refuse_cut_body(request: HttpRequest, body: bytes) -> None:
    """
    Raise `BodyInvalid` if *body* is shorter than the request says.

    Some servers end a body without a word when the client has gone: wsgiref, gunicorn, granian.
    """
    # What a middleware has unpacked has a length of its own.
    is_packed = request.META.get("HTTP_CONTENT_ENCODING", "identity").lower() != "identity"
    if len(body) < length_of(request) and not is_packed:
        raise BodyInvalid(BROKE_OFF)


class _Counting:
    """Reads a stream, and counts the bytes that come."""

    def __init__(self, read: Callable[..., bytes]) -> None:
        self._read = read
        self.count = 0

    def __call__(self, *size: int) -> bytes:
        data = self._read(*size)
        self.count += len(data)
        return data


def count_stream(request: HttpRequest) -> None:
    """Count from now on what is read of a body that is too large for memory."""
    if not is_streamed(request) or isinstance(request.read, _Counting):
        return
    try:
        request.body  # noqa: B018 - it tells whether somebody has begun to read.
    except RequestDataTooBig:
        request.read = _Counting(request.read)  # type: ignore[assignment,method-assign]
    except RawPostDataException:
        return


def refuse_cut_stream(request: HttpRequest) -> None:
    """Raise `BodyInvalid` if a body that was counted, and read to its end, was shorter."""
    if isinstance(request.read, _Counting) and request.read.count < length_of(request):
        raise BodyInvalid(BROKE_OFF)
