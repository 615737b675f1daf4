"""Letting go of a lock: at once, or after the transaction that it protects."""

from __future__ import annotations

import logging

from ..exceptions import StaleLock, StoreUnavailable
from ..renewal import renewal
from ..rollbacks import after_transactions
from .held import HeldLock
from .taking import in_thread

logger = logging.getLogger("idempotency")


def leave(held: HeldLock, *, failed: bool) -> None:
    """
    Leave a block of *held*, and free the lock if it was the outermost one.

    Inside of transactions it is freed when they have ended: before, nobody else could see what
    was done under it.

    Raises: `StaleLock` if the lock was lost, unless the block *failed* anyway.
    """
    if not held.leave():
        return
    held.is_leaving = after_transactions(
        lambda: _release(held), lambda is_last: _drop(held, is_last)
    )
    was_held = not held.lost if held.is_leaving else _release(held)
    _tell(held, was_held=was_held, failed=failed)


async def aleave(held: HeldLock, *, failed: bool) -> None:
    """Do what `leave` does, for asynchronous code, which has no transactions of its own."""
    if held.leave():
        was_held = await in_thread(held.backend, lambda: _release(held))
        _tell(held, was_held=was_held, failed=failed)


def _drop(held: HeldLock, is_last: bool) -> None:
    """Free *held* after a rollback, whose connection cannot be used at this moment."""
    if held.is_transactional and not held.goes_on:
        held.die()
    elif is_last:
        renewal.run_soon(lambda: _release(held))


def _release(held: HeldLock) -> bool:
    """Free *held* unless it was entered again; tell whether it was held until now."""
    held.is_leaving = False
    was_lost = held.lost
    try:
        return held.release_if_left() and not was_lost
    except StoreUnavailable:
        logger.warning("The lock %r lasts until its lease is over.", held.name, exc_info=True)
        return not was_lost


def _tell(held: HeldLock, *, was_held: bool, failed: bool) -> None:
    if not was_held and not failed:
        raise StaleLock(f"The lock {held.name!r} was lost before its work was done.")
