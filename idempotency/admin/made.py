"""What a call made, as far as its transitions tell: links to pages of the admin."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.contrib.admin.utils import quote
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse

from ..models import TransitionLog


@dataclass(frozen=True, slots=True)
class Made:
    """An object that was moved; *url* is "" where there is no page of it for this person."""

    label: str
    url: str


def made_by(entries: Iterable[TransitionLog], site: Any, request: HttpRequest) -> list[Made]:
    """Give the objects of *entries*, each once."""
    objects = dict.fromkeys((entry.model, entry.object_id) for entry in entries)
    return list(_made(objects, site, request))


def _made(objects: Iterable[tuple[str, str]], site: Any, request: HttpRequest) -> Iterator[Made]:
    for label, key in objects:
        try:
            model = apps.get_model(label)
        except (LookupError, ValueError):  # It was removed since.
            yield Made(f"{label} {key}", "")
            continue
        yield Made(f"{model._meta.verbose_name} {key}", _url(model, key, site, request))


def _url(model: Any, key: str, site: Any, request: HttpRequest) -> str:
    if not (site.is_registered(model) and site.get_model_admin(model).has_view_permission(request)):
        return ""
    name = f"admin:{model._meta.app_label}_{model._meta.model_name}_change"
    try:
        return reverse(name, args=[quote(key)], current_app=site.name)
    except NoReverseMatch:
        return ""
