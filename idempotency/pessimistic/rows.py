"""Rows that nobody else writes until the transaction ends."""

from __future__ import annotations

from typing import Any, Literal, TypeVar, overload

from django.core.exceptions import FieldDoesNotExist
from django.db import connections, models, router
from django.db.backends.base.base import BaseDatabaseWrapper

from ..inserts import TRIES, insert_once, unique_sets
from .locking import locking_rows, require_transaction

Row = TypeVar("Row", bound=models.Model)
Target = type[Row] | models.Manager[Row] | models.QuerySet[Row]


@overload
def lock_row(
    target: Target[Row] | Row,
    *,
    wait: float | None = None,
    skip_locked: Literal[False] = False,
    no_key: bool = True,
    many: bool = False,
    **lookup: Any,
) -> Row: ...


@overload
def lock_row(
    target: Target[Row] | Row,
    *,
    skip_locked: bool,
    no_key: bool = True,
    many: bool = False,
    **lookup: Any,
) -> Row | None: ...


def lock_row(
    target: Target[Row] | Row,
    *,
    wait: float | None = None,
    skip_locked: bool = False,
    no_key: bool = True,
    many: bool = False,
    **lookup: Any,
) -> Row | None:
    """
    Lock one row until the transaction ends, and give it as it is now.

    Args:
        target: a model, manager or queryset; or an object, which is read again in place.
        wait: seconds to wait for another holder; 0 tries once, None waits as the database does.
        skip_locked: give None if another holds the row.
        no_key: let others insert rows that refer to it, where the database can.
        many: allow a *lookup* that may match many rows, and take the first free one.

    Raises: `LockUnavailable` if another holds it for longer; `DoesNotExist`; `TypeError` if the
    *lookup* does not name one row; `TransactionManagementError` outside of a transaction.
    """
    if isinstance(target, models.Model):
        return _lock_object(target, lookup, wait=wait, no_key=no_key)
    rows: models.QuerySet[Row] = queryset_of(target)
    if not many:
        _require_unique(rows.model, lookup)
    rows = rows.filter(**lookup)
    with locking_rows(rows, wait=wait, skip_locked=skip_locked, no_key=no_key) as locking:
        found = list(locking.order_by("pk")[: 1 if many else 2])
        if not found and skip_locked:
            return None
        if len(found) != 1:
            found = [locking.get()]  # Tells what is wrong as Django does.
        return found[0]


def _lock_object(row: Row, lookup: dict[str, Any], *, wait: float | None, no_key: bool) -> Row:
    if lookup:
        raise TypeError("An object is its own look-up; give its model to look up another row.")
    if row.pk is None or row._state.adding:
        raise TypeError(f"This {row._meta.label} is not saved yet, so there is no row to lock.")
    using = router.db_for_write(type(row), instance=row)
    rows = type(row)._base_manager.using(using).filter(pk=row.pk)
    with locking_rows(rows, wait=wait, no_key=no_key) as locking:
        row.refresh_from_db(from_queryset=locking)
    return row


def lock_rows(
    target: Target[Row],
    *,
    wait: float | None = None,
    skip_locked: bool = False,
    no_key: bool = True,
) -> list[Row]:
    """
    Lock the rows until the transaction ends, in the order of their keys, and give them in it.

    Callers that lock some of the same rows never wait for each other in a circle.

    Raises: as `lock_row`; `TypeError` for a queryset whose result is not rows of one table.
    """
    rows = queryset_of(target)
    with locking_rows(rows, wait=wait, skip_locked=skip_locked, no_key=no_key) as locking:
        if connections[locking.db].vendor != "mysql":
            return list(locking.order_by("pk"))
        # InnoDB locks in the order in which it finds, so it is to find by the primary key.
        keys = sorted(rows.using(locking.db).order_by().values_list("pk", flat=True))
        found = list(locking.filter(pk__in=keys).order_by("pk"))
        if not _reads_committed(connections[locking.db]):
            found = list(locking.order_by("pk"))  # The keys came from an old snapshot.
        return found


def get_or_create_locked(
    target: type[Row] | models.Manager[Row],
    *,
    defaults: dict[str, Any] | None = None,
    wait: float | None = None,
    **unique: Any,
) -> tuple[Row, bool]:
    """
    Give the locked row with the *unique* values, and whether this call made it.

    It inserts first: a locking read that finds nothing locks nothing, or a gap, in which two
    inserts then wait for each other.

    Raises: as `lock_row`, and as `IdempotentManager.insert_once`.
    """
    rows = queryset_of(target)
    using = rows.select_for_update().db
    require_transaction(connections[using])
    for _ in range(TRIES):
        row, created = insert_once(rows.model, using, unique, defaults)
        if created:
            return row, True
        found = _lock_if_there(rows.model, using, row.pk, wait)
        if found is not None:
            return found, False
    raise rows.model.DoesNotExist


def _lock_if_there(model: type[Row], using: str, key: Any, wait: float | None) -> Row | None:
    rows = model._base_manager.using(using).filter(pk=key)
    with locking_rows(rows, wait=wait, no_key=True) as locking:
        return locking.first()


def queryset_of(target: Any) -> models.QuerySet[Any]:
    if isinstance(target, type) and issubclass(target, models.Model):
        return target._default_manager.all()
    if isinstance(target, models.Manager):
        return target.all()
    if isinstance(target, models.QuerySet):
        return target
    raise TypeError(f"A model, a manager or a queryset can be locked, not {target!r}.")


def _require_unique(model: type[models.Model], lookup: dict[str, Any]) -> None:
    names = set(filter(None, (_field_name(model, name) for name in lookup)))
    if not any(unique <= names for unique in unique_sets(model)):
        raise TypeError(
            f"{', '.join(sorted(lookup)) or 'This'} does not name one {model._meta.label}: without"
            " the primary key or a unique constraint a database may lock a range, or the table."
            " If that is meant, say many=True, or use lock_rows()."
        )


def _field_name(model: type[models.Model], name: str) -> str | None:
    plain = name.removesuffix("__exact")
    try:
        return model._meta.pk.name if plain == "pk" else str(model._meta.get_field(plain).name)
    except FieldDoesNotExist:
        return None


def _reads_committed(connection: BaseDatabaseWrapper) -> bool:
    level = connection.settings_dict["OPTIONS"].get("isolation_level", "read committed")
    return str(level).lower() == "read committed"
