"""What the body of a request says, read so that the view can still read it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from typing import Any

from django.core.exceptions import (
    ImproperlyConfigured,
    RequestDataTooBig,
    SuspiciousOperation,
)
from django.core.files.uploadedfile import UploadedFile
from django.http import HttpRequest, QueryDict, RawPostDataException, UnreadablePostError
from django.http.multipartparser import MultiPartParserError
from django.utils.datastructures import MultiValueDict

from ..exceptions import BodyInvalid, BodyTooLarge
from ..fingerprints import Part, fingerprint, form_pairs, json_value, multipart
from .arriving import BROKE_OFF, is_streamed, keep_small_body, length_of

TOKEN = "csrfmiddlewaretoken"  # noqa: S105 - the name of a field.
"""What a form has for the check for CSRF: another one each time that it is shown."""

_EMPTY_MULTIPART = re.compile(rb"\s*--[^\r\n]+--\s*")


def canonical_body(request: HttpRequest, media_type: str, ignore: Sequence[str]) -> Any:
    """
    Give what the body says, whatever order its names have, without what *ignore* points to.

    Raises: `BodyInvalid`, `BodyTooLarge`.
    """
    if media_type == "multipart/form-data":
        ignored = {TOKEN, *(pointer[1:] for pointer in ignore)}
        return multipart(part for part in _parts(request) if part[0] not in ignored)
    body = _read(request)
    if media_type == "application/x-www-form-urlencoded":
        ignored = {TOKEN, *(pointer[1:] for pointer in ignore)}
        pairs = form_pairs(body.decode("utf-8", "surrogateescape"))
        return [pair for pair in pairs if pair[0] not in ignored]
    if body and (media_type == "application/json" or media_type.endswith("+json")):
        return json_value(body, (request.content_params or {}).get("charset"), ignore)
    return body


def _read(request: HttpRequest) -> bytes:
    try:
        return request.body
    except RequestDataTooBig as error:
        raise BodyTooLarge from error
    except UnreadablePostError as error:
        raise BodyInvalid(BROKE_OFF) from error
    except RawPostDataException as error:
        if is_streamed(request):
            raise BodyTooLarge from error
        raise ImproperlyConfigured(
            "The body was read as a stream before idempotency could see it. Put the middleware"
            " that reads it behind the view's protection, let it use request.body, or give"
            " fingerprint= a function that does not need the body."
        ) from error


def _parts(request: HttpRequest) -> Iterator[Part]:
    """Give the digests of all parts; files stay on disk, and can be read again."""
    keep_small_body(request)
    try:
        fields, files = _fields_and_files(request)
    except RequestDataTooBig as error:
        raise BodyTooLarge from error
    except UnreadablePostError as error:
        raise BodyInvalid(BROKE_OFF) from error
    except (MultiPartParserError, SuspiciousOperation) as error:
        raise BodyInvalid(f"The multipart body cannot be read: {error}") from error
    if not fields and not files and not _is_empty_multipart(request):
        if request.method != "POST" and is_streamed(request):
            raise BodyTooLarge  # Django reads no other form as a stream.
        raise BodyInvalid(
            "The multipart body has no parts, or something read it before (mind the order of the"
            " middleware)."
        )
    for name, values in _lists(fields):
        for value in values:
            yield name, "", _digest_of_field(value)
    for name, uploads in files.lists():
        for upload in uploads:
            yield name, upload.name or "", _digest(upload)


def _lists(fields: Any) -> Iterable[tuple[str, list[Any]]]:
    """Give all values by their names; a parser of a framework may have made a plain dict."""
    if isinstance(fields, MultiValueDict):
        return fields.lists()
    return ((name, [value]) for name, value in fields.items())


def _fields_and_files(request: HttpRequest) -> tuple[QueryDict, MultiValueDict[str, Any]]:
    """Give what a form has; a body in memory is left to the view as if nobody had read it."""
    try:
        body = request.body
    except (RawPostDataException, RequestDataTooBig):
        return request.POST, request.FILES
    if not body:
        return request.POST, request.FILES
    own = HttpRequest()
    own.META = request.META
    return own.parse_file_upload(request.META, BytesIO(body))


def _digest_of_field(value: Any) -> bytes:
    if isinstance(value, str):
        return hashlib.sha256(value.encode("utf-8", "surrogatepass")).digest()
    return fingerprint(value).encode()  # As a parser of a framework has made it.


def _is_empty_multipart(request: HttpRequest) -> bool:
    try:
        return not request.body or _EMPTY_MULTIPART.fullmatch(request.body) is not None
    except (RawPostDataException, RequestDataTooBig):
        # Nothing but the last border has room in so few bytes.
        boundary = (request.content_params or {}).get("boundary", "")
        return length_of(request) <= len(boundary) + len("----\r\n\r\n")


def _digest(upload: UploadedFile[Any]) -> bytes:
    digest = hashlib.sha256()
    for chunk in upload.chunks():
        digest.update(chunk)
    upload.seek(0)
    return digest.digest()
