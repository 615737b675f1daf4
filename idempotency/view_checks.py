"""What can be wrong with where views are protected, seen in the project's URLs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.apps.config import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.urls import URLResolver, get_resolver

from .conf import MIDDLEWARE
from .conf import settings as own_settings
from .http.marks import REPLAYED
from .http.placement import (
    frameworks_of,
    is_protecting,
    is_settled,
    layers,
    opens_transactions,
    operations_of,
)
from .http.transactions import has_lease

CORS_MIDDLEWARE = "corsheaders.middleware.CorsMiddleware"
REVISIONS = "reversion.middleware.RevisionMiddleware"


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
            f"{name} has a lease, and ATOMIC_REQUESTS opens a transaction around it: each request"
            " would be refused.",
            hint='Decorate the class: @method_decorator(idempotent_view, name="dispatch"). An'
            " operation of Django Ninja can have no lease there.",
            id="idempotency.E036",
        )
        for name in sorted(names)
    ]


@register(Tags.urls)
def check_stores_of_views(
    *, app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Tell of views whose store is none of `IDEMPOTENCY_STORES`: each request would fail."""
    if not getattr(settings, "ROOT_URLCONF", None):
        return []
    known = own_settings.STORES if isinstance(own_settings.STORES, Mapping) else ()
    named = {
        (_name_of(view), view.idempotent_endpoint.policy.store)
        for view in _views(get_resolver())
        if hasattr(view, "idempotent_endpoint")
    }
    return [
        Error(
            f"{name} keeps its records in the store {store!r}, which IDEMPOTENCY_STORES lacks.",
            id="idempotency.E042",
        )
        for name, store in sorted(named)
        if known and store not in known
    ]


@register(Tags.urls)
def check_transactions_of_middleware(
    *, app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Tell of views whose claim django-reversion would wrap into a transaction."""
    is_asked = REVISIONS in settings.MIDDLEWARE and getattr(settings, "ROOT_URLCONF", None)
    views = _views(get_resolver()) if is_asked else iter(())
    return [
        Error(
            f"{name} has a lease, and {REVISIONS} opens a transaction around it: each request would"
            " be refused.",
            hint="Use a subclass of that middleware with atomic = False, or with a"
            " request_creates_revision() that leaves the view out.",
            id="idempotency.E041",
        )
        for name in sorted({_name_of(view) for view in views if _is_leased(view)})
    ]


def _is_leased(view: Any) -> bool:
    endpoint = getattr(view, "idempotent_endpoint", None)
    return endpoint is not None and (iscoroutinefunction(view) or has_lease(endpoint.policy))


@register(Tags.urls)
def check_views_of_the_middleware(
    *, app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Tell of views that the middleware would have to protect, and cannot."""
    if MIDDLEWARE not in settings.MIDDLEWARE or not getattr(settings, "ROOT_URLCONF", None):
        return []
    names = {
        _name_of(view)
        for view in _views(get_resolver())
        if frameworks_of(view) and not is_settled(view)
    }
    return [
        Error(
            f"{name} authenticates inside, where the middleware cannot see who calls: a request"
            " with a key would be refused.",
            hint="Protect it from inside, as the documentation of its framework here says, or mark"
            " it, or the URLs of others: path('auth/', not_idempotent(include('…'))).",
            id="idempotency.E038",
        )
        for name in sorted(names)
    ]


@register(Tags.urls)
def check_headers_of_other_origins(
    *, app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Tell of what django-cors-headers keeps from browsers: their retries would be unprotected."""
    is_asked = CORS_MIDDLEWARE in settings.MIDDLEWARE and getattr(settings, "ROOT_URLCONF", None)
    if not is_asked or not (MIDDLEWARE in settings.MIDDLEWARE or _is_anything_protected()):
        return []
    missing = {
        "CORS_ALLOW_HEADERS": _unlisted("CORS_ALLOW_HEADERS", [own_settings.HEADER]),
        "CORS_EXPOSE_HEADERS": _unlisted("CORS_EXPOSE_HEADERS", [REPLAYED, "Retry-After"]),
    }
    return [
        Warning(
            f"{name} lacks {', '.join(headers)}: scripts of other origins cannot use them.",
            hint='Add them, as "Call a protected service" in the documentation shows.',
            id="idempotency.W039",
        )
        for name, headers in missing.items()
        if headers
    ]


def _unlisted(setting: str, wanted: Sequence[str]) -> list[str]:
    listed = {str(header).lower() for header in getattr(settings, setting, ())}
    has_all = "*" in listed and not getattr(settings, "CORS_ALLOW_CREDENTIALS", False)
    return [] if has_all else [header for header in wanted if header.lower() not in listed]


def _is_anything_protected() -> bool:
    return any(is_protecting(view) for view in _views(get_resolver()))


def _name_of(view: Any) -> str:
    *_, innermost = layers(view)
    kind = next((layer.cls for layer in layers(view) if hasattr(layer, "cls")), innermost)
    return f"{kind.__module__}.{getattr(kind, '__qualname__', type(kind).__name__)}"


def _views(resolver: URLResolver) -> Iterator[Any]:
    for pattern in resolver.url_patterns:
        if isinstance(pattern, URLResolver):
            yield from _views(pattern)
        else:
            yield pattern.callback


def _wrapped_methods(view: Any) -> Iterator[str]:
    if not opens_transactions(view):
        return
    for operation in operations_of(view) or ():
        if _is_leased(operation.view_func):
            yield operation.view_func.idempotent_endpoint.view_name
    kind = getattr(view, "view_class", None)
    if kind is None:
        return
    for name in kind.http_method_names:
        if _is_leased(getattr(kind, name, None)):
            yield f"{kind.__module__}.{kind.__qualname__}.{name}"
