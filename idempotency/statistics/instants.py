"""Instants as seconds since 1970, and as the ORM has them."""

from __future__ import annotations

from datetime import UTC, datetime

from django.conf import settings
from django.utils import timezone


def moment(seconds: float) -> datetime:
    """Give the instant *seconds* after the beginning of 1970, aware if `USE_TZ` says so."""
    aware = datetime.fromtimestamp(seconds, UTC)
    if settings.USE_TZ:
        return aware
    return timezone.make_naive(aware, timezone.get_default_timezone())


def seconds_of(instant: datetime) -> float:
    """Give the seconds from the beginning of 1970 to *instant*."""
    if timezone.is_naive(instant):
        instant = timezone.make_aware(instant, timezone.get_default_timezone())
    return instant.timestamp()
