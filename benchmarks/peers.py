"""Other libraries for idempotency keys, each set up as it says itself, on the same database."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from django.db import connection
from django.http import HttpRequest, JsonResponse
from django.utils.decorators import decorator_from_middleware

View = Callable[..., Any]
Application = Callable[..., Any]
Built = tuple[View, Application]


connections = ExitStack()
"""Closes what the peers connect to the database past Django."""


class Unfit(Exception):
    """The peer cannot work here."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A library: *build* gives the protected view, and the application that serves it."""

    name: str
    build: Callable[[View, Application], Built]
    uses_django: bool = True


def drf_idempotency(view: View, application: Application) -> Built:
    from drf_idempotency import idempotent

    return idempotent()(view), application


def django_idempotency_key(view: View, application: Application) -> Built:
    """Protect the view alone: as middleware it would burden all the others too."""
    from idempotency_key.decorators import idempotency_key
    from idempotency_key.middleware import ExemptIdempotencyKeyMiddleware

    protect = decorator_from_middleware(ExemptIdempotencyKeyMiddleware)
    return protect(idempotency_key(view)), application


def rest_framework_idempotency_key(view: View, application: Application) -> Built:
    """Leave its decorator out, which is for views of Django REST framework only."""
    from rest_framework_idempotency_key.middleware import IdempotencyKeyMiddleware

    def place(request: HttpRequest) -> JsonResponse:
        def act() -> tuple[int, Any, str]:
            response = view(request)
            return response.status_code, json.loads(response.content), "finished"

        key = request.idempotency_key  # type: ignore[attr-defined]
        status, content, _ = IdempotencyKeyMiddleware.proceed(key, {"started": act})
        return JsonResponse(content, status=status)

    return IdempotencyKeyMiddleware(place), application


def idemkit(view: View, application: Application) -> Built:
    from idemkit import HttpConfig, WSGIIdempotencyMiddleware
    from idemkit.backends.postgres import PostgresBackend, init_pg
    from idemkit.core.sync_bridge import run_sync

    if connection.vendor != "postgresql":
        raise Unfit("it has no store for this database")
    logging.getLogger("idemkit").setLevel(logging.ERROR)
    url = postgres_url()
    asyncio.run(init_pg(url))
    config = HttpConfig(scope_mode="single_tenant")
    backend = PostgresBackend.from_url(url, min_size=1)
    connections.callback(lambda: run_sync(backend.aclose()))
    return view, WSGIIdempotencyMiddleware(application, backend=backend, config=config)


def postgres_url() -> str:
    given = connection.settings_dict
    login = f"{given['USER']}:{given['PASSWORD']}@" if given["PASSWORD"] else f"{given['USER']}@"
    host = given["HOST"] or given["OPTIONS"].get("host", "")
    return f"postgresql://{login}/{given['NAME']}?host={host}&port={given['PORT'] or 5432}"


PEERS = [
    Peer("drf-idempotency", drf_idempotency),
    Peer("django-idempotency-key", django_idempotency_key),
    Peer("djangorestframework-idempotency-key", rest_framework_idempotency_key),
    Peer("idemkit", idemkit, uses_django=False),
]
