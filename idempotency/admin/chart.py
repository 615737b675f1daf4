"""The chart of duplicates over time: where each bar stands, as an SVG has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.utils.formats import date_format
from django.utils.timezone import is_aware, localtime
from django.utils.translation import gettext

from ..statistics.figures import DUPLICATES, Bar
from .words import count, outcome

WIDTH, HEIGHT = 960, 240
LEFT, RIGHT, TOP, BOTTOM = 64, 8, 12, 28
GAP = 0.18
LABELS = 6


@dataclass(frozen=True, slots=True)
class Box:
    """One outcome in one bar."""

    kind: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Column:
    """One bar, with what a pointer on it is told."""

    title: str
    x: float
    width: float
    boxes: list[Box]


@dataclass(frozen=True, slots=True)
class Mark:
    """A line across the chart, or a place below it, with its words."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Row:
    """A bar as a row of the table that says the same."""

    at: str
    counts: list[str]


@dataclass(frozen=True, slots=True)
class Chart:
    """A stacked bar chart, and the same in a table."""

    columns: list[Column]
    lines: list[Mark]
    places: list[Mark]
    kinds: list[tuple[str, str, str]]  # Name, words and sum of each outcome that there is.
    rows: list[Row]
    total: int
    highest: int
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def chart_of(bars: Sequence[Bar], *, days: bool) -> Chart:
    """Give the chart of *bars*, which are labelled by dates if they show *days*."""
    sums = {kind: sum(bar.counts.get(kind, 0) for bar in bars) for kind in DUPLICATES}
    kinds = [kind for kind in DUPLICATES if sums[kind]]
    highest = max((sum(bar.counts.values()) for bar in bars), default=0)
    step = _nice_step(highest)
    top = max(step, -(-highest // step) * step)
    slot = (WIDTH - LEFT - RIGHT) / max(1, len(bars))
    return Chart(
        columns=[_column(bar, LEFT + slot * place, slot, top) for place, bar in enumerate(bars)],
        lines=[Mark(_y(value, top), count(value)) for value in range(0, top + 1, step)],
        places=_places(bars, slot, days=days),
        kinds=[(kind, outcome(kind), count(sums[kind])) for kind in kinds],
        rows=[
            Row(_moment(bar), [count(bar.counts.get(kind, 0)) for kind in kinds])
            for bar in bars
            if bar.counts
        ],
        total=sum(sums.values()),
        highest=highest,
    )


def _nice_step(highest: int) -> int:
    """Give a round step of which a handful reach up to *highest*."""
    size = 1
    while True:
        for factor in (1, 2, 5):
            if size * factor * 5 >= highest:
                return size * factor
        size *= 10


def _y(value: float, top: int) -> float:
    return round(HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * value / top, 2)


def _column(bar: Bar, x: float, slot: float, top: int) -> Column:
    boxes: list[Box] = []
    below = 0
    for kind in DUPLICATES:
        number = bar.counts.get(kind, 0)
        if number:
            y = _y(below + number, top)
            height = round(_y(below, top) - y, 2)
            left, width = round(x + slot * GAP / 2, 2), round(slot * (1 - GAP), 2)
            boxes.append(Box(kind, left, y, width, height))
        below += number
    parts = [f"{outcome(kind)}: {count(number)}" for kind, number in bar.counts.items() if number]
    return Column("\n".join([_moment(bar), *parts]), round(x, 2), round(slot, 2), boxes)


def _places(bars: Sequence[Bar], slot: float, *, days: bool) -> list[Mark]:
    every = max(1, -(-len(bars) // LABELS))
    shown = "MONTH_DAY_FORMAT" if days else "TIME_FORMAT"
    return [
        Mark(round(LEFT + slot * (place + 0.5), 2), date_format(_local(bar), shown))
        for place, bar in enumerate(bars)
        if place % every == every // 2
    ]


def _moment(bar: Bar) -> str:
    return gettext("from %(time)s") % {"time": date_format(_local(bar), "SHORT_DATETIME_FORMAT")}


def _local(bar: Bar) -> datetime:
    return localtime(bar.starts_at) if is_aware(bar.starts_at) else bar.starts_at
