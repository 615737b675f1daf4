"""Serializers of versioned rows: no change without the version that it is made for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured
from rest_framework.exceptions import ValidationError
from rest_framework.fields import IntegerField

from ...exceptions import StaleObject
from ...optimistic import VersionedModel
from ...optimistic.versions import expected_version, version_field
from .order import FirstMixin

if TYPE_CHECKING:
    from rest_framework.serializers import ModelSerializer as Base
else:
    Base = object


class VersionedSerializerMixin(FirstMixin, Base):  # type: ignore[misc]
    """
    Takes the version of a row out with its values, and in with every change.

    Name it before `ModelSerializer`, and the version among `Meta.fields`. A change without it is
    refused, also a partial one, unless the view is a `ConditionalMixin` and the request has an
    `If-Match`; a change of an older version raises `StaleObject`, which is answered 409.
    """

    def get_fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = super().get_fields()
        name = self._version_name()
        if name not in fields:
            raise ImproperlyConfigured(
                f"{type(self).__name__} leaves out {name!r}: nobody could tell a stale change. Name"
                " it in Meta.fields."
            )
        fields[name] = IntegerField(min_value=1, required=False)
        return fields

    def to_internal_value(self, data: Any) -> Any:
        values = super().to_internal_value(data)
        name = self._version_name()
        is_change = self.instance is not None
        if is_change and name not in values and not self._is_conditional():
            raise ValidationError({name: [self.fields[name].error_messages["required"]]})
        return values

    def create(self, validated_data: dict[str, Any]) -> Any:
        validated_data.pop(self._version_name(), None)  # A new row begins at 1.
        return super().create(validated_data)

    def update(self, instance: Any, validated_data: dict[str, Any]) -> Any:
        model: type[VersionedModel] = type(instance)
        field = version_field(model)
        seen = validated_data.pop(field.name, None)
        actual = expected_version(instance, field)
        if seen is not None and seen != actual:
            raise StaleObject(
                "This was changed by somebody else meanwhile.",
                model=model,
                pk=instance.pk,
                expected=seen,
                actual=actual,
            )
        return super().update(instance, validated_data)

    def _version_name(self) -> str:
        model = self.Meta.model
        if not issubclass(model, VersionedModel):
            raise ImproperlyConfigured(
                f"{model.__name__} is no VersionedModel, and has no version."
            )
        return version_field(model).name

    def _is_conditional(self) -> bool:
        return bool(getattr(self.context.get("view"), "is_conditional", False))
