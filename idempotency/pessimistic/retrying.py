"""Transactions that are run anew when a lock ended them."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar

from asgiref.sync import iscoroutinefunction

from ..retries import run_again
from .waits import is_passing

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

_effects: ContextVar[list[str] | None] = ContextVar("idempotency_effects", default=None)


def declare_effect(what: str) -> None:
    """
    Say that something outside of the database was done: `atomic_retry` then runs nothing again.

    Args:
        what: for the person who reads the error.
    """
    effects = _effects.get()
    if effects is not None:
        effects.append(what)


def atomic_retry(
    function: Callable[Parameters, Result] | None = None,
    *,
    attempts: int = 3,
    using: str | None = None,
) -> Any:
    """
    Run the function in a transaction, and again if a deadlock or a lock wait ended it.

    Raises: `TransactionManagementError` when called inside of a transaction.
    """
    if function is None:
        return partial(atomic_retry, attempts=attempts, using=using)
    if iscoroutinefunction(function):
        raise TypeError("atomic_retry runs functions, and no coroutines: a transaction is sync.")
    if attempts < 1:
        raise TypeError(f"attempts is a number above 0, not {attempts!r}.")

    @wraps(function)
    def retried(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        effects: list[str] = []
        reset = _effects.set(effects)
        try:
            return run_again(
                partial(function, *args, **kwargs),
                may_retry=lambda error: not effects and is_passing(error),
                attempts=attempts,
                using=using,
            )
        finally:
            _effects.reset(reset)

    return retried
