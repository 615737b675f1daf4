"""Strategy 3 on any model: a write takes effect only on the version that was read."""

from .querysets import VersionedManager, VersionedQuerySet
from .retrying import retry_stale
from .rows import VersionedModel
from .versions import VersionField

__all__ = ["VersionField", "VersionedManager", "VersionedModel", "VersionedQuerySet", "retry_stale"]
