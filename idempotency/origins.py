"""Where a call came from, as a tracer knows it: kept with its record, for duplicates to find."""

from __future__ import annotations

from collections.abc import Callable

LONGEST = 64
"""Characters of an origin, as its column has them: one of W3C Trace Context has 55."""

_find: Callable[[], str] | None = None


def find_by(find: Callable[[], str] | None) -> None:
    """Ask *find* for the origin of each call from now on; None asks nobody."""
    global _find
    _find = find


def current_origin() -> str:
    """Give the origin of the call that is being made, or "" if nobody knows it."""
    return "" if _find is None else _find()[:LONGEST]
