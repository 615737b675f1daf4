"""The ASGI entry point of the example project."""

import os

from django.core.asgi import get_asgi_application

from idempotency.statistics.asgi import flush_at_shutdown

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

application = flush_at_shutdown(get_asgi_application())
