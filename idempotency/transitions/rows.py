"""What a model with transitions does beside them: it never writes an old state back."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from django.core import checks
from django.core.exceptions import ValidationError
from django.db import models, router
from django_fsm import FSMModelMixin

from ..optimistic import VersionedModel
from .states import is_as_read, protected_names, remember, state_fields
from .steps import running_in

if TYPE_CHECKING:
    Base = models.Model
else:  # A second abstract model would hide the Meta of the first.
    Base = object

REFRESHING = "_states_refreshing"
"""Where an object keeps which protected states it is just reading again."""

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

    @classmethod
    def from_db(
        cls, db: Any, field_names: Collection[str], values: Collection[Any], **options: Any
    ) -> Any:
        instance = super().from_db(db, field_names, values, **options)
        remember(instance, state_fields(cls))
        return instance

    def save(self, *args: Any, **options: Any) -> None:
        options |= dict(zip(SAVE_ARGUMENTS, args, strict=False))
        left_out = _left_out(self, options)
        if left_out:
            options["update_fields"] = _saved_names(self, options, left_out)
        super().save(**options)
        written = options.get("update_fields")
        remember(self, [f for f in state_fields(type(self)) if _is_among(f, written)])

    save.alters_data = True  # type: ignore[attr-defined]

    def refresh_from_db(
        self, using: str | None = None, fields: Any = None, from_queryset: Any = None
    ) -> None:
        known = self.__dict__
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
        read = state_fields(type(self))
        remember(self, [f for f in read if _is_among(f, fields)])

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
                field.clean(field.get_state(self), self)
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
        return [*super().check(**options), *_check_bases(cls), *_check_protection(cls)]


def _left_out(instance: Any, options: dict[str, Any]) -> set[str]:
    """Give the names of the states that a save must not write: what is stored may be newer."""
    using = options.get("using") or router.db_for_write(type(instance), instance=instance)
    if instance._state.adding or options.get("force_insert") or using != instance._state.db:
        return set()
    running = running_in(instance)
    guarded = isinstance(instance, VersionedModel)  # An old object is refused as a whole.
    return {
        field.name
        for field in state_fields(type(instance))
        if field.attname in running or (not guarded and is_as_read(instance, field))
    }


def _saved_names(instance: Any, options: dict[str, Any], left_out: set[str]) -> set[str]:
    """Give the names of the fields that the save writes, without those *left_out*."""
    asked = options.get("update_fields")
    fields = [
        field
        for field in instance._meta.concrete_fields
        if not (field.primary_key or field.generated or field.name in left_out)
    ]
    if asked is None:
        return {field.name for field in fields if field.attname in instance.__dict__}
    kept = {
        name
        for field in instance._meta.concrete_fields
        if field.name in left_out
        for name in (field.name, field.attname)
    }
    return set(asked) - kept


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


def _check_protection(model: type[models.Model]) -> list[checks.CheckMessage]:
    return [
        checks.Warning(
            f"The state {model._meta.label}.{field.name} can be set by hand, past its transitions.",
            hint="Declare it with protected=True.",
            obj=model,
            id="idempotency.W008",
        )
        for field in state_fields(model)
        if not field.protected
    ]
