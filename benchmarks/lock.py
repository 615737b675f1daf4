"""Measure what a lock costs beside the least that it can send, and beside other libraries."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from .environment import prepared, server, zookeeper
from .turns import cell, interleaved, ratios

if TYPE_CHECKING:
    from .contention import Contention
    from .lockers import Hold, Locker

FLOOR_GOAL = 1.5
PEER_GOAL = 1.0
FAIRNESS_GOAL = 5.0
LISTING_GOAL = 5.0
PARTS = ("alone", "contended", "listing")
LIMITS = (100, 1_000)
NOTE = (
    "Ratios are seconds of acquire and release by those in the same round of what is written by"
    " hand, or of the fastest other library, of the same kind: the median of the rounds, and"
    " between which values half of the rounds lie. Sent are round trips; '-' are not counted."
)
NOTE_CONTENDED = (
    "Overlaps are turns that took place while another did. A lock whose holder gets it again at"
    " once, before any waiter, has many turns a second and a short median."
)


def main() -> None:
    asked = arguments()
    console = Console(width=112)
    with zookeeper(), prepared():
        from .lockers import LOCKERS, PEERS, fit

        lockers, absent = fit([*LOCKERS, *(PEERS if asked.peers else [])])
        # First, as threads of those that were prepared here would not survive the fork.
        if "contended" in asked.parts:
            show_contended(console, asked, lockers)
        if "alone" in asked.parts:
            show_alone(console, asked, lockers)
        if "listing" in asked.parts:
            show_listing(console, asked)
        for line in absent:
            console.print(line, style="dim")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lock", description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure")
    parser.add_argument("--peers", action="store_true", help="let other libraries compete")
    parser.add_argument("--locks", type=int, default=50, help="locks that are held in a turn")
    parser.add_argument("--rounds", type=int, default=60, help="turns of each contender")
    parser.add_argument("--processes", type=int, default=8, help="that want one lock at once")
    parser.add_argument("--turns", type=int, default=40, help="of each of these processes")
    parser.add_argument("--contests", type=int, default=3, help="of each contender")
    parser.add_argument("--seconds", type=int, default=20, help="that a contest may last")
    parser.add_argument("--keys", type=int, default=1_000_000, help="other keys beside live locks")
    return parser.parse_args()


def show_alone(console: Console, asked: argparse.Namespace, lockers: Sequence[Locker]) -> None:
    from .counting import sent

    holds = {each: each.prepare(f"order:42-{each.name}") for each in lockers}
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("rounds", total=asked.rounds)
        times = interleaved(
            {each: partial(take_turn, hold, asked.locks) for each, hold in holds.items()},
            asked.rounds,
            lambda: progress.advance(task),
        )
    shown = Table(title=f"{server()}, {asked.rounds} rounds", box=box.SIMPLE_HEAD)
    for head in ("", "kind"):
        shown.add_column(head, no_wrap=True)
    heads = ("sent", "ms each", f"of the floor\nRedis' goal {FLOOR_GOAL}")
    for head in (*heads, f"of the fastest peer\ngoal {PEER_GOAL}"):
        shown.add_column(head, justify="right", no_wrap=True)
    for each, own in times.items():
        count = sent(each.kind, holds[each])
        each_ms = f"{median(own) / asked.locks * 1000:.3f}"
        row = (each.name, each.kind, str(count or "-"), each_ms)
        shown.add_row(*row, *beside_others(each, times))
    console.print(shown)
    console.print(NOTE, style="dim")


def take_turn(hold: Hold, locks: int) -> float:
    """Give the seconds in which one lock is held so many times."""
    began = time.perf_counter()
    for _ in range(locks):
        with hold():
            pass
    return time.perf_counter() - began


def beside_others(one: Locker, times: Mapping[Locker, list[float]]) -> list[str]:
    """Give what *one* takes of the floor's time, and, if it is ours, of the fastest peer's."""
    from .lockers import REDIS

    alike = [other for other in times if other.kind == one.kind]
    floors = [other for other in alike if other.is_floor]
    peers = [other for other in alike if not (other.is_ours or other.is_floor)]
    goal = FLOOR_GOAL if one.is_ours and one.kind == REDIS else None
    cells = [cell(ratios(times[one], times[floor]), goal) for floor in floors]
    if one.is_ours and peers:
        fastest = min(peers, key=lambda peer: median(times[peer]))
        cells.append(cell(ratios(times[one], times[fastest]), PEER_GOAL))
    return cells


def show_contended(console: Console, asked: argparse.Namespace, lockers: Sequence[Locker]) -> None:
    from .contention import Contest, contend

    contest = Contest(asked.processes, asked.turns, asked.seconds)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("contests", total=asked.contests * len(lockers))
        found = contend(lockers, contest, asked.contests, lambda: progress.advance(task))
    title = f"{asked.processes} processes, {asked.turns} turns each, {asked.contests} times"
    console.print(table_of_contention(title, found))
    console.print(NOTE_CONTENDED, style="dim")


def table_of_contention(title: str, found: Mapping[Locker, Contention]) -> Table:
    shown = Table(title=title, box=box.SIMPLE_HEAD)
    for head in ("", "kind"):
        shown.add_column(head, no_wrap=True)
    goal = f"worst of median\ngoal {FAIRNESS_GOAL}"
    for head in ("turns\nper s", "median\nwait, ms", "worst\nwait, ms", goal, "overlaps"):
        shown.add_column(head, justify="right", no_wrap=True)
    for each, contention in found.items():
        middle, worst = contention.median, contention.worst
        unfairness = worst / middle
        verdict = (" [green]✓" if unfairness <= FAIRNESS_GOAL else " [red]✗") * each.is_ours
        shown.add_row(
            each.name,
            each.kind,
            f"{median(contention.rates):,.0f}",
            f"{middle * 1000:.1f}",
            f"{worst * 1000:,.1f}",
            f"[bold]{unfairness:,.1f}[/]{verdict}",
            str(contention.overlaps),
        )
    return shown


def show_listing(console: Console, asked: argparse.Namespace) -> None:
    from .listing import full_redis, time_listing

    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("keys", total=asked.keys)
        with full_redis(
            asked.keys, max(LIMITS), lambda done: progress.advance(task, done)
        ) as backend:
            taken = {limit: time_listing(backend, limit) * 1000 for limit in LIMITS}
    for limit, milliseconds in taken.items():
        console.print(
            f"Listing {limit:,} of {max(LIMITS):,} live locks beside {asked.keys:,} other keys:"
            f" {milliseconds:.1f} ms, goal {LISTING_GOAL}",
            style="green" if milliseconds <= LISTING_GOAL else "red",
        )


if __name__ == "__main__":
    main()
