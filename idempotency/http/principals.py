"""Who calls, as an authentication inside of a framework says."""

from __future__ import annotations

import hashlib
from typing import Any, cast
from uuid import UUID

from django.conf import settings
from django.db.models import Model


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
        label = cast(type[Model], principal._meta.concrete_model)._meta.label
        # Where the app of Django for users is not installed, this names none.
        is_user = label == settings.AUTH_USER_MODEL
        return f"user:{principal.pk}" if is_user else f"{label.lower()}:{principal.pk}"
    if isinstance(principal, str | bytes | int | UUID) and not isinstance(principal, bool):
        # It may be the secret itself.
        told = f"{type(principal).__name__} {principal!r}"
        return f"auth:{hashlib.sha256(told.encode()).hexdigest()[:32]}"
    kind = type(principal)
    if getattr(principal, "pk", None) is not None:
        return f"{kind.__module__}.{kind.__qualname__}:{principal.pk}"
    raise TypeError(
        f"Nobody can tell callers apart by a {kind.__name__}, which authentication has returned."
        " Give scope=, a function of the request, or set IDEMPOTENCY_SCOPE."
    )
