"""Prometheus metrics of calls, locks and rows."""

from django.core.exceptions import ImproperlyConfigured

try:
    import prometheus_client  # noqa: F401 - it is missing without the extra.
except ImportError as error:
    raise ImproperlyConfigured(
        "idempotency.contrib.metrics needs prometheus-client: pip install"
        " 'django-idempotency[metrics]'."
    ) from error

from .collecting import install, uninstall

__all__ = ["install", "uninstall"]
