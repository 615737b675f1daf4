"""The endpoint that the options of `idempotent_view` describe."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ..policy import Policy
from .endpoint import Endpoint

OPTIONS = frozenset({"required", "scope", "fingerprint", "ignore", "final", "buffer"})
"""Those that are no policy."""


def endpoint_of(
    view_name: str, *, own_transactions: Collection[str] = (), **options: Any
) -> Endpoint:
    """
    Give the endpoint that the *options* of `idempotent_view` describe.

    Raises: `TypeError`, `ValueError` for options that cannot be.
    """
    own = {name: options.pop(name) for name in OPTIONS & options.keys()}
    policy = Policy.of(options, others=OPTIONS)
    return Endpoint(policy=policy, view_name=view_name, own_transactions=own_transactions, **own)
