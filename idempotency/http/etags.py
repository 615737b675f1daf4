"""Entity tags of versions, and what If-Match says of them (RFC 9110, sections 8.8.3 and 13.1.1)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from ..exceptions import IdempotencyError, PreconditionInvalid

_ELEMENT = re.compile(
    r'[ \t]*(?:(?P<tag>(?:W/)?"[\x21\x23-\x7e\x80-\xff]*")[ \t]*)?(?P<end>,|\Z)',
)


def format_etag(model: Any, pk: Any, version: int) -> str:
    """Give the strong entity tag of one version of a row, whatever characters its key has."""
    # A proxy and its model show the same row.
    name = model._meta.concrete_model._meta.model_name
    return f'"{quote(name)}-{quote(str(pk), safe="")}-{version}"'


def etag_of_conflict(error: IdempotencyError) -> str | None:
    """Give the entity tag of the row that *error* tells about, if it knows the current version."""
    model, pk, actual = (getattr(error, name, None) for name in ("model", "pk", "actual"))
    if not hasattr(model, "_meta") or pk is None or not isinstance(actual, int):
        return None
    return format_etag(model, pk, actual)


@dataclass(frozen=True, slots=True)
class IfMatch:
    """The value of one If-Match header: any version (`*`), or one of those with these tags."""

    tags: frozenset[str]
    is_any: bool = False

    def matches(self, etag: str | None) -> bool:
        """Whether the row with *etag* is meant; None is a row that does not exist."""
        # The comparison is strong: a weak tag equals none that we give.
        return etag is not None and (self.is_any or etag in self.tags)


def parse_if_match(header: str) -> IfMatch:
    """
    Read the value of an If-Match header.

    Raises: `PreconditionInvalid` if it is neither `*` nor a list of quoted entity tags.
    """
    if header.strip(" \t") == "*":
        return IfMatch(frozenset(), is_any=True)
    tags: set[str] = set()
    position, end = 0, ","
    while end:
        element = _ELEMENT.match(header, position)
        if element is None:
            raise PreconditionInvalid
        tags.update(filter(None, [element["tag"]]))
        position, end = element.end(), element["end"]
    if not tags:
        raise PreconditionInvalid
    return IfMatch(frozenset(tags))
