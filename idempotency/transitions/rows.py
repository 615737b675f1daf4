"""What a model with transitions does beside them: it never writes an old state back."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from functools import partial
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.core import checks
from django.core.exceptions import ValidationError
from django.db import models, router
from django_fsm import FSMModelMixin

from ..models import TransitionLog
from ..optimistic import VersionedModel
from ..optimistic.versions import make_new, version_field
from ..rollbacks import on_rollback
from ..tables import check_table
from .states import READ, is_as_read, protected_names, remember, state_fields, state_of
from .underway import changing, note_read, note_written

if TYPE_CHECKING:
    Base = models.Model
else:  # A second abstract model would hide the Meta of the first.
    Base = object

REFRESHING = "_states_refreshing"
"""Where an object keeps which protected states it is just reading again."""

OURS = "_idempotency_transition"
"""What a method has that this app declared as a transition."""

SAVE_ARGUMENTS = ("force_insert", "force_update", "using", "update_fields")


class TransitionsMixin(Base):
    """
    A model whose state only transitions change: name it first among the bases.

    A save leaves the state alone, so that an object read before a transition does not undo it.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        order = cls.__mro__
        if models.Model in order and order.index(models.Model) < order.index(TransitionsMixin):
            raise TypeError(f"Name TransitionsMixin first among the bases of {cls.__name__}.")

    def __init__(self, *args: Any, **values: Any) -> None:
        super().__init__(*args, **values)
        remember(self, state_fields(type(self)))

    def save(self, *args: Any, **options: Any) -> None:
        options |= dict(zip(SAVE_ARGUMENTS, args, strict=False))
        using = options.get("using") or router.db_for_write(type(self), instance=self)
        is_new, had_key, read = self._state.adding, self.pk is not None, self.__dict__.get(READ, {})
        left_out = _left_out(self, options)
        if left_out:
            options["update_fields"] = _saved_names(self, options, left_out)
        super().save(**options)
        names = options.get("update_fields")
        written = [field for field in self._meta.concrete_fields if _is_among(field, names)]
        remember(self, [field for field in state_fields(type(self)) if field in written])
        note_written(self, [field.attname for field in written], using)
        if is_new or self.__dict__[READ] != read:
            on_rollback(partial(_unsave, self, read, is_new, had_key), using)

    save.alters_data = True  # type: ignore[attr-defined]

    def refresh_from_db(
        self, using: str | None = None, fields: Any = None, from_queryset: Any = None
    ) -> None:
        known, fields = self.__dict__, None if fields is None else list(fields)
        asked = protected_names(type(self)) & (known.keys() if fields is None else set(fields))
        # A protected state can be set as long as there is none: no other object notices.
        before = {name: known.pop(name) for name in asked if name in known}
        known[REFRESHING] = frozenset(before)
        try:
            super().refresh_from_db(using=using, fields=fields, from_queryset=from_queryset)
        finally:
            del known[REFRESHING]
            for name in before.keys() - known.keys():
                known[name] = before[name]
        read = [field for field in self._meta.concrete_fields if _is_among(field, fields)]
        remember(self, [field for field in state_fields(type(self)) if field in read])
        note_read(self, [field.attname for field in read])

    def get_deferred_fields(self) -> set[str]:
        refreshing: frozenset[str] = self.__dict__.get(REFRESHING, frozenset())
        deferred: set[str] = super().get_deferred_fields()
        return deferred - refreshing

    def clean_fields(self, exclude: Collection[str] | None = None) -> None:
        skipped = set(exclude or ())
        protected = [f for f in state_fields(type(self)) if f.protected and f.name not in skipped]
        errors: dict[str, Any] = {}
        for field in protected:
            try:
                field.clean(state_of(self, field), self)
            except ValidationError as error:
                errors[field.name] = error.error_list
        try:
            super().clean_fields(exclude=skipped | {field.name for field in protected})
        except ValidationError as error:
            errors = error.update_error_dict(errors)
        if errors:
            raise ValidationError(errors)

    @classmethod
    def check(cls, **options: Any) -> list[checks.CheckMessage]:
        return [
            *super().check(**options),
            *_check_bases(cls),
            *_check_declarations(cls),
            *_check_protection(cls),
        ]


