"""What calls and locks tell to the active span of OpenTelemetry."""

from django.core.exceptions import ImproperlyConfigured

try:
    import opentelemetry.trace  # noqa: F401 - it is missing without the extra.
except ImportError as error:
    raise ImproperlyConfigured(
        "idempotency.contrib.opentelemetry needs opentelemetry-api: pip install"
        " 'django-idempotency[opentelemetry]'."
    ) from error

from .spans import install, uninstall

__all__ = ["install", "uninstall"]
