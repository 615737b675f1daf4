"""The locks that are held now, wherever they are kept."""

from __future__ import annotations

from ..conf import settings
from ..exceptions import InvalidBackend
from ..locks.aliases import get_backend
from ..locks.base import BaseLockBackend
from .asking import ask_all, failure_of
from .figures import HeldLocks


def held_locks() -> list[HeldLocks]:
    """Give what each lock backend holds; aliases for the same locks are asked once."""
    found, failures = _backends()
    answers = ask_all({alias: backend.live for alias, backend in found.items()})
    return failures + [
        HeldLocks(alias, [], failure_of(answer))
        if isinstance(answer, Exception)
        else HeldLocks(alias, answer)
        for alias, answer in answers.items()
    ]


def _backends() -> tuple[dict[str, BaseLockBackend], list[HeldLocks]]:
    """Give the backends by the first alias of each place, and those that cannot be made."""
    found: dict[str, BaseLockBackend] = {}
    failures = []
    for alias in settings.LOCKS:
        try:
            backend = get_backend(alias)
        except InvalidBackend as error:
            failures.append(HeldLocks(alias, [], str(error)))
        else:
            found.setdefault(backend.place, backend)
    return {backend.alias: backend for backend in found.values()}, failures
