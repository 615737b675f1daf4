"""What the errors of a database mean to a claim."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

from django.db import Error as DatabaseError
from django.db import InternalError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Model
from django.db.transaction import TransactionManagementError

from ..exceptions import StoreUnavailable
from ..retries import is_undone
from ..tables import is_of_a_missing_table, refuse_missing_table
from .base import Interrupted, Unconfirmed

Result = TypeVar("Result")

IN_ERROR = 3
"""The status of a transaction that went wrong, in psycopg and psycopg2 alike."""

_BROKEN = (
    "The work went on after a database error, in a transaction that can only be rolled back. Put"
    " what may fail into `with transaction.atomic():` inside of the `try`."
)


def reach(connection: BaseDatabaseWrapper, step: Callable[[], Result]) -> Result:
    """Take *step*, and tell by the error whether it may go well in a new transaction."""
    try:
        return step()
    except TransactionManagementError:
        raise
    except InternalError as error:
        raise TransactionManagementError(_BROKEN) from error
    except DatabaseError as error:
        raise _unavailable(error, connection) from error


def begin(
    connection: BaseDatabaseWrapper, step: Callable[[], Result], model: type[Model]
) -> Result:
    """
    Take the first *step* of a call, which refuses it if the table of *model* is missing.

    Later ones do not: work that is done is not to end in an error of the settings.
    """
    try:
        return reach(connection, step)
    except StoreUnavailable as error:
        refuse_missing_table(error.__cause__, connection.alias, model)
        raise


def refuse_broken(connection: BaseDatabaseWrapper) -> None:
    """Raise `TransactionManagementError` if PostgreSQL would make a rollback of the commit."""
    if connection.vendor != "postgresql" or connection.connection is None:
        return
    if connection.connection.info.transaction_status == IN_ERROR:
        raise TransactionManagementError(_BROKEN)


class Transaction:
    """An atomic block that says when its commit was left unconfirmed."""

    def __init__(self, using: str) -> None:
        self.connection = connections[using]
        self.atomic = transaction.atomic(using=using)

    def __enter__(self) -> None:
        try:
            self.atomic.__enter__()
        except DatabaseError as error:
            raise _unavailable(error, self.connection) from error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        connection = self.connection
        before = connection.connection
        try:
            self.atomic.__exit__(kind, error, traceback)
        except DatabaseError as failure:
            # Django may have connected anew by now.
            is_lost = connection.connection is not before or _is_lost(connection)
            if kind is None and is_lost:
                raise Unconfirmed(retry_after=1) from failure
            raise


def _unavailable(error: DatabaseError, connection: BaseDatabaseWrapper) -> StoreUnavailable:
    """Give the error that tells whether the same step may go well in a new transaction."""
    if not is_of_a_missing_table(error) and (is_undone(error) or _is_lost(connection)):
        return Interrupted(retry_after=1)
    return StoreUnavailable(retry_after=1)


def _is_lost(connection: BaseDatabaseWrapper) -> bool:
    """Whether there was a connection that does not answer any more; it is closed then."""
    if connection.connection is None or connection.is_usable():
        return False
    connection.close()
    return True
