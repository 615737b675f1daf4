"""The token that a writer shows, and the newest one that a row has seen."""

from __future__ import annotations

from typing import Any, Protocol

from django.core.exceptions import FieldDoesNotExist
from django.db import models

from ..exceptions import StaleLock


class Held(Protocol):
    """What shows a fencing token: a `HeldLock`, a `RunningClaim`, or what carries their token."""

    @property
    def token(self) -> int: ...


def token_of(held: Held) -> int:
    """
    Give the token of *held*.

    Raises: `TypeError` if it has none; `StaleLock` if it is known to be over, without asking.
    """
    token = getattr(held, "token", None)
    if not isinstance(token, int) or isinstance(token, bool):
        raise TypeError(
            f"A lock or a claim shows its token, and {held!r} has none. current_lock() and"
            " current_claim() give None outside of what they stand for."
        )
    if getattr(held, "lost", False) or getattr(held, "is_over", False):
        raise StaleLock(f"The lock with token {token} is no longer held here; nothing was written.")
    return token


def refuse_older(model: type[models.Model], fence: int | None, token: int) -> None:
    if fence is not None and fence > token:
        raise StaleLock(
            f"The lock with token {token} was lost: its holder with token {fence} has written this"
            f" {model._meta.verbose_name} since, and nothing was written now."
        )


def fence_of(model: type[models.Model], name: str) -> models.Field[Any, Any]:
    try:
        field = model._meta.get_field(name)
    except FieldDoesNotExist:
        field = None
    if isinstance(field, models.BigIntegerField):
        return field
    raise TypeError(
        f"{model._meta.label} keeps no fencing token in {name!r}: add FencedModel to its bases, or"
        " name another BigIntegerField by field=."
    )
