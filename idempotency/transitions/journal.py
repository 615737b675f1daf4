"""The log of transitions: who moved what from where to where, under which claim."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.db import connections, models, router
from django.db.models import Q, Value
from django.utils import timezone

from ..current import current_record_id
from ..models import TransitionLog
from .outcomes import moved_on
from .states import state_fields, text_of
from .steps import Step
from .taking import is_state, stored_state

LONGEST = 255
FOR_THE_LOG = frozenset({"by", "note"})
"""What a call takes beside the arguments of its method."""


def name_of(by: Any) -> str:
    """
    Give the words by which the log names an actor: "user:42" for a user, else its own.

    Raises: `ValueError` if they are longer than the log keeps.
    """
    words = "" if by is None else str(by)
    if isinstance(by, models.Model):
        kind = "user" if isinstance(by, AbstractBaseUser) else by._meta.label_lower
        words = f"{kind}:{by.pk}"
    if len(words) > LONGEST:
        raise ValueError(f"by= has {len(words)} characters; the log keeps up to {LONGEST}.")
    return words


def write_log(step: Step, source: Any, target: Any, by: str, note: str) -> None:
    """
    Note a transition in the transaction that is open, out of the row that it moved.

    Raises: `TransitionConflict` or `StaleObject` if the row is not in *target*: its body may have
    moved it again, or the database undone the transaction.
    """
    values = {
        **_of(step.field, step.keys),
        "transition": step.name,
        "source": text_of(source),
        "target": text_of(target),
        "by": by,
        "note": note,
        "record_id": current_record_id(),
        "created_at": timezone.now(),
    }
    rows = step.row_in(step.field.model).filter(is_state(step.field, target))
    if not _insert_from(rows, values, step.using):
        raise moved_on(step, target, stored_state(step))


def _insert_from(rows: models.QuerySet[Any], values: dict[str, Any], using: str) -> int:
    """Insert a row of the log for each of *rows*, in one statement; give how many there were."""
    connection, options = connections[using], TransitionLog._meta
    fields: list[Any] = [options.get_field(name) for name in values]
    written = [
        Value(value, output_field=field)
        for value, field in zip(values.values(), fields, strict=True)
    ]
    selected = rows.order_by().values_list(*written)
    select, parameters = selected.query.get_compiler(using).as_sql()
    quote = connection.ops.quote_name
    columns = [field.column for field in fields]
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {quote(options.db_table)} ({', '.join(map(quote, columns))}) {select}",
            parameters,
        )
        return int(cursor.rowcount)


def log_of(instance: models.Model) -> models.QuerySet[TransitionLog]:
    """Give the transitions of *instance*, the last one first."""
    using = router.db_for_write(type(instance), instance=instance)
    logs = TransitionLog.objects.using(using)
    wanted = Q()
    for field in state_fields(type(instance)):
        name = field.model._meta.pk.attname
        wanted |= Q(**_of(field, {name: getattr(instance, name)}))
    return logs.filter(wanted) if wanted else logs.none()


def _of(field: Any, keys: dict[str, Any]) -> dict[str, str]:
    """Name a row by the table that has its state, whichever child or proxy it was read as."""
    owner = field.model._meta
    given, parts = keys[owner.pk.attname], owner.pk_fields
    key = (
        owner.pk.to_python(given)
        if len(parts) == 1
        else tuple(part.to_python(value) for part, value in zip(parts, given, strict=True))
    )
    return {"model": owner.label_lower, "object_id": str(key), "field": field.name}
