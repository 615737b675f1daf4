"""What is wrong with a Redis that keeps records or locks, told before it does harm."""

from __future__ import annotations

import re
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django.core.exceptions import ImproperlyConfigured

from .exceptions import StoreUnavailable
from .scripts import Server

_OF_DJANGO = "django.core.cache.backends.redis.RedisCache"


def check_server(server: Server, what: str) -> list[CheckMessage]:
    """
    Give what the settings of *server* cannot promise to *what*, such as a store's name.

    Asks no server: that is for `check_memory`.
    """
    try:
        places = _places(server.client)
    except ImproperlyConfigured as error:
        return [Error(f"{what}: {error}", id="idempotency.E030")]
    return [*_check_errors(server, what), *_check_clearing(server, what, places)]


def _check_errors(server: Server, what: str) -> list[CheckMessage]:
    options = settings.CACHES[server.alias].get("OPTIONS", {})
    default = getattr(settings, "DJANGO_REDIS_IGNORE_EXCEPTIONS", False)
    if not options.get("IGNORE_EXCEPTIONS", default):
        return []
    message = (
        f"{what}: CACHES[{server.alias!r}] ignores the errors of Redis. Here they are not ignored,"
        " but whatever else uses it as a cache takes an outage for an empty cache."
    )
    hint = "Give it an alias of its own, without IGNORE_EXCEPTIONS."
    return [Warning(message, hint=hint, id="idempotency.W031")]


def _check_clearing(server: Server, what: str, places: set[Any]) -> list[CheckMessage]:
    sharing = [
        alias for alias in settings.CACHES if alias != server.alias and places & _places_of(alias)
    ]
    if server.alias == "default":
        sharing.insert(0, "default")
    if not sharing:
        return []
    message = (
        f"{what}: `caches[{sharing[0]!r}].clear()` empties the whole database of Redis, and with it"
        " what keeps effects from taking place twice."
    )
    hint = "Give it an alias and a database number of its own: redis://…/1."
    return [Warning(message, hint=hint, id="idempotency.W033")]


def _places_of(alias: str) -> set[Any]:
    if settings.CACHES[alias].get("BACKEND") == _OF_DJANGO:
        return _places_at(settings.CACHES[alias].get("LOCATION", ""))
    try:
        return _places(Server(alias).client)
    except ImproperlyConfigured:
        return set()


def _places_at(location: Any) -> set[Any]:
    """Give the places in the LOCATION of Django's own cache, as far as it is one."""
    from redis import ConnectionPool

    urls = re.split("[;,]", location) if isinstance(location, str) else location
    try:
        return {_place(ConnectionPool.from_url(url)) for url in urls}
    except (TypeError, ValueError):
        return set()


def _places(client: Any) -> set[Any]:
    return {_place(client.connection_pool)}


def _place(pool: Any) -> Any:
    """Give the server and the number of the database, as far as the settings tell."""
    known = pool.connection_kwargs
    where = known.get("path") or (known.get("host"), known.get("port"))
    service = getattr(pool, "service_name", None)
    return service or where, known.get("db") or 0


def check_memory(server: Server, what: str) -> list[CheckMessage]:
    """Ask *server* whether it throws away what *what* keeps, when its memory is full."""
    try:
        memory = _facts(server.send("INFO", "memory"))
    except ImproperlyConfigured:
        return []  # `check_server` tells.
    except StoreUnavailable as error:
        cause = f"{type(error.__cause__).__name__}: {error.__cause__}"
        message = f"{what}: CACHES[{server.alias!r}] cannot be used: {cause}"
        hint = "Mend what it says; until then, what it protects is refused."
        return [Warning(message, hint=hint, id="idempotency.W034")]
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy == "noeviction" or memory.get("maxmemory", "0") == "0":
        return []
    message = f"{what}: Redis throws away what it keeps when its memory is full ({policy})."
    hint = "Set maxmemory-policy to noeviction, or use a Redis of its own."
    return [Warning(message, hint=hint, id="idempotency.W032")]


def _facts(text: bytes) -> dict[str, str]:
    lines = [line.partition(":") for line in text.decode().splitlines()]
    return {name: value for name, _, value in lines if value}
