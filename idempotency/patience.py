"""Waiting: how long, how often, and to the end even if the caller leaves."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from .exceptions import IdempotencyError, KeyInProgress
from .stores.base import Interrupted

logger = logging.getLogger("idempotency")
Result = TypeVar("Result")


class Patience:
    """Decides whether a claim that did not come about is tried again, and when."""

    def __init__(self, wait: float, tries: int) -> None:
        self.deadline = time.monotonic() + wait
        self.tries = tries
        self.longest = 0.01

    def cures(self, error: IdempotencyError) -> bool:
        """Whether another try may end better than with *error*."""
        if isinstance(error, Interrupted):
            self.tries -= 1
            return self.tries > 0
        return isinstance(error, KeyInProgress) and time.monotonic() < self.deadline

    def pause(self) -> float:
        """Give the seconds to wait: longer each time, never two callers alike."""
        self.longest = min(self.longest * 2, 0.25)
        return random.uniform(self.longest / 2, self.longest)  # noqa: S311 - not a secret.


async def to_its_end(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Await *coroutine*; if the caller is cancelled meanwhile, let it end before that is told."""
    task = asyncio.ensure_future(coroutine)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled() and task.exception() is not None:
            logger.error("A call failed after its caller had left.", exc_info=task.exception())
        raise
