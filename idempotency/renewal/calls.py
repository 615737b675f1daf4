"""Calls of what others gave us, in the background: none may end the renewal of everything else."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from django.db import connections

logger = logging.getLogger("idempotency")


def call(callback: Callable[[], object]) -> None:
    """Call *callback*, and log it if that fails."""
    try:
        callback()
    except BaseException:  # Such as SystemExit: it would end this thread, and nobody else.
        logger.exception("%r failed in the background.", callback)


def call_apart(callback: Callable[[], object]) -> None:
    """Call *callback* in a thread of its own, where it may take its time."""
    start(lambda: _call_and_close(callback), "idempotency-call")


def start(run: Callable[[], object], name: str) -> None:
    """Start a thread, or log that there can be none, as when the interpreter shuts down."""
    try:
        threading.Thread(target=run, name=name, daemon=True).start()
    except RuntimeError:
        logger.warning("No thread %r can be started; leases will end.", name, exc_info=True)


def _call_and_close(callback: Callable[[], object]) -> None:
    call(callback)
    connections.close_all()
