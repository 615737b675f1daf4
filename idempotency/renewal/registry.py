"""All that is held in this process, and who attends to it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from .holdings import Holding, Renewer
from .renewing import Renewing, Watching


class Renewal:
    """
    Renews every holding at a third of its lease, by one thread for each renewer.

    So one that hangs keeps no other from renewing; and none keeps a loss from being told.
    """

    def __init__(self) -> None:
        # By their ids: a thread that idles is not to keep alive what other settings have replaced.
        self._renewing: dict[int, Renewing] = {}
        self._watching = Watching(lambda: None)

    @property
    def holdings(self) -> set[Holding]:
        """All that are renewed."""
        return {holding for worker in self.workers for holding in list(worker.holdings)}

    @property
    def workers(self) -> list[Renewing]:
        """Those who renew them."""
        return list(self._renewing.values())

    @contextmanager
    def holding(
        self,
        renewer: Renewer,
        claim: Any,
        lease: float,
        on_lost: Callable[[], object] | None = None,
    ) -> Iterator[Holding]:
        """Renew *claim* in the background until the block ends."""
        holding = Holding(renewer, claim, lease, on_lost)
        try:
            self.add(holding)
            yield holding
        finally:
            self.discard(holding)

    def add(self, holding: Holding, *, renew: bool = True) -> None:
        """Tell of the end of *holding*, and let it not come to that if *renew*."""
        if renew:
            worker = self._worker(holding.renewer)
            holding.keeper = worker.holdings
            worker.add(holding)
        if holding.untold:
            self._watching.add(holding)

    def discard(self, holding: Holding) -> None:
        """Neither renew *holding* nor tell of it any more."""
        holding.leave()
        holding.untold.clear()
        self._watching.holdings.discard(holding)

    def lose(self, holding: Holding) -> None:
        """Let *holding* be lost at once, and tell whom that concerns."""
        holding.is_refused = True
        self._watching.holdings.discard(holding)
        holding.leave()
        holding.tell()

    def tell_also(self, holding: Holding, on_lost: Callable[[], object]) -> None:
        """Call *on_lost* as well when *holding* is lost, or now if it is already."""
        holding.untold.append(on_lost)
        if holding.is_refused:
            holding.tell()
        else:
            self._watching.add(holding)

    def run_soon(self, errand: Callable[[], object], renewer: Renewer) -> None:
        """Have the thread of *renewer* call *errand*, which must not be called where it arises."""
        self._worker(renewer).run_soon(errand)

    def _worker(self, renewer: Renewer) -> Renewing:
        key = id(renewer)
        worker = self._renewing.get(key)
        if worker is None:
            new = Renewing(partial(self._renewing.pop, key, None))
            worker = self._renewing.setdefault(key, new)  # Whoever came first stays.
        return worker

    def _reset(self) -> None:
        # A child of a fork has neither the threads nor the claims of its parent.
        self.__init__()  # type: ignore[misc]


renewal = Renewal()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=renewal._reset)
