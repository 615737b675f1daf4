"""Strategy 1 on any model: the unique key of a row decides who made it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from django.db import IntegrityError, NotSupportedError, connections, models, router
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.expressions import DatabaseDefault

Row = TypeVar("Row", bound=models.Model)

DUPLICATE_ENTRY = 1062
"""MariaDB's and MySQL's number of the error of a broken unique constraint."""

TRIES = 3
"""How often a row is inserted that another call deletes before it can be read."""


class IdempotentManager(models.Manager[Row]):
    """A manager with `insert_once`; a drop-in for `objects`."""

    def insert_once(
        self, *, defaults: dict[str, Any] | None = None, **unique: Any
    ) -> tuple[Row, bool]:
        """
        Give the row with the *unique* values, and whether this call made it.

        One INSERT decides, without a savepoint or an exception on the way: callers that race get
        one row between them, and nobody's transaction breaks. As with `bulk_create`, `save()` is
        not called and no signals are sent.

        Args:
            defaults: the other values of a new row; without effect on one that was there.
            unique: the fields of one unique constraint, or the primary key.

        Raises: `TypeError` if no constraint makes *unique* unique, or a value is no plain value;
        `IntegrityError` if a new row would break another constraint.
        """
        using = self._db or router.db_for_write(self.model)
        return insert_once(self.model, using, unique, defaults)


def insert_once(
    model: type[Row], using: str, unique: dict[str, Any], defaults: dict[str, Any] | None
) -> tuple[Row, bool]:
    """Do what `IdempotentManager.insert_once` says, for any model."""
    _check_unique(model, unique)
    for _ in range(TRIES):
        row = model(**{**(defaults or {}), **unique})
        if _insert(connections[using], row, list(unique)):
            return row, True
        existing = _find(model, connections[using], unique)
        if existing is not None:
            return existing, False
    raise IntegrityError(
        f"A new {model._meta.label} conflicts with another row than the one with"
        f" {', '.join(unique)}: another of its constraints stands in the way."
    )


def _check_unique(model: type[models.Model], unique: dict[str, Any]) -> None:
    if model._meta.parents:
        raise TypeError(f"{model._meta.label} has two tables, and one INSERT fills only one.")
    names = {model._meta.get_field(name).name for name in unique if name != "pk"}
    if "pk" in unique:
        names.add(model._meta.pk.name)
    if names not in unique_sets(model):
        listed = ", ".join(sorted(names)) or "nothing"
        raise TypeError(
            f"No constraint of {model._meta.label} makes {listed} unique. Add a UniqueConstraint on"
            " exactly these fields, or pass the others in defaults=."
        )
    if None in unique.values():
        raise TypeError("None is never equal to None in a unique constraint; give a value.")


def unique_sets(model: type[models.Model]) -> list[set[str]]:
    """Give the sets of fields that the database keeps unique, at once and in every row."""
    options = model._meta
    single = [{field.name} for field in options.concrete_fields if field.unique]
    together = [set(names) for names in options.unique_together]
    constraints = [
        set(constraint.fields)
        for constraint in options.constraints
        if isinstance(constraint, models.UniqueConstraint)
        and constraint.fields
        and constraint.condition is None
        and not constraint.deferrable
    ]
    return single + together + constraints


def _find(model: type[Row], connection: BaseDatabaseWrapper, unique: dict[str, Any]) -> Row | None:
    rows = model._base_manager.using(connection.alias).filter(**unique)
    if connection.vendor == "mysql" and connection.in_atomic_block:
        # Under REPEATABLE READ only a locking read shows what the insert met, and has locked.
        rows = rows.select_for_update()
    return rows.first()


def _insert(connection: BaseDatabaseWrapper, row: models.Model, unique: list[str]) -> bool:
    """Insert *row* unless one with the same unique values is there; tell which."""
    quote = connection.ops.quote_name
    values, left_out = _values(connection, row)
    insert = (
        f"INSERT INTO {quote(row._meta.db_table)} ({', '.join(map(quote, values))})"
        f" VALUES ({', '.join(['%s'] * len(values))})"
    )
    with connection.cursor() as cursor:
        made = _statement(connection)(cursor, insert, list(values.values()), row, unique)
    if made is None:
        return False
    if row.pk is None:
        row.pk = made
    for name in left_out:
        row.__dict__.pop(name, None)  # The database gives it a value: read when it is asked for.
    row._state.adding, row._state.db = False, connection.alias
    return True


def _values(connection: BaseDatabaseWrapper, row: models.Model) -> tuple[dict[str, Any], list[str]]:
    """Give the values by column, and the names of fields that the database fills."""
    values: dict[str, Any] = {}
    left_out: list[str] = []
    for field in row._meta.concrete_fields:
        if field.generated or (field.primary_key and row.pk is None):
            left_out += [] if field.primary_key else [field.attname]
            continue
        value = field.pre_save(row, add=True)
        if isinstance(value, DatabaseDefault):
            left_out.append(field.attname)
            continue
        if hasattr(value, "resolve_expression"):
            raise TypeError(f"insert_once takes plain values, and {field.name} is an expression.")
        values[str(field.column)] = field.get_db_prep_save(value, connection)
    return values, left_out


def _column(row: models.Model, name: str) -> str:
    field: Any = row._meta.pk if name == "pk" else row._meta.get_field(name)
    return str(field.column)


def _statement(connection: BaseDatabaseWrapper) -> Callable[..., Any]:
    if connection.vendor in ("postgresql", "sqlite"):
        return _do_nothing
    if connection.vendor != "mysql":
        raise NotSupportedError(f"insert_once does not know {connection.vendor}.")
    return _catch_duplicate


def _do_nothing(
    cursor: Any, insert: str, values: list[Any], row: models.Model, unique: list[str]
) -> Any:
    """Give the new row's primary key, or None if there is a row with its *unique* values."""
    quote = cursor.db.ops.quote_name
    target = ", ".join(quote(_column(row, name)) for name in unique)
    cursor.execute(
        f"{insert} ON CONFLICT ({target}) DO NOTHING RETURNING {quote(row._meta.pk.column)}",
        values,
    )
    made = cursor.fetchone()
    return None if made is None else made[0]


def _catch_duplicate(
    cursor: Any, insert: str, values: list[Any], row: models.Model, unique: list[str]
) -> Any:
    """
    Do what `_do_nothing` does on MariaDB and MySQL, where an error undoes one statement alone.

    Not by INSERT IGNORE, which cuts long values and forgives broken references, nor by ON DUPLICATE
    KEY UPDATE, which does not tell whether it made the row.
    """
    try:
        cursor.execute(insert, values)
    except IntegrityError as error:
        if error.args[0] != DUPLICATE_ENTRY:
            raise
        return None
    return cursor.lastrowid if row.pk is None else row.pk
