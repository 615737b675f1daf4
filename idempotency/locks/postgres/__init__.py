"""Keeps locks as PostgreSQL's advisory locks."""

from .backend import AdvisoryLockBackend

__all__ = ["AdvisoryLockBackend"]
