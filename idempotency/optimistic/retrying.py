"""Trying a stale change again, on what is stored now."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, overload

from ..exceptions import StaleObject
from ..retries import Work, is_undone, retrying, run_again

_retrying: ContextVar[bool] = ContextVar("idempotency_retrying", default=False)


@overload
def retry_stale(function: Work, /) -> Work: ...


@overload
def retry_stale(*, attempts: int = 5, using: str | None = None) -> Callable[[Work], Work]: ...


def retry_stale(
    function: Callable[..., Any] | None = None,
    *,
    attempts: int = 5,
    using: str | None = None,
) -> Any:
    """
    Run the function in a transaction, and again when it raises `StaleObject`.

    It is run again as well when the database undoes it: for a deadlock, or a row newer than its
    snapshot.

    It has to read inside what it changes. Only the outermost of several such functions is run
    again.

    Args:
        attempts: how often it is run at most.
        using: the database of the transaction; the default one if None.

    Raises: `TransactionManagementError` when called inside of a transaction.
    """
    decorate = retrying("retry_stale", _call, attempts=attempts, using=using)
    return decorate if function is None else decorate(function)


def _call(function: Callable[[], Any], *, attempts: int, using: str | None) -> Any:
    if _retrying.get():
        return function()
    reset = _retrying.set(True)
    try:
        return run_again(function, may_retry=_may_retry, attempts=attempts, using=using)
    finally:
        _retrying.reset(reset)


def _may_retry(error: Exception) -> bool:
    # Of a row newer than its snapshot, the database itself may say that it is stale.
    return isinstance(error, StaleObject) or is_undone(error)
