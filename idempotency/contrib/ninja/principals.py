"""Who calls an operation, as its authentication says."""

from __future__ import annotations

import hashlib
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.db.models import Model
from django.http import HttpRequest


def principal_of(request: HttpRequest) -> Any:
    """Give what the authentication of the operation has returned; None if it has none."""
    return getattr(request, "auth", None)


def scope_of_principal(request: HttpRequest) -> str:
    """
    Give who may share keys: whoever `request.auth` is.

    Raises: `TypeError` if nobody can tell callers apart by what it is.
    """
    principal = principal_of(request)
    if isinstance(principal, AbstractBaseUser):
        return f"user:{principal.pk}"
    if isinstance(principal, Model):
        return f"{principal._meta.label_lower}:{principal.pk}"
    if isinstance(principal, str | bytes | int) and not isinstance(principal, bool):
        # It may be the secret itself.
        return f"auth:{hashlib.sha256(str(principal).encode()).hexdigest()[:32]}"
    raise TypeError(
        f"Nobody can tell callers apart by a {type(principal).__name__}, which authentication has"
        " returned. Give the operation scope=, a function of the request, or set"
        " IDEMPOTENCY_SCOPE."
    )
