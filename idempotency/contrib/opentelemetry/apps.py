"""The tracing as an app, which installs it."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class OpenTelemetryConfig(AppConfig):
    name = "idempotency.contrib.opentelemetry"
    label = "idempotency_opentelemetry"
    verbose_name = _("Idempotency: OpenTelemetry")

    def ready(self) -> None:
        from . import install

        install()
