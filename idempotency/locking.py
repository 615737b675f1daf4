"""Locks as users write them: around blocks, functions and views."""

from __future__ import annotations

import logging
from typing import Any

from django.http import HttpRequest

from .exceptions import IdempotencyError, LockReentered, StaleLock
from .http import problem_response
from .locks import Lock
from .locks.aliases import CACHE
from .locks.entering import Terms
from .locks.lock import OnLocked
from .locks.names import Namer
from .rollbacks import roll_back_transactions

logger = logging.getLogger("idempotency")


class _ViewLock(Lock):
    """Answers a request that did not get the lock, instead of raising an error."""

    def refuse(self, error: IdempotencyError, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return super().refuse(error, args, kwargs)
        except LockReentered:
            raise  # A mistake, which the client would repeat for ever.
        except IdempotencyError:
            if not _is_request(args, kwargs):
                raise
            return problem_response(error)

    def fail(self, error: BaseException, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Answer for a lock whose loss the view has learned of; the rest is raised."""
        if not isinstance(error, StaleLock) or not _is_request(args, kwargs):
            raise error
        roll_back_transactions()
        return problem_response(error)

    def tell_lost(
        self, error: StaleLock, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> Any:
        if not _is_request(args, kwargs):
            raise error
        if roll_back_transactions():
            return problem_response(error)
        # Its effects are there to stay: an error would only make the client send it once more.
        logger.error("%s Its answer was sent even so.", error)
        return result


def _is_request(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a view was called, with Django's request or one that wraps it."""
    candidates = (*args[:2], kwargs.get("request"))
    return any(isinstance(getattr(one, "_request", one), HttpRequest) for one in candidates)


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

    Raises: `LockUnavailable` if *wait* seconds pass without success, which a decorated view
    answers by 409; `LockReentered`; `StaleLock` at the end if the lock was lost (409);
    `StoreUnavailable` (503).
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
