"""Locks with a lease and a fencing token, held in a backend that settings name by alias."""

from .aliases import build_backend, get_backend
from .base import BaseLockBackend, LiveLock
from .context import current_lock
from .held import HeldLock
from .lock import Lock

__all__ = [
    "BaseLockBackend",
    "HeldLock",
    "LiveLock",
    "Lock",
    "build_backend",
    "current_lock",
    "get_backend",
]
