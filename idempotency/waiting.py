"""Waiting: a little longer each time, and to the end even if the caller leaves."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

logger = logging.getLogger("idempotency")
Result = TypeVar("Result")

# Not the common one: whoever seeds that, as tests do, would make all callers wait alike.
_chance = random.SystemRandom()

LONGEST_PAUSE = 0.1
"""Seconds after which one that waits for a lock tries again, even if nobody told it to."""


class Pauses:
    """How long to wait between two tries: longer each time, never two callers alike."""

    def __init__(self, shortest: float = 0.01, longest: float = 0.25) -> None:
        self.next = shortest
        self.longest = longest

    def pause(self) -> float:
        """Give the seconds until the next try."""
        self.next = min(self.next * 2, self.longest)
        return _chance.uniform(self.next / 2, self.next)


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
