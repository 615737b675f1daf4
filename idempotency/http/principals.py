"""Who calls, as an authentication, or for want of one the request itself, says."""

from __future__ import annotations

import hashlib
import re
from typing import Any, cast
from uuid import UUID

from django.contrib.auth import get_user_model
from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from django.db.models import Model
from django.http import HttpRequest
from django.utils.crypto import salted_hmac

ANONYMOUS = "anonymous"
CREDENTIALS = (
    "_ACCESS_TOKEN",
    "_API_KEY",
    "_APIKEY",
    "_AUTH_TOKEN",
    "_AUTHORIZATION",
    "_FORWARDED_USER",
    "_PRIVATE_TOKEN",
    "_SESSION_TOKEN",
    "_X_TOKEN",
)
"""How the names of headers end by which a view may find out itself who calls."""

CHANGING = re.compile(
    r"(aws|digest|hawk|mac|negotiate|ntlm)\b|\S*(hmac|scram|sharedkey|signature)\S*\s"
    r"|\S+\s.*\b\w*(nonce|signature)=",
    re.IGNORECASE | re.DOTALL,
)
"""An `Authorization` that is another one at each try: who has signed it is not told by it."""


def scope_of_request(request: HttpRequest) -> str | None:
    """Give who may share keys, if Django has found the user that calls."""
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        return None
    return scope_of_principal(user) if isinstance(user, Model) else of_tenant(f"user:{user.pk}")


def scope_of_stranger(request: HttpRequest) -> str:
    """
    Give who may share keys where nobody has said who calls.

    Those who have shown the same credentials are one caller: a view that asks for them inside is
    not to have its answer given to others. Of what may be a password, no plain digest is kept.
    """
    names = sorted(name for name in request.META if name.endswith(CREDENTIALS))
    shown = [(name, request.META[name]) for name in names if _is_lasting(name, request.META[name])]
    if not shown:
        return of_tenant(ANONYMOUS)
    digest = salted_hmac("idempotency.credentials", repr(shown), algorithm="sha256").hexdigest()
    return of_tenant(f"credentials:{digest[:32]}")


def _is_lasting(name: str, value: str) -> bool:
    is_signed = name.endswith("_AUTHORIZATION") and CHANGING.match(value.strip()) is not None
    # Without HTTP_ it is a variable of the server's environment.
    return name.startswith("HTTP_") and not is_signed


def of_tenant(scope: str) -> str:
    """Give *scope* within the tenant of this request, as django-tenants says by its schema."""
    schema = getattr(connection, "schema_name", None) or "public"
    return scope if schema == "public" else f"{schema}:{scope}"


def is_anybody(principal: Any) -> bool:
    """Whether *principal* names nobody: there is none, or only that the caller was let in."""
    # By identity: 1, which may be the number of a user, equals True.
    let_in = principal is None or principal is True
    return let_in or getattr(principal, "is_authenticated", True) is False


def scope_of_principal(principal: Any) -> str:
    """
    Give who may share keys: a user, an object of another kind with a key, or who has a token.

    Raises: `TypeError` if nobody can tell callers apart by what *principal* is.
    """
    if isinstance(principal, Model):
        user = _user_model()
        if user is not None and isinstance(principal, user):
            # A child of it in another table is the same user.
            return of_tenant(f"user:{getattr(principal, user._meta.pk.attname)}")
        label = cast(type[Model], principal._meta.concrete_model)._meta.label
        return of_tenant(f"{label.lower()}:{principal.pk}")
    if isinstance(principal, str | bytes | int | UUID) and not isinstance(principal, bool):
        # It may be the secret itself.
        told = f"{type(principal).__name__} {principal!r}"
        return of_tenant(f"auth:{hashlib.sha256(told.encode()).hexdigest()[:32]}")
    kind = type(principal)
    if getattr(principal, "pk", None) is not None:
        return of_tenant(f"{kind.__module__}.{kind.__qualname__}:{principal.pk}")
    raise TypeError(
        f"Nobody can tell callers apart by a {kind.__name__}, which authentication has returned."
        " Give scope=, a function of the request, or set IDEMPOTENCY_SCOPE."
    )


def _user_model() -> type[Model] | None:
    try:
        return get_user_model()
    except ImproperlyConfigured:  # The app of Django for users is not installed.
        return None
