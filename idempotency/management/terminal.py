"""Numbers as people read them in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

WIDTH = 80

_UNITS = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"), (1.0, "s"))


def duration(seconds: float | None) -> str:
    """Give *seconds* with two digits or so: "3.2 ms", "12 s", "4.5 h"; "-" for None."""
    if seconds is None:
        return "-"
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{_short(seconds / size)} {unit}"
    return f"{_short(seconds * 1_000)} ms"


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0") if value < 10 else f"{value:,.0f}"


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
