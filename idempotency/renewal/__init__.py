"""The background threads of each process that renew what is held, and tell what was lost."""

from .holdings import MOST_LEASES, Holding, Renewer
from .registry import Renewal, renewal

__all__ = ["MOST_LEASES", "Holding", "Renewal", "Renewer", "renewal"]
