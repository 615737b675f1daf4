"""What is announced of a lock, from the first try to its end."""

from __future__ import annotations

import re

from ..exceptions import IdempotencyError, LockReentered, LockUnavailable, StoreUnavailable
from ..signals import LockEvent, LockOutcome, announce
from ..uptime import uptime

_FIRST_WORD = re.compile(r"(?P<word>[^\W\d]{0,40})(?P<end>[^\w]?)")


def template_of(name: str) -> str:
    """
    Give *name* without what is likely to differ from call to call: "order:…" for "order:42".

    That is its first word, if it is one of letters: what follows may be a number, or a person.
    """
    found = _FIRST_WORD.match(name)
    assert found is not None  # noqa: S101 - it matches nothing as well.
    return name if found["word"] == name else f"{found['word']}{found['end']}…"


class Life:
    """One lock, as those who listen know it."""

    __slots__ = ("backend", "name", "since", "template")

    def __init__(self, name: str, template: str | None, backend: str) -> None:
        self.name = name
        self.template = template_of(name) if template is None else template
        self.backend = backend
        self.since = uptime()

    def taken(self, *, tries: int) -> None:
        """Tell that it was got."""
        self._tell("taken" if tries == 1 else "waited")
        self.since = uptime()

    def refused(self, error: IdempotencyError) -> None:
        """Tell that it was not got, unless *error* is a mistake of its caller."""
        if isinstance(error, StoreUnavailable):
            self._tell("store_error")
        elif isinstance(error, LockUnavailable) and not isinstance(error, LockReentered):
            self._tell("turned_away")

    def ended(self, *, freed: bool) -> None:
        """Tell that its holder has left it."""
        self._tell("released" if freed else "lost")

    def _tell(self, outcome: LockOutcome) -> None:
        announce(
            LockEvent(
                name=self.name,
                template=self.template,
                backend=self.backend,
                outcome=outcome,
                seconds=uptime() - self.since,
            )
        )
