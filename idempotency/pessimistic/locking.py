"""Querysets that lock what they read, and how long they wait for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

from django.db import DEFAULT_DB_ALIAS, Error, connections, models, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.transaction import TransactionManagementError

from ..exceptions import LockUnavailable
from .waits import bound_waits, is_lock_wait

Row = TypeVar("Row", bound=models.Model)


@contextmanager
def lock_timeout(seconds: float, *, using: str | None = None) -> Iterator[None]:
    """
    Let no statement of the block wait longer than *seconds* for a lock.

    What was set before comes back, also when the block fails. MariaDB and MySQL count whole
    seconds, rounded up.

    Args:
        using: the database; the default one if None, as for `transaction.atomic`.

    Raises: `TransactionManagementError` outside of a transaction on that database.
    """
    connection = connections[using or DEFAULT_DB_ALIAS]
    require_transaction(connection)
    with bound_waits(connection, seconds_of(seconds)):
        yield


def seconds_of(wait: Any) -> float:
    if isinstance(wait, bool) or not isinstance(wait, int | float) or not wait >= 0:
        raise TypeError(f"A wait is a number of seconds, 0 or more, not {wait!r}.")
    return wait


def require_transaction(connection: BaseDatabaseWrapper) -> None:
    if not connection.in_atomic_block:
        raise TransactionManagementError(
            f"A row is locked until the transaction ends, and none is open on"
            f" {connection.alias!r}. Use `with transaction.atomic(using={connection.alias!r}):`."
        )


def _refuse_what_cannot_be_locked(rows: models.QuerySet[Any]) -> None:
    query = rows.query
    joins = [getattr(table, "join_type", None) for table in query.alias_map.values()]
    wrong = {
        "is sliced": query.is_sliced,
        "is distinct": query.distinct,
        "is combined of others": bool(query.combinator),
        "groups its rows": query.group_by is not None,
        "joins rows that need not be there": "LEFT OUTER JOIN" in joins,
    }
    for what, applies in wrong.items():
        if applies:
            raise TypeError(
                f"This queryset {what}, so its result is not the rows that would be locked. Lock"
                " the rows by their keys: filter(pk__in=…), or with Exists() instead of the join."
            )


@contextmanager
def locking_rows(
    rows: models.QuerySet[Row],
    *,
    wait: float | None,
    no_key: bool,
    skip_locked: bool = False,
) -> Iterator[models.QuerySet[Row]]:
    """Give the rows as a queryset that locks what it reads, within the bounds of *wait*."""
    if skip_locked and wait is not None:
        raise TypeError("skip_locked never waits; leave wait= out.")
    seconds = None if wait is None else seconds_of(wait)
    _refuse_what_cannot_be_locked(rows)
    connection = connections[rows.select_for_update().db]
    require_transaction(connection)
    features = connection.features
    try:
        with ExitStack() as stack:
            if seconds is not None and connection.vendor == "postgresql":
                # An error breaks the transaction; its savepoint can be gone back to.
                stack.enter_context(transaction.atomic(using=connection.alias))
            if seconds or (seconds == 0 and not features.has_select_for_update_nowait):
                stack.enter_context(bound_waits(connection, seconds))
            if not features.has_select_for_update:
                _take_write_lock(connection, rows.model)
                yield rows.using(connection.alias)
                return
            if features.has_select_for_update_of:
                of: tuple[str, ...] = ("self", *_parent_links(rows.model))
            else:  # The rows of relations would be locked too.
                rows, of = rows.select_related(None), ()
            yield rows.using(connection.alias).select_for_update(
                nowait=seconds == 0 and features.has_select_for_update_nowait,
                skip_locked=skip_locked,
                no_key=no_key and features.has_select_for_no_key_update,
                of=of,
            )
    except Error as error:
        if is_lock_wait(error):
            raise LockUnavailable(retry_after=1) from error
        raise


def _parent_links(model: type[models.Model], before: str = "") -> Iterator[str]:
    for parent, link in model._meta.parents.items():
        if link is not None and parent._meta.concrete_model is not model._meta.concrete_model:
            yield f"{before}{link.name}"
            yield from _parent_links(parent, f"{before}{link.name}__")


def _take_write_lock(connection: BaseDatabaseWrapper, model: type[models.Model]) -> None:
    """Lock all of a SQLite file: a read takes no lock there, and a write of nothing does."""
    quote = connection.ops.quote_name
    key = quote(next(iter(model._meta.pk_fields)).column or "")
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {quote(model._meta.db_table)} SET {key} = {key} WHERE 0")
