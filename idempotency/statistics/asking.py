"""Questions to servers that may hang: each in a thread of its own, and for a bounded time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from django.db import connections
from django.utils.translation import gettext as _

from ..exceptions import IdempotencyError

Name = TypeVar("Name")
Answer = TypeVar("Answer")

PATIENCE = 2.0
"""Seconds after which a page is shown without what has not been answered."""


class _Question(Generic[Answer]):
    def __init__(self, ask: Callable[[], Answer]) -> None:
        self.ask = ask
        self.answer: Answer | Exception = TimeoutError(
            _("no answer within %(seconds)s s") % {"seconds": f"{PATIENCE:g}"}
        )
        self.thread = threading.Thread(target=self._run, name="idempotency-ask", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.answer = self.ask()
        except Exception as error:
            self.answer = error
        finally:
            connections.close_all()


def ask_all(questions: Mapping[Name, Callable[[], Answer]]) -> dict[Name, Answer | Exception]:
    """Ask all *questions* at once, and give for each what it gave or raised within `PATIENCE`."""
    asked = {name: _Question(ask) for name, ask in questions.items()}
    deadline = time.monotonic() + PATIENCE
    for question in asked.values():
        question.thread.join(max(0.0, deadline - time.monotonic()))
    return {name: question.answer for name, question in asked.items()}


def failure_of(error: Exception) -> str:
    """Give in a line why there is no answer; what a server said may have an address in it."""
    cause = error.__cause__ or error
    own = str(error) if isinstance(error, IdempotencyError | TimeoutError) else ""
    return " ".join(filter(None, [own, f"({type(cause).__name__})"]))
