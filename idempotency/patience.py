"""How often, and for how long, a claim that did not come about is tried again."""

from __future__ import annotations

import time

from .exceptions import IdempotencyError, KeyInProgress
from .stores.base import Interrupted
from .waiting import Pauses


class Patience(Pauses):
    """Decides whether a claim that did not come about is tried again, and when."""

    def __init__(self, wait: float, tries: int) -> None:
        super().__init__()
        self.deadline = time.monotonic() + wait
        self.tries = tries

    def cures(self, error: IdempotencyError) -> bool:
        """Whether another try may end better than with *error*."""
        if isinstance(error, Interrupted):
            self.tries -= 1
            return self.tries > 0
        return isinstance(error, KeyInProgress) and time.monotonic() < self.deadline
