"""Which lock backend an alias in `IDEMPOTENCY_LOCKS` stands for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..backends import Backends
from ..conf import LOCK
from .base import BaseLockBackend

CACHE = "cache"
"""The alias that `cache_lock` takes; unless set, Redis as "default" has it, or CACHES does."""

_REDIS = "idempotency.locks.redis.RedisLockBackend"


class _LockBackends(Backends[BaseLockBackend]):
    def described(self) -> Mapping[str, Mapping[str, Any]]:
        locks = super().described()
        default = locks.get("default", {})
        is_redis = isinstance(default, Mapping) and default.get("BACKEND") == _REDIS
        return {CACHE: default if is_redis else {"BACKEND": _REDIS}, **locks}


_backends = _LockBackends("LOCKS", LOCK, BaseLockBackend)


def get_backend(alias: str = "default") -> BaseLockBackend:
    """
    Give the lock backend called *alias*, the same object each time.

    Raises: `InvalidBackend` if the settings do not describe one.
    """
    return _backends.get(alias)


def build_backend(alias: str) -> BaseLockBackend:
    """Give a new lock backend as `IDEMPOTENCY_LOCKS[alias]` describes it."""
    return _backends.build(alias)
