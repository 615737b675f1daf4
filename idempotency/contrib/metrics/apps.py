"""The metrics as an app, which installs them."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class MetricsConfig(AppConfig):
    name = "idempotency.contrib.metrics"
    label = "idempotency_metrics"
    verbose_name = _("Idempotency: metrics")

    def ready(self) -> None:
        from . import install

        install()
