"""Statements without the values that are in them, so that people may see them."""

from __future__ import annotations

import re

LONGEST = 300

_NUMBER = r"(?<![\w$])\.?\d[\w.]*"
_POSTGRESQL = r"""
    (?P<kept> "(?:[^"]|"")*(?:"|\Z))
    | (?P<comment> /\*.*?(?:\*/|\Z) | --[^\n]*)
    | \bE'(?:[^'\\]|\\.|'')*(?:'|\\?\Z)
    | '(?:[^']|'')*(?:'|\Z)
    | (?<![\w$])\$(?P<tag>[^\W\d]\w*)?\$.*?(?:\$(?(tag)(?P=tag))\$|\Z)
"""
_MYSQL = r"""
    (?P<kept> `(?:[^`]|``)*(?:`|\Z))
    | (?P<comment> /\*.*?(?:\*/|\Z) | --(?=\s|\Z)[^\n]* | \#[^\n]*)
    | '(?:[^'\\]|\\.|'')*(?:'|\\?\Z)
    | "(?:[^"\\]|\\.|"")*(?:"|\\?\Z)
"""


def _parts(vendor: str) -> re.Pattern[str]:
    return re.compile(f"{vendor} | {_NUMBER}", re.VERBOSE | re.DOTALL | re.IGNORECASE)


_PARTS = {"postgresql": _parts(_POSTGRESQL), "mysql": _parts(_MYSQL)}


def without_values(query: str, vendor: str) -> str:
    """
    Give *query* on one line, with its strings and numbers masked, and cut where it is long.

    A server keeps but the beginning of a long one, so that its last string may have no end.
    """
    return " ".join(_PARTS[vendor].sub(_masked, query).split())[:LONGEST]


def _masked(part: re.Match[str]) -> str:
    if part["comment"] is not None:
        return " "
    return part["kept"] or "?"
