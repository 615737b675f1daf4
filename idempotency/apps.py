"""The app as Django sees it."""

from django.apps import AppConfig
from django.core.signals import request_started
from django.utils.translation import gettext_lazy as _


class IdempotencyConfig(AppConfig):
    name = "idempotency"
    verbose_name = _("Idempotency")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import (  # noqa: F401 - they register them.
            checks,
            lock_checks,
            setting_checks,
            tenant_checks,
            view_checks,
        )
        from .http.arriving import count_body
        from .statistics import listening

        listening.connect()
        request_started.connect(count_body, dispatch_uid="idempotency")
