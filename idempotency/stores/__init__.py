"""Stores keep the records; each is known by its alias in `IDEMPOTENCY_STORES`."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from django.core.signals import setting_changed
from django.db.models.signals import post_migrate
from django.utils.module_loading import import_string

from ..conf import STORE, settings
from ..exceptions import InvalidBackend
from .base import BaseStore

_stores: dict[str, BaseStore] = {}
_lock = threading.Lock()


def get_store(alias: str = "default") -> BaseStore:
    """
    Give the store called *alias*, the same object each time.

    Raises: `InvalidBackend` if the settings do not describe one.
    """
    try:
        return _stores[alias]
    except KeyError:
        with _lock:
            return _stores.setdefault(alias, build_store(alias))


def build_store(alias: str) -> BaseStore:
    """Give a new store as `IDEMPOTENCY_STORES[alias]` describes it."""
    if alias not in settings.STORES:
        raise InvalidBackend(f"IDEMPOTENCY_STORES has no {alias!r}.")
    options: Mapping[str, Any] = {**STORE, **settings.STORES[alias]}
    try:
        backend = import_string(options["BACKEND"])
    except ImportError as error:
        raise InvalidBackend(f"IDEMPOTENCY_STORES[{alias!r}]: {error}") from error
    store: BaseStore = backend(alias, options)
    return store


def _forget_after_setting(*, setting: str, **kwargs: object) -> None:
    if setting == "IDEMPOTENCY_STORES":
        _stores.clear()


def _forget_after_flush(**kwargs: object) -> None:
    # What a store remembers of its records may be gone.
    _stores.clear()


setting_changed.connect(_forget_after_setting)
post_migrate.connect(_forget_after_flush)
