"""The demo from an empty database to its table, and on until Ctrl-C."""

from __future__ import annotations

import asyncio
import secrets
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.db import connection
from django.urls import reverse
from rich.console import Console

from orders.models import Product

from .books import audit
from .environment import fresh_file, real_services, run_again
from .processes import end_on_signals
from .report import Round, compare, introduce, progress, sum_up, welcome
from .server import WORKERS, Server, ServerDown, serve
from .storm import Intent, Storm, plan

ENDPOINTS = {
    "Without protection": "orders:unprotected:create",
    "With @idempotent_view": "orders:create",
}
PRICE = 10_000


def perform(orders: int, port: int, *, once: bool, services: bool) -> int:
    """
    Show both storms, then go on serving unless *once*; give the exit code.

    Settings are read once: without a database of its own, the demo starts again with one.

    Raises: `CommandError` if the server does not start.
    """
    end_on_signals()
    try:
        if services or not settings.DATABASE_URL:
            arguments = [f"--orders={orders}", f"--port={port}", *(["--once"] if once else [])]
            return run_again(arguments, real_services() if services else fresh_file())
        return int(not run(orders, port, once=once))
    except ServerDown as error:
        raise CommandError(f"The server did not start. {error}") from error
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def run(orders: int, port: int, *, once: bool) -> bool:
    """Show both storms on a server of our own; tell whether protection held."""
    console = Console(highlight=False)
    introduce(console, orders)
    call_command("migrate", verbosity=0, interactive=False)
    with serve(port) as server:
        console.print(f"  {WORKERS} workers on {server.address} with {connection.display_name}\n")
        held = show_storms(console, server, orders)
        if not once:
            stay(console, server)
    return held


def show_storms(console: Console, server: Server, orders: int) -> bool:
    """Let the same storm loose on both endpoints; tell whether the protected one held."""
    intents = plan(orders)
    unprotected, protected = (
        let_loose(console, server, title, reverse(view), intents)
        for title, view in ENDPOINTS.items()
    )
    console.print(compare(unprotected, protected))
    sum_up(console, protected)
    return protected.books.right


def let_loose(
    console: Console, server: Server, title: str, path: str, intents: Sequence[Intent]
) -> Round:
    """Let the storm of *intents* loose on *path* and the payments under it."""
    product = stock_up(title, intents)
    storm = Storm(server, path, product.pk)
    with progress(console, title, len(intents)) as advance:
        asyncio.run(storm.rage(intents, advance))
    return Round(len(intents), storm.tally, audit(product, intents, storm.tally))


def stock_up(title: str, intents: Sequence[Intent]) -> Product:
    """Put more of a new product on the shelf than even all duplicates could take."""
    stock = 100 * sum(intent.quantity for intent in intents)
    name = f"Teapot {secrets.token_hex(4)}, {title.lower()}"
    return Product.objects.create(name=name, price=PRICE, stock=stock)


def stay(console: Console, server: Server) -> None:
    """Serve until Ctrl-C, with a log-in that is valid so long."""
    with log_in() as (username, password), suppress(KeyboardInterrupt):
        welcome(console, server.address, username, password)
        server.process.wait()


@contextmanager
def log_in() -> Iterator[tuple[str, str]]:
    """Give the name and the password of a superuser who is gone after the block."""
    users = get_user_model().objects
    password = secrets.token_urlsafe(12)
    taken = users.filter(username="demo").exists()
    username = f"demo-{secrets.token_hex(3)}" if taken else "demo"
    user = users.create_superuser(username, password=password)
    try:
        yield username, password
    finally:
        user.delete()
