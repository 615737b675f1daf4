"""Measure what a save that loses no change costs beside Django's plain save."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from .environment import DATABASES, prepared, server
from .turns import cell, interleaved, ratios

if TYPE_CHECKING:
    from .savers import Saver

GOAL = 1.15
WAYS = ("autocommit", "transaction")
NOTE = (
    "Ratios are seconds of a save by those of a plain save in the same round: the median of the"
    " rounds, and between which values half of the rounds lie. In a transaction all saves of a"
    " turn are in one, which is flushed once."
)


def main() -> None:
    asked = arguments()
    console = Console(width=108)
    with prepared(asked.database):
        from .savers import OURS, PLAIN, others

        peers, absent = others() if asked.peers else ([], [])
        savers = [PLAIN, OURS, *peers]
        create_tables(savers, asked.saves)
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("rounds", total=asked.rounds)
            times = interleaved(
                {
                    (each.name, way): partial(take_turn, each, way)
                    for each in savers
                    for way in WAYS
                },
                asked.rounds,
                lambda: progress.advance(task),
            )
        console.print(table(f"{server()}, {asked.rounds} rounds", savers, times, asked.saves))
        for line in [NOTE, *absent]:
            console.print(line, style="dim")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.save", description=__doc__)
    parser.add_argument("--saves", type=int, default=40, help="rows that are saved in a turn")
    parser.add_argument("--rounds", type=int, default=100, help="turns of each contender")
    parser.add_argument("--peers", action="store_true", help="let other libraries compete")
    parser.add_argument(
        "--database", choices=DATABASES, default=DATABASES[0], help="unless DATABASE_URL is set"
    )
    return parser.parse_args()


def create_tables(savers: Sequence[Saver], rows: int) -> None:
    from django.db import connection

    with connection.schema_editor() as editor:
        for each in savers:
            editor.create_model(each.model)
    for each in savers:
        each.model._default_manager.bulk_create(each.model() for _ in range(rows))


def take_turn(saver: Saver, way: str) -> float:
    """Give the seconds in which all rows are saved once."""
    from django.db import transaction

    rows = list(saver.model._default_manager.all())
    for row in rows:
        row.views += 1
    began = time.perf_counter()
    with transaction.atomic() if way == "transaction" else nullcontext():
        for row in rows:
            row.save()
    return time.perf_counter() - began


def table(
    title: str, savers: Sequence[Saver], times: Mapping[tuple[str, str], list[float]], saves: int
) -> Table:
    """Give a line for each contender, and what was to be reached in the head."""
    shown = Table(title=title, box=box.SIMPLE_HEAD)
    shown.add_column("", no_wrap=True)
    for way in WAYS:
        shown.add_column(f"{way}\nms each", justify="right", no_wrap=True)
        shown.add_column(f"of plain\ngoal {GOAL}", justify="right", no_wrap=True)
    plain = savers[0].name
    for each in savers:
        row = [each.name]
        for way in WAYS:
            own = times[each.name, way]
            shares = cell(ratios(own, times[plain, way]), GOAL if each.is_ours else None)
            row += [f"{median(own) / saves * 1000:.3f}", shares]
        shown.add_row(*row)
    return shown


if __name__ == "__main__":
    main()
