"""Django REST framework: views whose actions take effect once."""

from django.core.exceptions import ImproperlyConfigured

try:
    import rest_framework  # noqa: F401 - it is missing without the extra.
except ImportError as error:
    raise ImproperlyConfigured(
        "idempotency.contrib.drf needs Django REST framework: pip install"
        " 'django-idempotency[drf]'."
    ) from error

from .conditional import ConditionalMixin
from .errors import exception_handler
from .functions import idempotent_api_view
from .serializers import VersionedSerializerMixin
from .views import IdempotentMixin

__all__ = [
    "ConditionalMixin",
    "IdempotentMixin",
    "VersionedSerializerMixin",
    "exception_handler",
    "idempotent_api_view",
]
