"""The log of events as an app, which installs it."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class EventLoggingConfig(AppConfig):
    name = "idempotency.contrib.logging"
    label = "idempotency_logging"
    verbose_name = _("Idempotency: log of events")

    def ready(self) -> None:
        from . import install

        install()
