"""Locks as users write them: around blocks, functions and views."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from .exceptions import IdempotencyError
from .http import problem_response
from .locks import Lock
from .locks.aliases import CACHE
from .locks.entering import Terms
from .locks.lock import OnLocked
from .locks.names import Namer


class _ViewLock(Lock):
    def refuse(self, error: IdempotencyError, args: tuple[Any, ...]) -> Any:
        try:
            return super().refuse(error, args)
        except IdempotencyError:
            if any(isinstance(argument, HttpRequest) for argument in args[:2]):
                return problem_response(error)
            raise


def lock(
    name: str | Namer,
    *,
    wait: float = 0,
    lease: float | None = None,
    renew: bool = True,
    backend: str = "default",
    on_locked: OnLocked = "raise",
    on_lost: Any = None,
    reentrant: bool = False,
) -> Lock:
    """
    Hold the lock *name* around a block (`with`, `async with`) or, as a decorator, each call.

    Args:
        name: for a function a template of its arguments, `"order:{order_id}"`, or a function that
            takes them and gives the name; for a block the name itself.
        wait: seconds to wait for another holder; 0 tries once.
        lease: seconds after which others may take it over; the backend's LEASE if None.
        renew: whether the lease is renewed in the background, up to 120 times its length.
        backend: the alias in `IDEMPOTENCY_LOCKS`.
        on_locked: what a call does whose lock another has: "raise", "skip" (it gives None), or a
            function that takes the error and gives the result.
        on_lost: called in another thread with the `HeldLock` when it is known to be lost.
        reentrant: whether code that holds the lock may enter it again.

    Raises: `LockUnavailable` if *wait* seconds pass without success, which a view answers by 409;
    `LockReentered`; `StaleLock` at the end if the lock was lost; `StoreUnavailable` (503).
    """
    terms = Terms(wait=wait, lease=lease, renew=renew, on_lost=on_lost, reentrant=reentrant)
    return _ViewLock(name, backend, on_locked, terms)


def cache_lock(name: str | Namer, *, backend: str = CACHE, **options: Any) -> Lock:
    """
    Hold a lock in Redis, with the options of `lock`.

    The alias "cache" in `IDEMPOTENCY_LOCKS` says where. Without it, that is the Redis of the
    alias "default" if there is one, or else the one behind the default cache.
    """
    return lock(name, backend=backend, **options)
