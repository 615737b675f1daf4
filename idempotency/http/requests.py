"""What a request says about itself: key, scope, operation and fingerprint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest
from django.utils.module_loading import import_string

from ..conf import settings
from ..exceptions import BodyInvalid, KeyInvalid, KeyMissing
from ..fingerprints import fingerprint, form_pairs
from ..keys import GUESSABLE_BELOW, parse_key
from ..outlines import Outline
from .arriving import keep_small_body, length_of, meta_name, refuse_cut_body
from .bodies import canonical_body
from .principals import scope_of_request, scope_of_stranger

Scope = Callable[[HttpRequest], str]

SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
WHEN_KEYED = frozenset({"PUT", "DELETE"})
OUTLINED = 65_536
"""Bytes of the longest body that has an outline: it is read for that a second time."""


def is_unsafe(request: HttpRequest) -> bool:
    """Whether a key on this request would be heeded."""
    return is_heeded(request.method or "")


def is_heeded(method: str) -> bool:
    """Whether a key on a request with *method* would be heeded."""
    return method in settings.METHODS or method in WHEN_KEYED


def is_keyed(request: HttpRequest) -> bool:
    """Whether *request* has a key that would be heeded."""
    return is_unsafe(request) and meta_name(settings.HEADER) in request.META


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
    Give who may share the key: the caller, or what *scope* or `IDEMPOTENCY_SCOPE` says.

    Raises: `KeyInvalid` if anonymous callers share it and it could be guessed.
    """
    find: Scope | None = scope or settings_scope()
    if find is not None:
        return find(request)
    known = scope_of_request(request)
    if known is not None:
        return known
    if len(key) < GUESSABLE_BELOW:
        raise KeyInvalid(
            f"Without authentication the idempotency key needs at least {GUESSABLE_BELOW}"
            " characters that nobody can guess, such as a UUID."
        )
    return scope_of_stranger(request)


def settings_scope() -> Scope | None:
    """Give the function that `IDEMPOTENCY_SCOPE` names."""
    scope: Scope | None = import_string(settings.SCOPE) if settings.SCOPE else None
    return scope


def operation_of(request: HttpRequest, view_name: str) -> str:
    """Give what the request does: its method, and the name of its view, else *view_name*."""
    match = request.resolver_match
    if match is None:
        return f"{request.method} {view_name}"
    # Names are those of one set of URLs, and a middleware has chosen another one here.
    own = f" {view_name}" if getattr(request, "urlconf", None) is not None else ""
    return f"{request.method} {match.view_name}{own}"


def request_id_of(request: HttpRequest) -> str:
    """Give what the client or a proxy calls this request, by which its logs find it again."""
    given = request.META.get("HTTP_X_REQUEST_ID") or ""
    return given[:64] if given.isascii() and given.isprintable() else ""


@dataclass(frozen=True, slots=True)
class Input:
    """What a request asks for: its fingerprint, and its outline."""

    fingerprint: str
    outline: object


def input_of(
    request: HttpRequest, ignore: Sequence[str], find: Callable[[HttpRequest], Any] | None = None
) -> Input:
    """
    Give what the request asks for, whatever order its names have, or what *find* says of it.

    Raises: `BodyInvalid`, `BodyTooLarge`.
    """
    if find is not None:
        keep_small_body(request)
        own = fingerprint((request.method, request.path, find(request)))
        refuse_cut_body(request)
        return Input(own, "")
    media_type = (request.content_type or "").lower()
    query = form_pairs(request.META.get("QUERY_STRING", ""))
    try:
        body = canonical_body(request, media_type, ignore)
        compared = fingerprint((request.method, request.path, query, media_type, body))
    except RecursionError as error:
        raise BodyInvalid("The body is nested too deeply.") from error
    refuse_cut_body(request)
    if length_of(request) > OUTLINED:
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
