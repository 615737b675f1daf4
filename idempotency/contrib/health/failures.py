"""What a failure tells, without what nobody is to read."""

from __future__ import annotations

import re

from django.core.exceptions import ImproperlyConfigured

LONGEST = 200

_OF_AN_ADDRESS = re.compile(r"(?<=://)\S*@")
_NAMED = re.compile(
    r"""((?:pass\w*|pwd|secret|token|auth\w*)["']?\s*[=:]\s*)('[^']*'|"[^"]*"|\S+)""", re.I
)


def failure_of(error: Exception) -> str:
    """Give what went wrong in one line, without user names and passwords of addresses."""
    is_told = error.__cause__ is None or isinstance(error, ImproperlyConfigured)
    cause = error if is_told else error.__cause__
    first, *_ = str(cause).splitlines() or [""]
    return f"{type(cause).__name__}: {without_secrets(first)[:LONGEST]}"


def without_secrets(text: str) -> str:
    """Give *text* with `…` in place of what looks like a password."""
    return _NAMED.sub(r"\1…", _OF_AN_ADDRESS.sub("…@", text))
