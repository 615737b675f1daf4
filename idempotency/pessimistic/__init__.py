"""Strategy 2 on any model: rows are locked, in one order, before they are read."""

from .locking import lock_timeout
from .retrying import atomic_retry, declare_effect
from .rows import get_or_create_locked, lock_row, lock_rows

__all__ = [
    "atomic_retry",
    "declare_effect",
    "get_or_create_locked",
    "lock_row",
    "lock_rows",
    "lock_timeout",
]
