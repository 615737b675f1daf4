"""Count how many completions stay on their row's page, and make no new entry in any index."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from rich.console import Console

from .environment import prepared


@dataclass(frozen=True, slots=True)
class Writes:
    """What PostgreSQL counted on the table of the records."""

    inserts: int
    updates: int
    hot: int

    def since(self, before: Writes) -> Writes:
        return Writes(
            self.inserts - before.inserts, self.updates - before.updates, self.hot - before.hot
        )


def main() -> None:
    asked = arguments()
    console = Console()
    with prepared():
        from django.db import connection

        if connection.vendor != "postgresql":
            raise SystemExit("HOT updates are a matter of PostgreSQL.")
        from .contenders import OURS
        from .rounds import take_turn

        for each in OURS:
            before = writes()
            take_turn(each, asked.requests)
            made = writes().since(before)
            line = (
                f"{each.name}: {made.inserts:,} inserts, {made.updates:,} updates, {made.hot:,} HOT"
            )
            console.print(line, style="green" if made.hot == made.updates else "red")


def writes() -> Writes:
    """Give the counts up to now, once this connection has handed its own in."""
    from django.db import connection

    from idempotency.models import IdempotencyRecord

    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_force_next_flush()")
        cursor.execute(
            "SELECT n_tup_ins, n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables"
            " WHERE relid = %s::regclass",
            [IdempotencyRecord._meta.db_table],
        )
        return Writes(*cursor.fetchone())


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hot", description=__doc__)
    parser.add_argument("--requests", type=int, default=3_000, help="first requests of each kind")
    return parser.parse_args()


if __name__ == "__main__":
    main()
