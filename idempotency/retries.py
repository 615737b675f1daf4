"""Running a function again in a new transaction."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial, wraps
from typing import Any, TypeVar, cast

from asgiref.sync import iscoroutinefunction
from django.db import Error, transaction
from django.db.transaction import TransactionManagementError

Result = TypeVar("Result")
Work = TypeVar("Work", bound=Callable[..., Any])

LONGEST = 0.25
"""The longest pause between two attempts, in seconds."""


UNDONE = frozenset({"40P01", "40001", 1213, 1020})
"""What PostgreSQL, and MariaDB and MySQL, say of a deadlock and of a row newer than a snapshot."""


def codes_of(error: BaseException) -> set[Any]:
    """Give the state or the number by which the database names *error*."""
    return {getattr(error.__cause__, "sqlstate", None), *error.args[:1]}


def is_undone(error: BaseException) -> bool:
    """Whether the database has undone the transaction, which may go well when it is run anew."""
    return isinstance(error, Error) and bool(codes_of(error) & UNDONE)


def retrying(name: str, call: Callable[..., Any], **options: Any) -> Callable[[Work], Work]:
    """Give the decorator *name*, which has *call* run the function with the *options*."""
    if options["attempts"] < 1:
        raise TypeError(f"attempts is a number above 0, not {options['attempts']!r}.")

    def decorate(function: Work) -> Work:
        if iscoroutinefunction(function):
            raise TypeError(f"{name} runs functions, and no coroutines: a transaction is sync.")

        @wraps(function)
        def retried(*args: Any, **kwargs: Any) -> Any:
            return call(partial(function, *args, **kwargs), **options)

        return cast(Work, retried)

    return decorate


def run_again(
    function: Callable[[], Result],
    *,
    may_retry: Callable[[Exception], bool],
    attempts: int,
    using: str | None,
) -> Result:
    """
    Run *function* in a transaction of its own, again while *may_retry* says so of its error.

    Raises: `TransactionManagementError` inside of another transaction, whose earlier writes no
    attempt could take back; the last error after *attempts* attempts.
    """
    pause = 0.005
    while True:
        attempts -= 1
        try:
            return _run_outermost(function, using)
        except Exception as error:
            if not attempts or not may_retry(error):
                raise
        time.sleep(random.uniform(pause / 2, pause))  # noqa: S311 - not a secret.
        pause = min(pause * 2, LONGEST)


def _run_outermost(function: Callable[[], Result], using: str | None) -> Result:
    with ExitStack() as stack:
        try:
            stack.enter_context(transaction.atomic(using=using, durable=True))
        except RuntimeError as error:
            raise TransactionManagementError(
                "This function is retried in a new transaction, and is called inside of one that is"
                " open. Call it outside, or put the decorator on the function that opens it."
            ) from error
        return function()
