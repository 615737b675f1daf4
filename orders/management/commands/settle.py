"""`manage.py settle`: what was paid until the end of a day becomes one settlement."""

from __future__ import annotations

import datetime as dt
from argparse import ArgumentParser, ArgumentTypeError
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from idempotency import LockUnavailable, lock
from orders.settling import LOCK, running, settle, yesterday


def day_of(text: str) -> dt.date:
    try:
        return dt.date.fromisoformat(text)
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r} is no day such as 2026-11-24.") from error


class Command(BaseCommand):
    help = (
        "Settle what was paid until the end of a day. Safe to run twice, from several machines at"
        " once, and to stop or kill at any point; a run that meets another one ends with code 0."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--day", type=day_of, help="such as 2026-11-24; yesterday if left out")

    def handle(self, *args: Any, day: dt.date | None, **options: Any) -> None:
        day = day or yesterday()
        if day > yesterday():
            raise CommandError(f"{day} is not over yet.")
        try:
            with lock(LOCK):
                settlement, created = settle(day)
        except LockUnavailable:
            other = running()
            name = f" by {other.owner}" if other else ""
            self.stdout.write(f"It is being settled right now{name}; nothing to do here.")
            return
        done = "is settled" if created else "was settled before"
        self.stdout.write(f"{day} {done}: {settlement.total / 100:,.2f}.")
