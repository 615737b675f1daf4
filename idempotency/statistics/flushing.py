"""The background thread that writes what was counted, and the last time at the exit."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from collections.abc import Mapping
from typing import Any

from django.db import DataError, connections

from ..conf import STATISTICS, settings
from .counting import Counters
from .writing import write

logger = logging.getLogger("idempotency")

IDLE = 12
"""After so many intervals in which nothing was counted the thread ends."""


def options() -> Mapping[str, Any]:
    """Give the options of `IDEMPOTENCY_STATISTICS`, with the defaults of those left out."""
    given = settings.STATISTICS
    return {**STATISTICS, **(given if isinstance(given, Mapping) else {})}


PATIENCE = 10
"""Seconds that the end of a process waits for its last statistics to be written."""


def _interval() -> float:
    wanted: float = options()["INTERVAL"]
    return wanted if isinstance(wanted, int | float) else STATISTICS["INTERVAL"]


class Flushing:
    """Writes *counters* each few seconds, from a thread that runs while there is something."""

    def __init__(self, counters: Counters) -> None:
        self.counters = counters
        self.is_manual = False
        """Whether only `flush` writes: what tests count is not to reach another database."""
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._mutex = threading.Lock()
        self._is_failing = False

    def notice(self) -> None:
        """Have written, before long, what was counted."""
        if self._thread is None and not self.is_manual:
            self._start()

    def flush(self) -> None:
        """Write what was counted; keep it if that fails, unless it never could be written."""
        with self._mutex:
            batch = self.counters.take()
            if not batch:
                return
            wanted = options()
            try:
                write(batch, wanted["USING"], wanted["CALLS_PER_RECORD"])
            except DataError:  # It would fail again, and keep the rest from being written.
                raise
            except BaseException:
                self.counters.put_back(batch)
                raise

    def flush_quietly(self) -> None:
        """Do what `flush` does; log that it failed, the first time."""
        try:
            self.flush()
        except Exception as error:  # Whatever it is, there will be more to write.
            level = logging.DEBUG if self._is_failing else logging.WARNING
            self._is_failing = True
            fate = "dropped" if isinstance(error, DataError) else "kept"
            logger.log(level, "Statistics could not be written, and are %s.", fate, exc_info=error)
        else:
            self._is_failing = False
        finally:
            connections.close_all()  # An idle one would keep its database from being dropped.

    def flush_at_exit(self) -> None:
        """Write the rest, at the end of the process; give up a database that does not answer."""
        self._stop.set()
        if self.is_manual:
            return
        thread = self._thread
        if thread is None and not self.counters.is_empty:
            thread = self._start()
            if thread is None:  # Some versions of Python start none at their exit.
                self.flush_quietly()
        if thread is not None:
            thread.join(PATIENCE)

    def _start(self) -> threading.Thread | None:
        if _is_testing():
            self.is_manual = True
            return None
        thread = threading.Thread(target=self._run, name="idempotency-statistics", daemon=True)
        self._thread = thread
        try:
            thread.start()
        except RuntimeError:  # The interpreter shuts down, and will flush.
            self._thread = None
            return None
        return thread

    def _run(self) -> None:
        idle = 0
        is_last = False
        while idle < IDLE and not is_last:
            is_last = self._stop.wait(_interval())
            idle = idle + 1 if self.counters.is_empty else 0
            self.flush_quietly()
        self._thread = None
        if not (is_last or self.counters.is_empty):  # Whoever counted that saw a thread.
            self.notice()

    def reset(self) -> None:
        """Begin anew, as in the child of a fork: what was counted before is the parent's."""
        self.__init__(Counters())  # type: ignore[misc]


def _is_testing() -> bool:
    # Django's test runner and pytest-django both say so here, and nowhere that is public.
    utils = sys.modules.get("django.test.utils")
    return utils is not None and hasattr(utils._TestState, "saved_data")


flushing = Flushing(Counters())
atexit.register(flushing.flush_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=flushing.reset)
