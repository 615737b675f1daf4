"""Waiting: a little longer each time, and to the end even if the caller leaves."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from contextvars import Context, copy_context
from typing import Any, TypeVar

from asgiref.sync import sync_to_async
from django.db import connections

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
    context = copy_context()
    task = asyncio.get_running_loop().create_task(coroutine, context=context)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await _until_done(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("A call failed after its caller had left.", exc_info=task.exception())
        raise
    finally:
        _take_over(context)


def _take_over(context: Context) -> None:
    """Have here what was set there, as if it had been awaited directly: a language, for one."""
    for variable, value in context.items():
        if variable.get(None) is not value:
            variable.set(value)


async def finish_in_thread(step: Callable[[], Result]) -> Result:
    """
    Call *step* in the thread of the ORM, and give its result even if the caller is cancelled.

    The end of a loop cancels what waits for that thread: another one calls *step* then. The
    cancellation is told at the next `await`.
    """
    turns: list[Callable[[], Result]] = [step]
    made: Future[Result] = Future()

    def run() -> None:
        try:
            own = turns.pop()
        except IndexError:  # Another thread has it.
            return
        try:
            made.set_result(own())
        except BaseException as error:
            made.set_exception(error)

    def run_apart() -> None:
        run()
        connections.close_all()

    try:
        await sync_to_async(run)()
    except asyncio.CancelledError:
        asyncio.get_running_loop().run_in_executor(None, run_apart)
        await _until_done(asyncio.wrap_future(made))
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()  # Whoever counts them is to count this one once.
            task.cancel()
    return made.result()


async def _until_done(future: asyncio.Future[Any]) -> None:
    while not future.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([future])
