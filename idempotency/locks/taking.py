"""Getting a lock: one try, or several until it is got or the time is up."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

from asgiref.sync import AsyncToSync, sync_to_async

from ..exceptions import IdempotencyError, LockUnavailable
from ..uptime import uptime
from ..waiting import LONGEST_PAUSE, Pauses, to_its_end
from .base import Ask, BaseLockBackend, Busy, Grant

logger = logging.getLogger("idempotency")
Result = TypeVar("Result")

LONGEST_RETRY = 5.0
"""Seconds after which a caller may try again at the latest, as most are done before their lease."""


def new_owner() -> str:
    """Give a name for one holder: nobody else's, and telling a person where it runs."""
    return f"{_host()}:{os.getpid()}:{secrets.token_hex(8)}"


@cache
def _host() -> str:
    return socket.gethostname()[:64]


class Taking:
    """One caller on its way to a lock."""

    def __init__(self, backend: BaseLockBackend, name: str, wait: float, lease: float) -> None:
        self.backend = backend
        self.ask = Ask(name, new_owner(), lease, queues=wait > 0)
        self.wait = wait
        self.started_at = uptime()
        """When the try began that got the lock: the lease is counted from here."""
        self._mutex = threading.Lock()
        self._is_withdrawn = False
        self.tries = 0

    def take(self) -> Grant:
        """
        Give the lock within `wait` seconds.

        Raises: `LockUnavailable` if another has it; `StoreUnavailable`.
        """
        pauses, deadline = self._begin()
        try:
            while isinstance(found := self._try(), Busy):
                self.backend.pause(self.ask, found, self._pause(found, pauses, deadline))
        except BaseException as error:
            if self.backend.may_leave(self.ask, error):
                self.withdraw()
            raise
        return found

    async def atake(self) -> Grant:
        """Do what `take` does, without a thread while it waits."""
        pauses, deadline = self._begin()
        try:
            while isinstance(found := await self._in_thread(self._try), Busy):
                await asyncio.sleep(self._pause(found, pauses, deadline))
        except BaseException as error:
            if self.backend.may_leave(self.ask, error):
                await self._in_thread(self.withdraw)
            raise
        return found

    def _begin(self) -> tuple[Pauses, float]:
        return Pauses(longest=LONGEST_PAUSE), time.monotonic() + self.wait

    def _try(self) -> Grant | Busy:
        with self._mutex:  # The end of a loop cancels a try whose thread goes on, or only begins.
            if self._is_withdrawn:
                raise LockUnavailable("Nobody waits for this lock any more.")
            self.started_at = uptime()
            self.tries += 1
            return self.backend.acquire(self.ask)

    def _pause(self, busy: Busy, pauses: Pauses, deadline: float) -> float:
        left = deadline - time.monotonic()
        if left <= 0:
            raise LockUnavailable(
                f"The lock {self.ask.name!r} is held by another; nothing was done.",
                retry_after=min(max(1.0, busy.left or 0), LONGEST_RETRY),
            )
        return min(left, pauses.pause())

    async def _in_thread(self, step: Callable[[], Result]) -> Result:
        return await in_thread(step, thread_sensitive=self.backend.thread_sensitive)

    def withdraw(self) -> None:
        """Clean up; a failure must not hide why that was needed."""
        try:
            with self._mutex:
                self._is_withdrawn = True
                self.backend.withdraw(self.ask)
        except IdempotencyError:
            logger.warning("A lock may be left until its lease is over.", exc_info=True)


async def in_thread(step: Callable[[], Result], *, thread_sensitive: bool) -> Result:
    """Run *step* where it may block, and to its end even if its caller is cancelled."""
    threads = None if thread_sensitive else _threads()
    run = sync_to_async(step, thread_sensitive=thread_sensitive, executor=threads)
    return await to_its_end(run())


@cache
def _threads() -> ThreadPoolExecutor:
    """Give the threads of the steps: those of the loop may all wait for what a step would free."""
    return ThreadPoolExecutor(thread_name_prefix="idempotency-locks")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.cache_clear)


def is_inside_sync_code() -> bool:
    """Whether synchronous code waits for us in `async_to_sync`, perhaps in a transaction."""
    return getattr(AsyncToSync.executors, "current", None) is not None
