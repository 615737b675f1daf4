"""Measure what a protected request costs beside the bare view and the hand-written floor."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from statistics import median, quantiles
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from .environment import DATABASES, prepared, server

if TYPE_CHECKING:
    from .contenders import Contender
    from .rounds import Phase, Score

FIRST_GOAL = 0.55
FIRST_GOAL_IN_REDIS = 0.75
REPLAY_GOAL = 1.8
WIDTH = 108
NOTE = (
    "Ratios are requests per second by those of the bare view, of the same framework: the median"
    " of the rounds, and between which values half of the rounds lie. Statements are those added to"
    " the view's own INSERT, without BEGIN and COMMIT; '-' are not sent through Django."
)


def main() -> None:
    asked = arguments()
    console = Console(width=WIDTH)
    with prepared(asked.database):
        from .peers import connections
        from .rounds import compete
        from .urls import ABSENT, CONTENDERS, FRAMEWORKS, PEERS

        contenders = [*CONTENDERS, *(PEERS if asked.peers else [])]
        if asked.frameworks:
            contenders = [CONTENDERS[0], *FRAMEWORKS]
        with connections, Progress(console=console, transient=True) as progress:
            task = progress.add_task("rounds", total=asked.rounds)
            scores = compete(
                contenders, asked.rounds, asked.requests, lambda: progress.advance(task)
            )
        console.print(table(server(), contenders, scores))
        for line in [NOTE, *(ABSENT if asked.peers else [])]:
            console.print(line, style="dim")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.claim", description=__doc__)
    parser.add_argument("--requests", type=int, default=40, help="requests in a turn")
    parser.add_argument("--rounds", type=int, default=60, help="turns of each contender")
    parser.add_argument(
        "--frameworks", action="store_true", help="compare views of frameworks, bare and protected"
    )
    parser.add_argument("--peers", action="store_true", help="let other libraries compete")
    parser.add_argument(
        "--database", choices=DATABASES, default=DATABASES[0], help="unless DATABASE_URL is set"
    )
    return parser.parse_args()


def table(title: str, contenders: Sequence[Contender], scores: Mapping[str, Score]) -> Table:
    """Give a line for each contender, and what was to be reached in the head."""
    shown = Table(title=title, box=box.SIMPLE_HEAD)
    shown.add_column("", no_wrap=True)
    first_goals = f"{FIRST_GOAL}, Redis {FIRST_GOAL_IN_REDIS}"
    for kind, goal in (("first", first_goals), ("replay", REPLAY_GOAL)):
        shown.add_column(f"{kind}\nper s", justify="right", no_wrap=True)
        shown.add_column("SQL", justify="right", no_wrap=True)
        shown.add_column(f"of bare\ngoal {goal}", justify="right", no_wrap=True)
    for each in contenders:
        score = scores[each.name]
        goal = FIRST_GOAL_IN_REDIS if each.is_in_redis else FIRST_GOAL
        first = cells(score.first, goal, is_judged=each.is_ours)
        replay = cells(score.replay, REPLAY_GOAL, is_judged=each.is_ours)
        shown.add_row(each.name, *first, *(replay if each.replays else []))
    return shown


def cells(phase: Phase, goal: float, *, is_judged: bool) -> list[str]:
    ratio = median(phase.ratios)
    low, _, high = quantiles(phase.ratios, n=4)
    verdict = (" [green]✓" if ratio >= goal else " [red]✗") if is_judged else ""
    statements = "-" if phase.statements < 0 else str(phase.statements)
    return [
        f"{median(phase.rates):,.0f}",
        statements,
        f"[bold]{ratio:.2f}[/] [dim]{low:.2f}-{high:.2f}[/]{verdict}",
    ]


if __name__ == "__main__":
    main()
