"""What can be wrong with the values of this app's own settings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from django.apps.config import AppConfig
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import connections
from django.utils.module_loading import import_string

from .conf import STATISTICS, Settings, settings
from .http.requests import SAFE

_NAME = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
"""A token of RFC 9110, as names of headers are."""

_OF_OTHERS = "IDEMPOTENCY_KEY"
"""What settings of another package begin with."""


@register(Tags.compatibility)
def check_settings(
    *, app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Tell of settings with a value of the wrong kind."""
    wrong = [
        Error(
            f"IDEMPOTENCY_{name} is {what}, not {getattr(settings, name)!r}.",
            id=f"idempotency.{id}",
        )
        for name, id, what, is_right in _RULES
        if not is_right(getattr(settings, name))
    ]
    return [*wrong, *_check_scope(), *_check_names()]


def _is_strings(value: object) -> bool:
    return isinstance(value, list | tuple | set | frozenset) and all(
        isinstance(item, str) for item in value
    )


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_statistics(value: object) -> bool:
    if isinstance(value, bool):
        return True
    if not isinstance(value, Mapping) or not value.keys() <= STATISTICS.keys():
        return False
    using, interval, calls = ({**STATISTICS, **value}[name] for name in STATISTICS)
    is_interval = isinstance(interval, int | float) and not isinstance(interval, bool)
    return using in connections and is_interval and 0 < interval <= 3_600 and _is_size(calls)


_RULES: list[tuple[str, str, str, Any]] = [
    ("HEADER", "E011", "the name of a header", lambda value: re.fullmatch(_NAME, str(value or ""))),
    (
        "METHODS",
        "E012",
        "a list of HTTP methods in upper case that are not safe",
        lambda value: (
            _is_strings(value)
            and all(method.isupper() for method in value)
            and SAFE.isdisjoint(value)
        ),
    ),
    ("MAX_BODY", "E013", "a number of bytes", _is_size),
    ("DROP_HEADERS", "E014", "a list of header names", _is_strings),
    (
        "DOCS_URL",
        "E015",
        "an address or None",
        lambda value: value is None or isinstance(value, str),
    ),
    (
        "STATISTICS",
        "E019",
        "False, or a dict with the alias of a database as USING, seconds up to an hour as INTERVAL"
        " and a number as CALLS_PER_RECORD, or some of them",
        _is_statistics,
    ),
]


def _check_scope() -> list[CheckMessage]:
    if settings.SCOPE is None:
        return []
    if not isinstance(settings.SCOPE, str):
        message = "IDEMPOTENCY_SCOPE is the dotted path of a function, as a string."
        return [Error(message, id="idempotency.E016")]
    try:
        found = import_string(settings.SCOPE)
    except (ImportError, AttributeError) as error:
        return [Error(f"IDEMPOTENCY_SCOPE: {error}", id="idempotency.E016")]
    if callable(found):
        return []
    return [Error("IDEMPOTENCY_SCOPE names no function.", id="idempotency.E016")]


def _check_names() -> list[CheckMessage]:
    known = {f"IDEMPOTENCY_{name}" for name in vars(Settings) if name.isupper()}
    given = {name for name in dir(django_settings) if name.startswith("IDEMPOTENCY_")}
    return [
        Warning(
            f"There is no setting {name}.",
            hint=f"There are {', '.join(sorted(known))}; what concerns one store or lock backend is"
            " a member of IDEMPOTENCY_STORES or IDEMPOTENCY_LOCKS.",
            id="idempotency.W043",
        )
        for name in sorted(given - known)
        if not name.startswith(_OF_OTHERS)
    ]
