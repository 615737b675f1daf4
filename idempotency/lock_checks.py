"""What can be wrong with the settings of locks, and with leases beside the workers' own limits."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from django.apps.config import AppConfig
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured

from .conf import LOCK, STORE, settings
from .locks import build_backend

_GUNICORN = re.compile(r"(?:--timeout[= ]|-t ?)(\d+)")
_CELERY = ("CELERY_TASK_TIME_LIMIT", "CELERY_TASK_SOFT_TIME_LIMIT")


@register(Tags.compatibility)
def check_locks(
    *, app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Let each lock backend check itself."""
    if not isinstance(settings.LOCKS, Mapping) or "default" not in settings.LOCKS:
        return [Error("IDEMPOTENCY_LOCKS is no dict with a 'default'.", id="idempotency.E017")]
    found: list[CheckMessage] = []
    for alias in settings.LOCKS:
        try:
            found += build_backend(alias).check()
        except ImproperlyConfigured as error:
            found.append(Error(str(error), id="idempotency.E017"))
    return found


@register(Tags.database)
def check_lock_services(
    *,
    app_configs: Sequence[AppConfig] | None = None,
    databases: Sequence[str] | None = None,
    **kwargs: Any,
) -> list[CheckMessage]:
    """Let each lock backend ask its server, when databases may be asked as well."""
    found: list[CheckMessage] = []
    is_described = isinstance(settings.LOCKS, Mapping)  # `check_locks` tells.
    for alias in settings.LOCKS if databases and is_described else []:
        with suppress(ImproperlyConfigured):  # And of this.
            backend = build_backend(alias)
            if backend.using is None or backend.using in list(databases or []):
                found += backend.check_service()
    return found


@register(Tags.compatibility)
def check_leases(
    *, app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Tell if a worker may hang for longer than others respect what it holds."""
    limits = list(_limits())
    return [
        Warning(
            f"{where}['LEASE'] is {lease} s, but {limit} lets work go on for {seconds} s: work that"
            " hangs without its lease being renewed is taken over while it still runs.",
            hint="Let the lease be longer than the limit, and guard rows by the token.",
            id="idempotency.W035",
        )
        for where, lease in _leases()
        for limit, seconds in limits
        if isinstance(lease, int | float) and lease < seconds
    ]


def _limits() -> Iterator[tuple[str, float]]:
    """Give the limits of workers' time that are known here: those of gunicorn and Celery."""
    found = _GUNICORN.search(os.environ.get("GUNICORN_CMD_ARGS", ""))
    if found:
        yield "GUNICORN_CMD_ARGS", float(found[1])
    for name in _CELERY:
        value = getattr(django_settings, name, None)
        if isinstance(value, int | float):
            yield name, value


def _leases() -> Iterator[tuple[str, Any]]:
    for setting, described, defaults in (
        ("IDEMPOTENCY_STORES", settings.STORES, STORE),
        ("IDEMPOTENCY_LOCKS", settings.LOCKS, LOCK),
    ):
        for alias, options in described.items() if isinstance(described, Mapping) else ():
            if isinstance(options, Mapping):  # `check_locks` and `check_stores` tell.
                yield f"{setting}[{alias!r}]", {**defaults, **options}["LEASE"]
