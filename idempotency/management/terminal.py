"""Tables as people read them in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

WIDTH = 80


def columns(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Give the lines of a table; its first column gives way where the terminal is too narrow."""
    cells = [list(head), *([_cell(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    widths[0] = max(12, min(widths[0], WIDTH - sum(widths[1:]) - 2 * len(widths)))
    return [_line(row, widths) for row in cells]


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = row
    if len(first) > widths[0]:
        first = f"{first[: widths[0] - 1]}…"
    cells = [first.ljust(widths[0])]
    cells += [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
    return "  " + "  ".join(cells).rstrip()
