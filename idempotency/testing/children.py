"""Child processes that begin as a copy of this one, and report by a pipe."""

from __future__ import annotations

import faulthandler
import os
import pickle
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

from django.db import connections

Report = Callable[[Any], None]
PATIENCE = 60
"""Seconds after which a child writes to the standard error where it is."""


class Child:
    """A forked process that runs a function, which may report values on its way."""

    def __init__(self, function: Callable[[Report], object]) -> None:
        _refuse_open_transactions()
        # A connection that two processes share would be closed by whichever ends first.
        connections.close_all()
        sys.stdout.flush()
        sys.stderr.flush()
        self._reader, writer = os.pipe()
        with warnings.catch_warnings():
            # Threads do not come along; those of Django's drivers and of ours can do without.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.pid = os.fork()
        if self.pid == 0:
            os.close(self._reader)
            _run(function, writer)
        os.close(writer)

    def join(self) -> tuple[list[Any], int]:
        """Give what it reported, and the signal that ended it (0 if it came to its end)."""
        with os.fdopen(self._reader, "rb") as stream:
            reports = []
            while True:
                try:
                    reports.append(pickle.load(stream))  # noqa: S301 - from our own child.
                except EOFError:
                    break
                except BaseException:  # Such as Ctrl-C: nobody waits for it any more.
                    self.kill()
                    raise
        _, status = os.waitpid(self.pid, 0)
        return reports, os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


def _run(function: Callable[[Report], object], writer: int) -> NoReturn:
    def report(value: Any) -> None:
        os.write(writer, pickle.dumps(value))

    # Whoever waits for it sees only its own stack.
    faulthandler.dump_traceback_later(PATIENCE, file=2)
    try:
        function(report)
        connections.close_all()
    except BaseException as error:
        report(Failure("".join(traceback.format_exception(error))))
    os._exit(0)


class Failure(AssertionError):
    """A child failed by itself; the text is its traceback."""


def _refuse_open_transactions() -> None:
    for connection in connections.all(initialized_only=True):
        if connection.in_atomic_block:
            raise RuntimeError(
                "Other processes cannot see what this transaction did. Use a TransactionTestCase,"
                " or pytest.mark.django_db(transaction=True)."
            )
