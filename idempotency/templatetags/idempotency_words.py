"""Filters by which the pages of the admin show numbers and durations."""

from __future__ import annotations

from django import template

from .. import words

register = template.Library()
register.filter("duration", words.duration)
register.filter("number", words.count)
