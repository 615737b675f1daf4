"""Transactions that are run anew when a lock ended them."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import Any, overload

from ..retries import Work, retrying, run_again
from .waits import is_passing

_effects: ContextVar[list[str] | None] = ContextVar("idempotency_effects", default=None)


def declare_effect(what: str) -> None:
    """
    Say that something outside of the database was done: `atomic_retry` then runs nothing again.

    Args:
        what: for the person who reads the error, which gets it as a note.
    """
    effects = _effects.get()
    if effects is not None:
        effects.append(what)


@overload
def atomic_retry(function: Work, /) -> Work: ...


@overload
def atomic_retry(*, attempts: int = 3, using: str | None = None) -> Callable[[Work], Work]: ...


def atomic_retry(
    function: Callable[..., Any] | None = None,
    *,
    attempts: int = 3,
    using: str | None = None,
) -> Any:
    """
    Run the function in a transaction, and again if a deadlock or a lock wait ended it.

    Args:
        attempts: how often it is run at most.
        using: the database of the transaction; the default one if None.

    Raises: `TransactionManagementError` when called inside of a transaction.
    """
    decorate = retrying("atomic_retry", _call, attempts=attempts, using=using)
    return decorate if function is None else decorate(function)


def _call(function: Callable[[], Any], *, attempts: int, using: str | None) -> Any:
    effects: list[str] = []
    reset = _effects.set(effects)
    try:
        return run_again(
            function,
            may_retry=partial(_may_retry, effects=effects),
            attempts=attempts,
            using=using,
        )
    finally:
        _effects.reset(reset)


def _may_retry(error: Exception, effects: list[str]) -> bool:
    if effects and is_passing(error):
        error.add_note(f"Not run again, because of what was done already: {', '.join(effects)}.")
    return not effects and is_passing(error)
