"""The locks that are held now, wherever they are kept."""

from __future__ import annotations

from ..conf import settings
from ..locks.aliases import get_backend
from ..locks.base import BaseLockBackend
from .asking import ask_all, failure_of
from .figures import HeldLocks


def held_locks() -> list[HeldLocks]:
    """Give what each lock backend holds; aliases for the same locks are asked once."""
    answers = ask_all({alias: backend.live for alias, backend in _backends().items()})
    return [
        HeldLocks(alias, [], failure_of(answer))
        if isinstance(answer, Exception)
        else HeldLocks(alias, answer)
        for alias, answer in answers.items()
    ]


def _backends() -> dict[str, BaseLockBackend]:
    found: dict[str, BaseLockBackend] = {}
    for alias in settings.LOCKS:
        backend = get_backend(alias)
        found.setdefault(backend.place, backend)
    return {backend.alias: backend for backend in found.values()}
