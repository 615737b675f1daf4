"""Whether stores and lock backends answer."""

from .asking import Health, check
from .views import health

__all__ = ["Health", "check", "health"]
