"""What can be wrong with a project's settings, told before it does harm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from typing import Any

from django.apps.config import AppConfig
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from .conf import MIDDLEWARE, settings
from .statistics.flushing import options
from .stores import build_store
from .tables import check_table

BEFORE = (
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
)


@register(Tags.compatibility)
def check_stores(
    *, app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Let each store check itself."""
    if not isinstance(settings.STORES, Mapping) or "default" not in settings.STORES:
        return [Error("IDEMPOTENCY_STORES is no dict with a 'default'.", id="idempotency.E001")]
    found: list[CheckMessage] = []
    for alias in settings.STORES:
        try:
            found += build_store(alias).check()
        except ImproperlyConfigured as error:
            found.append(Error(str(error), id="idempotency.E002"))
    return found


@register(Tags.database)
def check_services(
    *,
    app_configs: Sequence[AppConfig] | None = None,
    databases: Sequence[str] | None = None,
    **kwargs: Any,
) -> list[CheckMessage]:
    """Let each store ask its server, when databases may be asked as well."""
    found: list[CheckMessage] = []
    is_described = isinstance(settings.STORES, Mapping)  # `check_stores` tells.
    for alias in settings.STORES if databases and is_described else []:
        with suppress(ImproperlyConfigured):  # And of this.
            store = build_store(alias)
            if store.using is None or store.using in list(databases or []):
                found += store.check_service()
    return [*found, *_check_statistics(list(databases or []))]


def _check_statistics(databases: Sequence[str]) -> list[CheckMessage]:
    from .models import Statistic

    using = options()["USING"]
    asked = settings.STATISTICS is not False and using in databases
    return check_table("IDEMPOTENCY_STATISTICS", using, Statistic) if asked else []


@register(Tags.compatibility)
def check_middleware(
    *, app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Tell if a replay would pass by authentication or the CSRF check."""
    installed = list(django_settings.MIDDLEWARE)
    if MIDDLEWARE not in installed:
        return []
    behind = installed[installed.index(MIDDLEWARE) + 1 :]
    return [
        Error(
            f"{MIDDLEWARE} stands before {name}, so that a replay would pass it by.",
            hint="Put it at the end of MIDDLEWARE.",
            id="idempotency.E020",
        )
        for name in BEFORE
        if name in behind
    ]


@register(Tags.compatibility)
def check_sqlite(
    *, app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Tell if writers of a SQLite file would fail instead of queueing."""
    used = [one.get("using", "default") for one in _options()]
    return [
        Warning(
            f"Database {alias!r} begins its transactions without the write lock: one that reads"
            " first fails with 'database is locked' when another one writes.",
            hint='Set OPTIONS = {"transaction_mode": "IMMEDIATE", "timeout": 20, "init_command":'
            ' "PRAGMA journal_mode=WAL;"}.',
            id="idempotency.W005",
        )
        for alias in sorted(connections)
        if alias in used and connections[alias].vendor == "sqlite" and not _is_immediate(alias)
    ]


def _options() -> list[Mapping[str, Any]]:
    """Give the OPTIONS of each store and lock backend that has some as they should be."""
    settings_of_all = [one for one in (settings.STORES, settings.LOCKS) if isinstance(one, Mapping)]
    described = [each for one in settings_of_all for each in one.values()]
    found = [each.get("OPTIONS", {}) for each in described if isinstance(each, Mapping)]
    return [options for options in found if isinstance(options, Mapping)]


def _is_immediate(alias: str) -> bool:
    mode = connections[alias].settings_dict["OPTIONS"].get("transaction_mode")
    return str(mode).upper() in ("IMMEDIATE", "EXCLUSIVE")


@register(Tags.compatibility)
def check_packages(
    *, app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Tell if two distributions share one folder, so that removing one breaks the other."""
    if not (_is_installed("django-fsm") and _is_installed("django-fsm-2")):
        return []
    message = "django-fsm and django-fsm-2 are both installed, and own the same files."
    hint = "Uninstall both, then install django-fsm-2 again."
    return [Error(message, hint=hint, id="idempotency.E006")]


def _is_installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


@register(Tags.database)
def check_tables(
    *,
    app_configs: Sequence[AppConfig] | None = None,
    databases: Sequence[str] | None = None,
    **kwargs: Any,
) -> list[CheckMessage]:
    """Tell if nothing in a database keeps two claims of one key apart."""
    from .models import IdempotencyRecord

    table = IdempotencyRecord._meta.db_table
    return [
        Error(
            f"{table} in database {alias!r} has no primary key on id: keys would not exclude.",
            hint="Restore the table as the migrations make it.",
            id="idempotency.E004",
        )
        for alias in databases or []
        if not _has_primary_key(alias, table)
    ]


def _has_primary_key(alias: str, table: str) -> bool:
    introspection = connections[alias].introspection
    with connections[alias].cursor() as cursor:
        if table not in introspection.table_names(cursor):
            return True  # Not migrated yet, or kept in another database.
        return introspection.get_primary_key_columns(cursor, table) == ["id"]