def _unsave(instance: Any, read: dict[str, Any], was_new: bool, had_key: bool) -> None:
    instance.__dict__[READ] = read
    if was_new:
        make_new(instance, had_key)


def _left_out(instance: Any, options: dict[str, Any]) -> set[str]:
    """Give the names of the states that a save must not write: what is stored may be newer."""
    own = (None, instance._state.db, router.db_for_write(type(instance), instance=instance))
    is_insert = instance._state.adding or instance.pk is None or options.get("force_insert")
    if is_insert or options.get("using") not in own:
        return set()
    now = changing(instance)
    return {
        field.name
        for field in state_fields(type(instance))
        if field.attname in now
        or (not _is_guarded(instance, field) and is_as_read(instance, field))
    }


def _is_guarded(instance: Any, field: Any) -> bool:
    """Whether each transition counts a version up, so that an old object is refused as a whole."""
    if not isinstance(instance, VersionedModel):
        return False
    return issubclass(field.model, version_field(type(instance)).model)


def _saved_names(instance: Any, options: dict[str, Any], left_out: set[str]) -> set[str]:
    """Give the names of the fields that the save writes, without those *left_out*."""
    asked = options.get("update_fields")
    if asked is not None:
        states = [field for field in state_fields(type(instance)) if field.name in left_out]
        return {name for name in asked if not any(_is_among(field, [name]) for field in states)}
    keys = {*instance._meta.pk_fields}
    return {
        field.name
        for field in instance._meta.concrete_fields
        if field.attname in instance.__dict__
        and not (field in keys or field.primary_key or field.generated or field.name in left_out)
    }


def _is_among(field: Any, names: Collection[str] | None) -> bool:
    return names is None or field.name in names or field.attname in names


def _check_bases(model: type[models.Model]) -> list[checks.CheckMessage]:
    if not issubclass(model, FSMModelMixin):
        return []
    return [
        checks.Error(
            f"{model._meta.label} has a mixin of django-fsm beside TransitionsMixin: it refuses"
            " saves after each transition, and switches the protection of states off for a time.",
            hint="Remove ConcurrentTransitionMixin and FSMModelMixin from its bases.",
            obj=model,
            id="idempotency.E008",
        )
    ]


def _check_declarations(model: type[models.Model]) -> list[checks.CheckMessage]:
    names = {field.name for field in model._meta.get_fields()}
    found: list[checks.CheckMessage] = []
    for name, method in inspect.getmembers(model, lambda member: hasattr(member, "_django_fsm")):
        declared = method._django_fsm.field
        if getattr(declared, "name", declared) not in names:
            message = (
                f"{model._meta.label}.{name}() is a transition of {declared!r}: no such field."
            )
            hint = "Name the state field."
            found.append(checks.Error(message, hint=hint, obj=model, id="idempotency.E009"))
        elif not hasattr(method, OURS):
            message = (
                f"{model._meta.label}.{name}() is a transition of django-fsm, not of this app."
            )
            hint = "Import transition from idempotency.transitions."
            found.append(checks.Error(message, hint=hint, obj=model, id="idempotency.E010"))
    return found


def _check_protection(model: type[models.Model]) -> list[checks.CheckMessage]:
    return [
        checks.Warning(
            f"The state {model._meta.label}.{field.name} can be set by hand, past its transitions.",
            hint="Declare it with protected=True.",
            obj=model,
            id="idempotency.W008",
        )
        for field in state_fields(model)
        if not field.protected and not field.is_relation
    ]


@checks.register(checks.Tags.database)
def check_log(*, databases: Collection[str] | None = None, **options: Any) -> list[Any]:
    """Tell if there is no log of transitions beside the rows; each of them would fail."""
    guarded = [model for model in apps.get_models() if issubclass(model, TransitionsMixin)]
    return [
        message
        for using in sorted({router.db_for_write(model) for model in guarded})
        if using in (databases or ())
        for message in check_table("The log of transitions", using, TransitionLog)
    ]
