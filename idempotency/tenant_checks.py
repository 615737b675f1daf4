"""What is wrong with this app where each tenant has a schema, as with django-tenants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps.config import AppConfig
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Tags, register

NAMES = {"idempotency", "idempotency.apps.IdempotencyConfig"}


@register(Tags.compatibility)
def check_tenants(
    *, app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Tell if the tables are where no thread of this app would find them."""
    shared, of_tenants = (
        NAMES.intersection(getattr(django_settings, setting, None) or ())
        for setting in ("SHARED_APPS", "TENANT_APPS")
    )
    if not of_tenants:
        return []
    also = "as well" if shared else "only"
    return [
        Error(
            f"This app is among TENANT_APPS ({also}): leases are renewed and statistics written by"
            " threads that belong to no tenant, and would find no tables, or others.",
            hint="Name it in SHARED_APPS, and not in TENANT_APPS.",
            id="idempotency.E040",
        )
    ]
