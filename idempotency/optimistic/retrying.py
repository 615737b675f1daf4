"""Trying a stale change again, on what is stored now."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar

from asgiref.sync import iscoroutinefunction

from ..exceptions import StaleObject
from ..retries import run_again

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

_retrying: ContextVar[bool] = ContextVar("idempotency_retrying", default=False)


def retry_stale(
    function: Callable[Parameters, Result] | None = None,
    *,
    attempts: int = 5,
    using: str | None = None,
) -> Any:
    """
    Run the function in a transaction, and again when it raises `StaleObject`.

    It has to read inside what it changes. Only the outermost of several such functions is run
    again.

    Args:
        attempts: how often it is run at most.
        using: the database of the transaction.

    Raises: `TransactionManagementError` when called inside of a transaction.
    """
    if function is None:
        return partial(retry_stale, attempts=attempts, using=using)
    if iscoroutinefunction(function):
        raise TypeError("retry_stale runs functions, and no coroutines: a transaction is sync.")
    if attempts < 1:
        raise TypeError(f"attempts is a number above 0, not {attempts!r}.")

    @wraps(function)
    def retried(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        if _retrying.get():
            return function(*args, **kwargs)
        reset = _retrying.set(True)
        try:
            return run_again(
                partial(function, *args, **kwargs),
                may_retry=lambda error: isinstance(error, StaleObject),
                attempts=attempts,
                using=using,
            )
        finally:
            _retrying.reset(reset)

    return retried
