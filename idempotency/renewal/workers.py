"""Threads that sleep until something is due, and end when there has been nothing for a while."""

from __future__ import annotations

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from queue import Empty, SimpleQueue

from django.db import connections

from ..uptime import uptime
from .calls import call, start
from .holdings import Holding

IDLE = 60
"""Seconds without work after which a thread ends."""

Errand = Callable[[], object]


class Worker(ABC):
    """
    A thread that attends to each holding when it is due, and runs errands in between.

    It has no lock: a signal may interrupt its callers anywhere, and `__del__` may be one of them.
    Each step that matters is one call of a set or a queue, which nothing interrupts.
    """

    name = "idempotency-renewal"

    def __init__(self, on_end: Callable[[], object]) -> None:
        self.holdings: set[Holding] = set()
        self.thread: threading.Thread | None = None
        self._on_end = on_end
        self._bell: SimpleQueue[Errand | float] = SimpleQueue()
        self._rung_for = -math.inf
        self._wakes_at = math.inf

    @abstractmethod
    def due_at(self, holding: Holding) -> float:
        """Give when *holding* is to be attended to, by `uptime`."""

    @abstractmethod
    def attend(self, due: list[Holding]) -> None:
        """Do what is due."""

    def add(self, holding: Holding) -> None:
        self.holdings.add(holding)
        if self.thread is None:
            start(self._run, self.name)
        elif (due_at := self.due_at(holding)) < self._wakes_at and self._bell.empty():
            # Otherwise it wakes up early enough, and need not be run in between.
            self._bell.put(due_at)

    def run_soon(self, errand: Errand) -> None:
        self._bell.put(errand)
        if self.thread is None:
            start(self._run, self.name)

    def _run(self) -> None:
        # Two that start at once both come here: the later one stays.
        own = self.thread = threading.current_thread()
        while self.thread is own:
            if not self._step():
                self.thread = None
                if self.holdings or not self._bell.empty():  # Whoever came by saw a thread.
                    self.thread = own
        if self.thread is None:
            self._on_end()
        connections.close_all()
        self._bell.put(-math.inf)  # The other one has not heard what rang here.

    def _step(self) -> bool:
        """Do what is due, or wait for it; tell whether there may be anything to come."""
        self._wakes_at = math.inf  # Whoever is added from now on rings, or is seen below.
        now = uptime()
        due = self._due(now)
        if due:
            self.attend(due)
            return True
        if not self.holdings:
            # An idle connection would keep a database from being dropped or restarted.
            connections.close_all()
        return self._await(min(self._wakes_at - now, IDLE)) or bool(self.holdings)

    def _due(self, now: float) -> list[Holding]:
        """Give what is due by *now*, or set when something may be; keep nothing alive till then."""
        holdings = list(self.holdings)
        due = [holding for holding in holdings if self.due_at(holding) <= now]
        if not due:
            # What it was rung for may be over: it still wakes up for the next one early enough.
            rung_for = self._rung_for if self._rung_for > now else math.inf
            self._wakes_at = min(rung_for, *map(self.due_at, holdings), math.inf)
        return due

    def _await(self, seconds: float) -> bool:
        """Wait for the bell, and tell whether there may be something to do."""
        try:
            rung = self._bell.get(timeout=seconds)
        except Empty:
            return seconds < IDLE
        if isinstance(rung, float):
            self._rung_for = rung
        else:
            call(rung)
        return True
