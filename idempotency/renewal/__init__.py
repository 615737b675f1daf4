"""The background threads of each process that renew what is held, and tell what was lost."""

from .holdings import Holding, Renewer
from .registry import Renewal, renewal

__all__ = ["Holding", "Renewal", "Renewer", "renewal"]
