"""The chart of duplicates over time: where each bar stands, as an SVG has it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils.formats import date_format
from django.utils.timezone import is_aware, localtime
from django.utils.translation import gettext as _

from ..statistics.figures import DUPLICATES, Bar, Summary
from ..words import count, outcome, times

WIDTH, HEIGHT = 920, 260
LEFT, RIGHT, TOP, BOTTOM = 52, 28, 14, 30
FLOOR = HEIGHT - BOTTOM
GAP = 0.16
"""The part of its slot that a bar leaves free."""

LEAST = 2.0
"""The height of what is too little to be seen beside the rest."""

PLACES = {"1h": 600, "24h": 14_400, "7d": 86_400, "30d": 5 * 86_400}
"""Seconds between the words below the bars of each window, in the reader's time."""

EPOCH = datetime(1970, 1, 1)


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
class Series:
    """An outcome that there is, with its words and its sum."""

    kind: str
    label: str
    total: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A stacked bar chart."""

    columns: list[Column]
    lines: list[Mark]
    places: list[Mark]
    series: list[Series]
    description: str
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    floor: int = FLOOR
    middle: int = (LEFT + WIDTH - RIGHT) // 2
    span: int = FLOOR - TOP
    centre: int = (TOP + FLOOR) // 2


def chart_of(summary: Summary) -> Chart:
    """Give the chart of the bars of *summary*."""
    bars = summary.bars
    highest = max((sum(bar.counts.values()) for bar in bars), default=0)
    step = nice_step(highest)
    top = max(step, -(-highest // step) * step)
    slot = (WIDTH - LEFT - RIGHT) / max(1, len(bars))
    return Chart(
        columns=[_column(bar, LEFT + slot * place, slot, top) for place, bar in enumerate(bars)],
        lines=[Mark(_y(value, top), count(value)) for value in range(0, top + 1, step)],
        places=list(_places(summary, slot)),
        series=[Series(kind, outcome(kind), count(total)) for kind, total in _totals(bars)],
        description=_description(bars),
    )


def nice_step(highest: int) -> int:
    """Give a round step of which at most five reach up to *highest*."""
    size = 1
    while True:
        for factor in (1, 2, 5):
            if size * factor * 5 >= highest:
                return size * factor
        size *= 10


def _totals(bars: list[Bar]) -> list[tuple[str, int]]:
    totals = ((kind, sum(bar.counts.get(kind, 0) for bar in bars)) for kind in DUPLICATES)
    return [(kind, total) for kind, total in totals if total]


def _y(value: float, top: int) -> float:
    return round(FLOOR - (FLOOR - TOP) * value / top, 1)


def _column(bar: Bar, x: float, slot: float, top: int) -> Column:
    left, width = round(x + slot * GAP / 2, 1), round(slot * (1 - GAP), 1)
    boxes: list[Box] = []
    base = float(FLOOR)
    for kind in DUPLICATES:
        if number := bar.counts.get(kind, 0):
            height = round(max(LEAST, FLOOR - _y(number, top)), 1)
            base = round(base - height, 1)
            boxes.append(Box(kind, left, base, width, height))
    return Column(_title(bar), round(x, 1), round(slot, 1), boxes)


def _title(bar: Bar) -> str:
    lines = [
        _("%(outcome)s: %(count)s") % {"outcome": outcome(kind), "count": count(bar.counts[kind])}
        for kind in DUPLICATES
        if bar.counts.get(kind)
    ]
    total = sum(bar.counts.values())
    return "\n".join([date_format(local(bar.starts_at), "DATETIME_FORMAT"), times(total), *lines])


def _places(summary: Summary, slot: float) -> Iterator[Mark]:
    """Give words below each bar that is the first of a round stretch of the reader's time."""
    every = PLACES[summary.window.name]
    is_long = summary.window.length > 86_400
    before: int | None = None
    for place, bar in enumerate(summary.bars):
        at = local(bar.starts_at)
        stretch = (at.replace(tzinfo=None) - EPOCH) // timedelta(seconds=every)
        if before is not None and stretch != before:
            words = date_format(at, "MONTH_DAY_FORMAT" if is_long else "TIME_FORMAT")
            yield Mark(round(LEFT + slot * (place + 0.5), 1), words)
        before = stretch


def _description(bars: list[Bar]) -> str:
    total = sum(sum(bar.counts.values()) for bar in bars)
    if not total:
        return _("No duplicate came in this time.")
    highest = max(bars, key=lambda bar: sum(bar.counts.values()))
    parts = [f"{outcome(kind)} {count(number)}" for kind, number in _totals(bars)]
    return _("%(total)s: %(parts)s. The most in one bar, %(most)s, from %(time)s on.") % {
        "total": times(total),
        "parts": ", ".join(parts),
        "most": count(sum(highest.counts.values())),
        "time": date_format(local(highest.starts_at), "DATETIME_FORMAT"),
    }


def local(instant: datetime) -> datetime:
    """Give *instant* by the reader's clock."""
    return localtime(instant) if is_aware(instant) else instant
