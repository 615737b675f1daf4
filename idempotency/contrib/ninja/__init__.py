"""Django Ninja: operations that take effect once."""

from django.core.exceptions import ImproperlyConfigured

try:
    import ninja  # noqa: F401 - it is missing without the extra.
except ImportError as error:
    raise ImproperlyConfigured(
        "idempotency.contrib.ninja needs Django Ninja: pip install 'django-idempotency[ninja]'."
    ) from error

from .errors import add_exception_handlers
from .operations import idempotent_operation

__all__ = ["add_exception_handlers", "idempotent_operation"]
