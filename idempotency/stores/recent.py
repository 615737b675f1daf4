"""A memory of what was lately seen, of bounded size."""

from __future__ import annotations

import threading
from collections.abc import Hashable


class Recent:
    """Remembers the last *most* things that were added."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._things: dict[Hashable, None] = {}
        self._lock = threading.Lock()

    def __contains__(self, thing: Hashable) -> bool:
        return thing in self._things

    def add(self, thing: Hashable) -> None:
        with self._lock:
            self._things[thing] = None
            if len(self._things) > self.most:
                del self._things[next(iter(self._things))]
