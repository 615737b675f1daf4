"""Labels of which there are only so many, whatever comes."""

from __future__ import annotations

from itertools import count

OTHER = "(other)"
"""What stands for all that came too late to be told apart."""


class Bounded:
    """
    Gives each of the first *most* names as it is, and `OTHER` for the rest.

    Has no lock, which a child of a fork might find taken for ever: each new name draws a number.
    """

    __slots__ = ("_known", "_numbers", "most")

    def __init__(self, most: int) -> None:
        self.most = most
        self._known: set[str] = set()
        self._numbers = count()

    def __call__(self, name: str) -> str:
        if name in self._known:
            return name
        if len(self._known) >= self.most or next(self._numbers) >= self.most:
            return OTHER
        self._known.add(name)
        return name
