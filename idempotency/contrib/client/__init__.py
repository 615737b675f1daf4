"""Clients of protected services: a key for each intent, kept over its retries."""

from .retrying import Retries, new_key

__all__ = ["Retries", "new_key"]
