"""A memory of what was lately seen, of bounded size."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable


class Recent:
    """
    Remembers the last *most* things that were added.

    It has no lock, which a signal's handler or the child of a fork would find taken: each step is
    one call of the dictionary.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._things: OrderedDict[Hashable, None] = OrderedDict()

    def __contains__(self, thing: Hashable) -> bool:
        return thing in self._things

    def add(self, thing: Hashable) -> None:
        self._things[thing] = None
        while len(self._things) > self.most:
            try:
                self._things.popitem(last=False)
            except KeyError:  # Others have removed them.
                return
