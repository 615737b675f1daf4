"""Draws the states and transitions of a model."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.apps import apps
from django.core.management.base import BaseCommand, CommandError


class Command(BaseCommand):
    help = "Draw the states and transitions of a model, as a stateDiagram-v2 of Mermaid."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("model", help="such as orders.Order")
        parser.add_argument("--field", help="the state field, if the model has several")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            from ...transitions import state_chart
        except ModuleNotFoundError as error:
            raise CommandError(
                'State charts need django-fsm: pip install "django-idempotency[fsm]".'
            ) from error
        app, dot, name = options["model"].partition(".")
        if not dot:
            raise CommandError(f"Name the app and the model: orders.Order, not {app!r}.")
        try:
            chart = state_chart(apps.get_model(app, name), options["field"])
        except LookupError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(chart, ending="")
