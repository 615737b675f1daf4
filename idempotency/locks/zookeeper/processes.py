"""What each process has of its own: made on first use, left behind by a fork, closed at the end."""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar
from weakref import WeakSet

GOODBYE = 2
"""Seconds for which the end of a process waits until all is closed."""


class Closable(Protocol):
    """What lasts until it is over."""

    @property
    def is_over(self) -> bool: ...

    def end(self) -> None:
        """Let it be over, without waiting."""

    def await_end(self, seconds: float) -> None:
        """Wait until what is over is closed as well."""

    def leave(self) -> None:
        """Let it be the parent's, in a child of a fork."""


Kept = TypeVar("Kept", bound=Closable)


class OnePerProcess(Generic[Kept]):
    """Gives the one that this process has; a new one after a fork, or when that is over."""

    def __init__(self, make: Callable[[], Kept]) -> None:
        self._make = make
        self._kept: Kept | None = None
        self._mutex = threading.Lock()
        self._left: list[Kept] = []
        _all.add(self)

    def get(self) -> Kept:
        with self._mutex:
            if self._kept is None or self._kept.is_over:
                self._kept = self._make()
            return self._kept

    def existing(self) -> Kept | None:
        """Give what there is already and not over, or None."""
        kept = self._kept
        return None if kept is None or kept.is_over else kept

    def end(self) -> None:
        if self._kept is not None:
            self._kept.end()

    def await_end(self, seconds: float) -> None:
        if self._kept is not None:
            self._kept.await_end(seconds)

    def leave(self) -> None:
        self._mutex = threading.Lock()  # Another thread may have had it during the fork.
        if self._kept is not None:
            self._kept.leave()
            self._left.append(self._kept)  # Not to be collected, as that may close it.
            self._kept = None


_all: WeakSet[OnePerProcess[Any]] = WeakSet()


def _leave_all() -> None:
    for each in list(_all):
        each.leave()


@atexit.register
def end_all() -> None:
    """Close what this process has, and wait for that a little while."""
    known, deadline = list(_all), time.monotonic() + GOODBYE
    for each in known:
        each.end()
    for each in known:
        each.await_end(max(0.0, deadline - time.monotonic()))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all)
