"""Filters by which the pages of the admin show numbers and outcomes."""

from __future__ import annotations

from django import template

from ..admin import words

register = template.Library()
register.filter("outcome", words.outcome)
register.filter("duration", words.duration)
register.filter("number", words.count)


@register.filter
def of(counts: dict[str, int], name: str) -> str:
    """Give one of *counts*; a dash for none."""
    return words.count(counts[name]) if counts.get(name) else words.NOTHING


@register.filter
def holder(owner: str) -> str:
    """Give host and process of an owner, without its random part."""
    return owner.rpartition(":")[0] or owner


@register.filter
def caller(scope: str) -> str:
    """Give a scope as it is shown; it may be empty."""
    return scope or words.NOTHING
