"""What the demo says: its progress, its table and where to look next."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich import box
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from .books import Books
from .storm import Tally

INTRODUCTION = (
    "[bold]The same storm, twice.[/bold] {orders} clients each mean one order and one payment. "
    "They send each several times at once, and again later as after a time-out; many hang up "
    "before the answer, and again and again a worker of the server is killed with -9."
)
LAST_OF_SECTION = {"Workers killed with -9", "Server errors", "Stock adds up"}


@dataclass(frozen=True, slots=True)
class Round:
    """One storm: what its clients meant and saw, and what came of it."""

    meant: int
    tally: Tally
    books: Books


def introduce(console: Console, orders: int) -> None:
    """Say what is about to happen."""
    console.print(Padding(INTRODUCTION.format(orders=orders), (1, 2)))


@contextmanager
def progress(console: Console, title: str, total: int) -> Iterator[Callable[[], None]]:
    """Show how far *title* is on its way to *total*; each call of what is given is one step."""
    columns = (
        TextColumn("  {task.description:<24}"),
        BarColumn(bar_width=None, complete_style="cyan", finished_style="cyan"),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, expand=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda: bar.advance(task)


def compare(unprotected: Round, protected: Round) -> Table:
    """Set both storms side by side."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column()
    table.add_column("without\nprotection", justify="right")
    table.add_column("with\n@idempotent_view", justify="right")
    columns = _rows(unprotected), _rows(protected)
    for (name, left), (_, right) in zip(*columns, strict=True):
        table.add_row(name, left, right, end_section=name in LAST_OF_SECTION)
    return table


def _rows(storm: Round) -> list[tuple[str, RenderableType]]:
    tally, books = storm.tally, storm.books
    return [
        ("Orders meant, each with one payment", _number(storm.meant)),
        ("Requests sent", _number(tally.sent)),
        ("  whose answer nobody waited for", _number(tally.unread)),
        ("  whose connection broke", _number(tally.broken)),
        ("Workers killed with -9", _number(tally.killed)),
        ("Answered with the first answer again", _number(tally.replayed)),
        ("Turned away, to try again", _number(tally.turned_away)),
        ("Server errors", _number(tally.failed)),
        ("Orders made", _number(books.orders.made)),
        ("Payments made", _number(books.payments.made)),
        ("Stock adds up", "yes" if books.balanced else Text("no", "bold red")),
        ("[bold]Duplicates[/]", _verdict(books.duplicates)),
        ("[bold]Lost[/]", _verdict(books.lost)),
    ]


def _number(count: int) -> str:
    return f"{count:,}"


def _verdict(count: int) -> Text:
    return Text(f"{count:,}", "bold red" if count else "bold green")


def sum_up(console: Console, protected: Round) -> None:
    """Say in a sentence how the protected storm went."""
    if protected.books.right:
        words, style = "With it, each order and payment took effect exactly once.", "bold green"
    else:
        words, style = "Something took effect twice, or was lost: this is a bug.", "bold red"
    console.print(Text(f"  {words}\n", style))


def welcome(console: Console, address: str, username: str, password: str) -> None:
    """Say where to look in the browser."""
    rows = Table.grid(padding=(0, 2))
    rows.add_row("Try it", address)
    rows.add_row("See what was stopped", f"{address}admin/idempotency/statistic/")
    rows.add_row("Admin", f"{address}admin/")
    rows.add_row("Log in as", f"{username}  with the password  {password}")
    panel = Panel(rows, title="Still serving", subtitle="Ctrl-C ends it", expand=False)
    console.print(Padding(panel, (0, 2)))
