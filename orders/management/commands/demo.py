"""`manage.py demo`: a storm of repeated requests, without protection and with it."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError


class Command(BaseCommand):
    help = "Send the same storm of repeated requests without protection and with it, and compare."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--orders", type=int, default=200, help="how many orders are meant")
        parser.add_argument("--port", type=int, default=8000, help="where to serve, if it is free")
        parser.add_argument("--once", action="store_true", help="end after the storms")
        parser.add_argument(
            "--services", action="store_true", help="run on an own PostgreSQL and Valkey"
        )

    def handle(
        self, *args: Any, orders: int, port: int, once: bool, services: bool, **options: Any
    ) -> None:
        if orders < 1:
            raise CommandError("A storm needs at least one order.")
        try:
            from orders.demo.stage import perform

            sys.exit(perform(orders, port, once=once, services=services))
        except ImportError as error:
            raise CommandError(
                f"{error}: install the dependency groups of this project."
            ) from error
