"""Letting go of a lock: at once, or after the transaction that it protects."""

from __future__ import annotations

import logging
import os

from django.db.transaction import TransactionManagementError

from ..exceptions import StaleLock, StoreUnavailable
from ..renewal import renewal
from ..rollbacks import at_transaction_ends
from .context import Place
from .held import HeldLock

logger = logging.getLogger("idempotency")

_undone: dict[Place, HeldLock] = {}
"""Locks whose transaction was rolled back, until they are freed in the background."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_undone.clear)


def leave(held: HeldLock, *, failed: bool) -> None:
    """
    Leave a block of *held*, and free the lock if it was the outermost one.

    Inside of transactions it is freed when they have ended: before, nobody else could see what
    was done under it.

    Raises: `StaleLock` if the lock was lost, unless the block *failed* anyway.
    """
    if not held.leave():
        return
    try:
        pending = at_transaction_ends(lambda committed: _end(held, committed=committed))
    except TransactionManagementError:
        _release(held, failed=True)
        if not failed:
            raise
        return
    if pending:
        held.await_ends(pending)
    was_held = failed or _is_held_still(held) if pending else _release(held, failed=failed)
    if not was_held and not failed:
        raise StaleLock(f"The lock {held.name!r} was lost before its work was done.")


def _is_held_still(held: HeldLock) -> bool:
    """Ask who keeps the lock, so that a loss nobody has told of yet rolls the transaction back."""
    try:
        return held.confirm()
    except StoreUnavailable:
        return not held.lost


def is_unfinished(place: Place) -> bool:
    """Whether a rollback in this process has left something at *place* that is not free yet."""
    return place in _undone


def finish_leaving(place: Place) -> None:
    """Free what a rollback in this process has left at *place*, if it is not free yet."""
    held = _undone.get(place)
    if held is not None:
        _release(held, failed=True)  # Waits, if another thread is at it.
        if _undone.get(place) is held:
            _undone.pop(place, None)


def _end(held: HeldLock, *, committed: bool) -> None:
    """Free *held* if this was the end of the last transaction around it."""
    if not held.end():
        return
    if committed:
        _release_committed(held)
    elif held.is_transactional and not held.goes_on:
        held.die()
    else:
        place = (held.backend.place, held.name)
        _undone[place] = held
        renewal.run_soon(lambda: finish_leaving(place), held.backend)


def _release_committed(held: HeldLock) -> None:
    was_held = _release(held, failed=True)
    if not was_held and not held.is_transactional:
        logger.error("The lock %r was lost between the end of its block and the commit.", held.name)


def _release(held: HeldLock, *, failed: bool) -> bool:
    """Free *held* unless it is needed still; tell whether it was held until now."""
    outlived = held.is_transactional and held.lost
    try:
        # Who kept the lock knows better than our clock whether another got it meanwhile.
        return held.release_if_left() and not outlived
    except StoreUnavailable:
        logger.warning("The lock %r lasts until its lease is over.", held.name, exc_info=True)
        return not held.lost
    except Exception:
        if not failed:
            raise
        # What made the block fail, or what is committed, matters more.
        logger.exception("The lock %r could not be released.", held.name)
        return True
