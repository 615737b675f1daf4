"""What can be wrong with where views are protected, seen in the project's URLs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.apps.config import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, register
from django.urls import URLResolver, get_resolver

from .http.placement import has_lease, opens_transactions


@register(Tags.urls)
def check_protected_methods(
    *, app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Tell of methods whose claim Django would wrap into a transaction, at each request."""
    if not getattr(settings, "ROOT_URLCONF", None):
        return []
    names = {name for view in _views(get_resolver()) for name in _wrapped_methods(view)}
    return [
        Error(
            f"{name} has a lease, and ATOMIC_REQUESTS opens a transaction around its class: each"
            " request would be refused.",
            hint='Decorate the class: @method_decorator(idempotent_view, name="dispatch").',
            id="idempotency.E036",
        )
        for name in sorted(names)
    ]


def _views(resolver: URLResolver) -> Iterator[Any]:
    for pattern in resolver.url_patterns:
        if isinstance(pattern, URLResolver):
            yield from _views(pattern)
        else:
            yield pattern.callback


def _wrapped_methods(view: Any) -> Iterator[str]:
    kind = getattr(view, "view_class", None)
    if kind is None or not opens_transactions(view):
        return
    for name in kind.http_method_names:
        endpoint = getattr(getattr(kind, name, None), "idempotent_endpoint", None)
        if endpoint is not None and has_lease(endpoint.policy):
            yield f"{kind.__module__}.{kind.__qualname__}.{name}"
