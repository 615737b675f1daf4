"""What a request says about itself: key, scope, operation and fingerprint."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.conf import settings as django_settings
from django.core.exceptions import (
    ImproperlyConfigured,
    RequestDataTooBig,
    SuspiciousOperation,
)
from django.core.files.uploadedfile import UploadedFile
from django.http import HttpRequest, RawPostDataException, UnreadablePostError
from django.http.multipartparser import MultiPartParserError
from django.utils.module_loading import import_string

from ..conf import settings
from ..exceptions import BodyInvalid, BodyTooLarge, KeyInvalid, KeyMissing
from ..fingerprints import Part, fingerprint, form_pairs, json_value, multipart
from ..keys import GUESSABLE_BELOW, parse_key
from ..outlines import Outline

Scope = Callable[[HttpRequest], str]

SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
WHEN_KEYED = frozenset({"PUT", "DELETE"})
ANONYMOUS = "anonymous"
OUTLINED = 65_536
"""Bytes of the longest body that has an outline: it is read for that a second time."""

_EMPTY_MULTIPART = re.compile(rb"\s*--[^\r\n]+--\s*")


def meta_name(header: str) -> str:
    """Give the name of *header* in `request.META`; `request.headers` would parse all of them."""
    return "HTTP_" + header.upper().replace("-", "_")


def is_unsafe(request: HttpRequest) -> bool:
    """Whether a key on this request would be heeded."""
    return is_heeded(request.method or "")


def is_heeded(method: str) -> bool:
    """Whether a key on a request with *method* would be heeded."""
    return method in settings.METHODS or method in WHEN_KEYED


def key_of(request: HttpRequest, *, required: bool) -> str | None:
    """
    Give the key of a request that is to be protected, or None if it is not.

    Raises: `KeyMissing`, `KeyInvalid`.
    """
    if request.method in SAFE or not is_unsafe(request):
        return None
    header = request.META.get(meta_name(settings.HEADER))
    if header is not None:
        return parse_key(header)
    if required and request.method in settings.METHODS:
        raise KeyMissing(
            f"This operation needs an {settings.HEADER} header: one string for each intent, such"
            " as a UUID, that every retry repeats."
        )
    return None


def scope_of(request: HttpRequest, scope: Scope | None, key: str) -> str:
    """
    Give who may share the key: the user, or what *scope* or `IDEMPOTENCY_SCOPE` says.

    Raises: `KeyInvalid` if anonymous callers share it and it could be guessed.
    """
    find: Scope | None = scope or settings_scope()
    if find is not None:
        return find(request)
    user = getattr(request, "user", None)
    if user is not None and user.is_authenticated:
        return f"user:{user.pk}"
    if len(key) < GUESSABLE_BELOW:
        raise KeyInvalid(
            f"Without authentication the idempotency key needs at least {GUESSABLE_BELOW}"
            " characters that nobody can guess, such as a UUID."
        )
    return ANONYMOUS


def settings_scope() -> Scope | None:
    """Give the function that `IDEMPOTENCY_SCOPE` names."""
    scope: Scope | None = import_string(settings.SCOPE) if settings.SCOPE else None
    return scope


def operation_of(request: HttpRequest, view_name: str) -> str:
    """Give what the request does: its method, and the name of its view, else *view_name*."""
    match = request.resolver_match
    return f"{request.method} {match.view_name if match is not None else view_name}"


def request_id_of(request: HttpRequest) -> str:
    """Give what the client or a proxy calls this request, by which its logs find it again."""
    given = request.META.get("HTTP_X_REQUEST_ID") or ""
    return given[:64] if given.isascii() and given.isprintable() else ""


@dataclass(frozen=True, slots=True)
class Input:
    """What a request asks for: its fingerprint, and its outline."""

    fingerprint: str
    outline: object


def input_of(request: HttpRequest, ignore: Sequence[str]) -> Input:
    """
    Give what the request asks for, whatever order its names have.

    Raises: `BodyInvalid`, `BodyTooLarge`.
    """
    media_type = (request.content_type or "").lower()
    query = form_pairs(request.META.get("QUERY_STRING", ""))
    try:
        body = _canonical_body(request, media_type, ignore)
        compared = fingerprint((request.method, request.path, query, media_type, body))
    except RecursionError as error:
        raise BodyInvalid("The body is nested too deeply.") from error
    if _length(request) > OUTLINED:
        return Input(compared, "")
    parts = {"path": request.path, "query": _grouped(query), "type": media_type}
    return Input(compared, Outline({**parts, "body": _grouped(body)}))


def _grouped(value: Any) -> Any:
    """Give the values of a form or query by their names, and anything else as it is."""
    if not (isinstance(value, list) and value and all(isinstance(part, tuple) for part in value)):
        return value
    names: dict[str, list[Any]] = {}
    for name, *rest in value:
        names.setdefault(name, []).append(rest)
    return {name: tuple(values) for name, values in names.items()}


def _canonical_body(request: HttpRequest, media_type: str, ignore: Sequence[str]) -> Any:
    if media_type == "multipart/form-data":
        ignored = {pointer[1:] for pointer in ignore}
        return multipart(part for part in _parts(request) if part[0] not in ignored)
    body = _read(request)
    if media_type == "application/x-www-form-urlencoded":
        ignored = {pointer[1:] for pointer in ignore}
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
        raise BodyInvalid("The connection broke before the body had arrived.") from error
    except RawPostDataException as error:
        raise ImproperlyConfigured(
            "The body was read as a stream before idempotency could see it. Put the middleware"
            " that reads it behind the view's protection, let it use request.body, or give"
            " fingerprint= a function that does not need the body."
        ) from error


def _parts(request: HttpRequest) -> Iterator[Part]:
    """Give the digests of all parts; files stay on disk, and can be read again."""
    keep_small_body(request)
    try:
        fields, files = request.POST, request.FILES
    except RequestDataTooBig as error:
        raise BodyTooLarge from error
    except UnreadablePostError as error:
        raise BodyInvalid("The connection broke before the body had arrived.") from error
    except (MultiPartParserError, SuspiciousOperation) as error:
        raise BodyInvalid(f"The multipart body cannot be read: {error}") from error
    if not fields and not files and not _is_empty_multipart(request):
        raise BodyInvalid(
            "The multipart body has no parts, or something read it before (mind the order of the"
            " middleware)."
        )
    for name, values in fields.lists():
        for value in values:
            yield name, "", hashlib.sha256(value.encode("utf-8", "surrogatepass")).digest()
    for name, uploads in files.lists():
        for upload in uploads:
            yield name, upload.name or "", _digest(upload)


def keep_small_body(request: HttpRequest) -> None:
    # So that a view may read the body itself; one that is too large for memory is only streamed.
    most = django_settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    if most is not None and _length(request) > most:
        return
    try:
        request.body  # noqa: B018 - it is kept by being read.
    except (RawPostDataException, RequestDataTooBig):
        return
    except UnreadablePostError as error:
        raise BodyInvalid("The connection broke before the body had arrived.") from error


def _is_empty_multipart(request: HttpRequest) -> bool:
    try:
        return not request.body or _EMPTY_MULTIPART.fullmatch(request.body) is not None
    except (RawPostDataException, RequestDataTooBig):
        return _length(request) == 0


def _length(request: HttpRequest) -> int:
    length = request.META.get("CONTENT_LENGTH") or "0"
    return int(length) if str(length).isdecimal() else 0


def _digest(upload: UploadedFile[Any]) -> bytes:
    digest = hashlib.sha256()
    for chunk in upload.chunks():
        digest.update(chunk)
    upload.seek(0)
    return digest.digest()
