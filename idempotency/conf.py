"""The settings of this app: a typed line each, read when used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.conf import settings as django_settings

MIDDLEWARE = "idempotency.middleware.IdempotencyMiddleware"

STORE = {
    "BACKEND": "idempotency.stores.database.DatabaseStore",
    "LEASE": 30,
    "RETENTION": 86_400,
    "OPTIONS": {},
}
"""What a store has that its settings leave out; durations are seconds."""

LOCK = {
    "BACKEND": "idempotency.locks.database.DatabaseLockBackend",
    "LEASE": 30,
    "OPTIONS": {},
}
"""What a lock backend has that its settings leave out; durations are seconds."""

STATISTICS = {"USING": "default", "INTERVAL": 5, "CALLS_PER_RECORD": 100}
"""
What `IDEMPOTENCY_STATISTICS` leaves out.

Keys: the alias of the database that keeps them, seconds between two writes, and how many calls are
logged for each record.
"""


class Settings:
    """Give each `IDEMPOTENCY_…` setting of the project, or its default."""

    STORES: Mapping[str, Mapping[str, Any]] = {"default": {}}
    LOCKS: Mapping[str, Mapping[str, Any]] = {"default": {}}
    HEADER: str = "Idempotency-Key"
    SCOPE: str | None = None
    METHODS: Sequence[str] = ("POST", "PATCH")
    MAX_BODY: int = 5 * 1024 * 1024
    DROP_HEADERS: Sequence[str] = (
        "X-Request-ID",
        "X-Correlation-ID",
        "RateLimit",
        "RateLimit-Policy",
        "RateLimit-Limit",
        "RateLimit-Remaining",
        "RateLimit-Reset",
        "X-RateLimit-Limit",
        "X-RateLimit-Remaining",
        "X-RateLimit-Reset",
    )
    DOCS_URL: str | None = None
    STATISTICS: Mapping[str, Any] | bool = {}

    def __getattribute__(self, name: str) -> Any:
        default = object.__getattribute__(self, name)
        return getattr(django_settings, f"IDEMPOTENCY_{name}", default)


settings = Settings()
