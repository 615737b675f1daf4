"""Turns in one run, in random order, so that the machine's noise meets all contenders alike."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Mapping, Sequence
from statistics import median, quantiles
from typing import TypeVar

Who = TypeVar("Who", bound=Hashable)


def interleaved(
    turns: Mapping[Who, Callable[[], float]], rounds: int, advance: Callable[[], None]
) -> dict[Who, list[float]]:
    """Take each of *turns*, which give seconds, once in each of *rounds*; give the seconds."""
    times: dict[Who, list[float]] = {who: [] for who in turns}
    for turn in turns.values():
        turn()  # Warms up.
    for _ in range(rounds):
        for who in random.sample(list(turns), len(turns)):
            times[who].append(turns[who]())
        advance()
    return times


def ratios(times: Sequence[float], others: Sequence[float]) -> list[float]:
    """Give what each of *times* is of the one of the same round."""
    return [one / other for one, other in zip(times, others, strict=True)]


def cell(values: Sequence[float], goal: float | None = None) -> str:
    """Show the median, between which values half of all lie, and whether *goal* is kept to."""
    middle = median(values)
    low, _, high = quantiles(values, n=4)
    verdict = "" if goal is None else " [green]✓" if middle <= goal else " [red]✗"
    return f"[bold]{middle:.2f}[/] [dim]{low:.2f}-{high:.2f}[/]{verdict}"
