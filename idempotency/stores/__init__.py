"""Stores keep the records; each is known by its alias in `IDEMPOTENCY_STORES`."""

from __future__ import annotations

from django.db.models.signals import post_migrate

from ..backends import Backends
from ..conf import STORE
from .base import BaseStore

_stores: Backends[BaseStore] = Backends("STORES", STORE, BaseStore)


def get_store(alias: str = "default") -> BaseStore:
    """
    Give the store called *alias*, the same object each time.

    Raises: `InvalidBackend` if the settings do not describe one.
    """
    return _stores.get(alias)


def build_store(alias: str) -> BaseStore:
    """Give a new store as `IDEMPOTENCY_STORES[alias]` describes it."""
    return _stores.build(alias)


def _forget_after_flush(**kwargs: object) -> None:
    # What a store remembers of its records may be gone.
    _stores.forget()


post_migrate.connect(_forget_after_flush)
