"""The values of form fields: in a form that can be compared, and in words."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any

from django import forms
from django.core.files import File
from django.core.files.uploadedfile import UploadedFile
from django.db import models
from django.utils.formats import localize
from django.utils.timezone import is_aware, localtime
from django.utils.translation import gettext as _

NOTHING = "\N{EN DASH}"
UNORDERED = (forms.MultipleChoiceField, forms.ModelMultipleChoiceField)
DIGITS = 12


def digest_of(field: forms.Field, value: Any) -> str:
    """Give hex digits that are the same for the same value, whether stored or sent."""
    form = json.dumps(normal_form(field, value))
    return hashlib.sha256(form.encode(errors="surrogatepass")).hexdigest()[:DIGITS]


def normal_form(field: forms.Field, value: Any) -> Any:
    """Give what is equal for equal values, as strings and lists of them."""
    if isinstance(field, forms.JSONField):
        return json.dumps(value, sort_keys=True, default=str)
    if isinstance(value, models.Model):
        return str(field.prepare_value(value))
    if _is_many(value):
        items = [normal_form(field, one) for one in value]
        return sorted(items) if isinstance(field, UNORDERED) else items
    if isinstance(value, File):
        return f"new {value.name}" if isinstance(value, UploadedFile) else value.name or ""
    if type(field) is forms.BooleanField:
        value = bool(value)
    if value is None or (value is False and isinstance(field, forms.FileField)):
        return ""
    return _normal_text(field, value)


def _normal_text(field: forms.Field, value: Any) -> str:
    if isinstance(value, dt.datetime):
        return (value.astimezone(dt.UTC) if is_aware(value) else value).isoformat()
    if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
        number = Decimal(str(value))
        return format(number.normalize(), "f") if number.is_finite() else str(number)
    text = str(value).replace("\r\n", "\n")
    return text.strip() if getattr(field, "strip", False) else text


def in_words(field: forms.Field, value: Any) -> str:
    """Give a value as a person says it: the label of a choice, the name of an object."""
    if normal_form(field, value) in ("", [], "null"):
        return NOTHING
    if isinstance(field, forms.ModelChoiceField):
        return ", ".join(_names(field, value if _is_many(value) else [value]))
    if isinstance(field, forms.JSONField):
        return str(field.prepare_value(value))
    labels = dict(_flat(getattr(field, "choices", ())))
    many = value if _is_many(value) else [value]
    return ", ".join(labels.get(str(one)) or _said(one) for one in many)


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return _("Yes") if value else _("No")
    if isinstance(value, File):
        return value.name or NOTHING
    if isinstance(value, dt.datetime) and is_aware(value):
        value = localtime(value)
    return str(localize(value))


def as_sent(value: Any) -> str:
    """Give what was sent and could not be understood."""
    return ", ".join(str(one) for one in (value if _is_many(value) else [value])) or NOTHING


def _names(field: forms.ModelChoiceField[Any], values: Iterable[Any]) -> list[str]:
    """Give the names of related objects, sorted; a key that leads to none stands for itself."""
    keys = [field.prepare_value(one) for one in values]
    lookup = {f"{field.to_field_name or 'pk'}__in": keys}
    found = field.queryset.filter(**lookup) if field.queryset is not None else ()
    names = {field.prepare_value(one): field.label_from_instance(one) for one in found}
    return sorted(str(names.get(key, key)) for key in keys)


def _flat(choices: Iterable[Any]) -> Iterator[tuple[str, str]]:
    for key, label in choices:
        if isinstance(label, (list, tuple)):
            yield from _flat(label)
        else:
            yield str(key), str(label)


def _is_many(value: Any) -> bool:
    return isinstance(value, (list, tuple, set, frozenset, models.QuerySet))
