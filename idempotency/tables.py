"""Tables that are not there, because nobody has run the migrations."""

from __future__ import annotations

from django.core.checks import CheckMessage, Warning
from django.db import connections, router
from django.db.models import Model

from .exceptions import InvalidBackend
from .retries import codes_of

MISSING = frozenset({"42P01", 1146})
"""What PostgreSQL, and MariaDB and MySQL, say of a table that they do not have."""


def is_of_a_missing_table(error: BaseException | None) -> bool:
    """Whether the database said so; nothing is asked, as the transaction may be broken by it."""
    if error is None:
        return False
    return bool(codes_of(error) & MISSING) or str(error).startswith("no such table")


def refuse_missing_table(error: BaseException | None, using: str, model: type[Model]) -> None:
    """Raise `InvalidBackend` if *error* is that of *using* without the table of *model*."""
    if is_of_a_missing_table(error):
        raise InvalidBackend(_told(using, model)) from error


def check_table(what: str, using: str, model: type[Model]) -> list[CheckMessage]:
    """
    Ask the database *using* whether it has the table of *model*, in which *what* is kept.

    An error would keep `manage.py migrate`, which asks the checks first, from making it.
    """
    if using not in connections:
        return []  # That is told without asking.
    if model._meta.db_table in connections[using].introspection.table_names(include_views=True):
        return []
    return [Warning(f"{what}: {_told(using, model)}", id="idempotency.W037")]


def _told(using: str, model: type[Model]) -> str:
    missing = f"The database {using!r} has no table {model._meta.db_table}"
    if router.allow_migrate_model(using, model):
        return f"{missing}: run `manage.py migrate idempotency --database {using}`."
    return f"{missing}, as DATABASE_ROUTERS lets none be made there: allow it, or name another one."
