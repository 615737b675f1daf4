"""Where the demo runs: on the database that was given, a fresh SQLite file, or real services."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from django.conf import settings
from django.core.management import CommandError

from .processes import start, stop

Surroundings = AbstractContextManager[Mapping[str, str]]
"""A database while the block runs, as environment variables."""
PATIENCE = 20
"""Seconds that the demo has to end its server and itself."""


@contextmanager
def fresh_file() -> Iterator[Mapping[str, str]]:
    """Give the environment of a SQLite file that is gone after the block."""
    with TemporaryDirectory(prefix="orders-demo-") as folder:
        yield {"DATABASE_URL": f"sqlite:///{Path(folder) / 'demo.sqlite3'}"}


@contextmanager
def real_services() -> Iterator[Mapping[str, str]]:
    """
    Give the environment of a PostgreSQL and a Valkey that end with the block.

    Raises: `CommandError` if one does not start.
    """
    from tests.services import running

    with running() as services:
        if services.absent:
            raise CommandError("; ".join(services.absent))
        yield services.environment


def run_again(arguments: Sequence[str], surroundings: Surroundings) -> int:
    """Run the command again in *surroundings*; give its exit code."""
    command = [sys.executable, "-m", "django", "demo", *arguments]
    with surroundings as variables:
        process = start(command, cwd=settings.BASE_DIR, env=os.environ | dict(variables))
        with suppress(KeyboardInterrupt):
            process.wait()
        stop(process, PATIENCE)
        return process.returncode
