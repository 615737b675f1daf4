"""The nodes that a session has, for how long, and those still to be taken away."""

from __future__ import annotations

import atexit
import math
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from ...exceptions import StoreUnavailable
from ..base import Ask, Grant
from .nodes import place_of, split
from .sessions import AWAY, Session

AGAIN = 0.5
"""Seconds until it is tried again to take away what ZooKeeper could not be told of."""

PATIENCE = 5
"""Seconds for which a place is kept whose owner does not come by."""

LONGEST = threading.TIMEOUT_MAX

Key = tuple[str, str]


@dataclass(slots=True, eq=False)
class Place:
    """
    A node of ours in a line.

    *ahead* is set when the node before it may have gone. It holds its lock if there is a *grant*,
    until *ends_at* by `time.monotonic`.
    """

    path: str
    token: int
    ahead: threading.Event | None = None
    grant: Grant | None = None
    ends_at: float = math.inf
    is_lost: bool = False
    on_loss: Callable[[], object] | None = None

    @property
    def is_behind(self) -> bool:
        """Whether nobody before it has left since it was last looked at."""
        return self.ahead is not None and not self.ahead.is_set()

    @property
    def lease(self) -> float:
        return math.inf if self.grant is None or self.grant.lease is None else self.grant.lease

    def lose(self) -> None:
        """Let the lock be lost, for good."""
        self.is_lost = True
        on_loss, self.on_loss = self.on_loss, None
        if on_loss is not None:
            on_loss()


class Tenures:
    """
    The places that one session has in the lines of locks.

    A thread takes away those whose lease is over though their holder lives, and the nodes of
    which nobody knows whether they came to be. In the end it closes the session.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self._places: dict[Key, Place] = {}
        self._strays: set[str] = set()
        self._changed = session.changed
        self._wakes_at = math.inf
        session.on_break = self._lose_all
        self._thread = threading.Thread(target=self._run, name="idempotency-locks", daemon=True)
        self._thread.start()

    @property
    def is_over(self) -> bool:
        return self.session.is_over

    def end(self) -> None:
        self.session.end()

    def await_end(self, seconds: float) -> None:
        self._thread.join(seconds)

    def leave(self) -> None:
        # kazoo would stop threads that a child does not have.
        atexit.unregister(self.session.client.handler.stop)

    def find(self, name: str, owner: str) -> Place | None:
        """Give the place that *owner* has in the line for *name*."""
        return self._places.get((name, owner))

    def stand(self, ask: Ask, path: str, stat: Any) -> Place:
        """Give the place of the new node at *path*."""
        self.session.learn_time(stat.ctime)
        place = Place(path, stat.czxid)
        with self._changed:
            self._places[ask.name, ask.owner] = place
            self.stay(place)
        return place

    def stay(self, place: Place) -> None:
        """Let *place* be kept for whoever waits there, and comes by now and then."""
        self._end_at(place, time.monotonic() + PATIENCE)

    def hold(self, place: Place, grant: Grant, breaks: int) -> None:
        """
        Let *place* hold its lock, as ZooKeeper said after *breaks* of the connection.

        Raises: `StoreUnavailable` if that may be over by now.
        """
        with self._changed:
            is_kept = self.find(grant.name, grant.owner) is place
            if self.session.breaks != breaks or not is_kept:
                raise StoreUnavailable(AWAY, retry_after=1)
            place.grant = grant
            self._end_at(place, time.monotonic() + place.lease)

    def renew(self, grants: Collection[Grant]) -> list[Grant]:
        """Let each lease start anew whose node is still there; give the other ones."""
        self.session.check()
        started_at = time.monotonic()
        held = [(grant, place) for grant in grants if (place := self._held(grant)) is not None]
        there = self.session.there([place.path for _, place in held])
        kept = [(grant, place) for grant, place in held if place.path in there]
        for _, place in kept:
            self._end_at(place, started_at + place.lease)
        return [grant for grant in grants if grant not in dict(kept)]

    def _held(self, grant: Grant) -> Place | None:
        place = self.find(grant.name, grant.owner)
        return None if place is None or place.grant != grant or place.is_lost else place

    def _end_at(self, place: Place, ends_at: float) -> None:
        with self._changed:
            place.ends_at = ends_at
            if ends_at < self._wakes_at:
                self._wakes_at = ends_at
                self._changed.notify_all()

    def watch(self, grant: Grant, on_loss: Callable[[], object]) -> None:
        """Call *on_loss* when the connection breaks, or the lease of *grant* is over."""
        with self._changed:
            place = self._held(grant)
            if place is not None:
                place.on_loss = on_loss
                return
        on_loss()

    def drop(self, name: str, owner: str) -> Place | None:
        """Give the place that *owner* has, and know no more of it."""
        with self._changed:
            return self._places.pop((name, owner), None)

    def give_up(self, name: str, owner: str) -> None:
        """Leave the place that *owner* has, if any, soon."""
        place = self.drop(name, owner)
        if place is not None:
            self.abandon(place.path)

    def abandon(self, path: str) -> None:
        """Take away the node at *path*, which may lack its number, as soon as that can be."""
        with self._changed:
            self._strays.add(place_of(path))
            self._wakes_at = 0
            self._changed.notify_all()

    def _lose_all(self) -> None:
        with self._changed:
            places = [place for place in self._places.values() if place.grant is not None]
        for place in places:
            place.lose()

    def _run(self) -> None:
        while not self.is_over:
            for place in self._overdue():
                place.lose()
            if not self._take_away():
                self._await_work()
        self._lose_all()
        self.session.stop()

    def _overdue(self) -> list[Place]:
        """Give the places whose lease is over, and take them away."""
        now = time.monotonic()
        with self._changed:
            over = {key: place for key, place in self._places.items() if place.ends_at <= now}
            for key, place in over.items():
                del self._places[key]
                self._strays.add(place_of(place.path))
        return list(over.values())

    def _take_away(self) -> bool:
        """Take away what is to be, and tell whether there was anything that could be."""
        strays = list(self._strays)
        try:
            for stray in strays:
                self.session.check()
                self._remove(stray)
                self._strays.discard(stray)
        except StoreUnavailable:
            return False
        return bool(strays)

    def _remove(self, stray: str) -> None:
        client, (folder, start) = self.session.client, split(stray)
        # Whatever was sent over a connection that broke is known to a server only after a sync.
        _, nodes = self.session.ask(client.sync_async(folder), client.get_children_async(folder))
        if not isinstance(nodes, Exception):
            for node in nodes:
                if node.startswith(start):
                    self.session.remove(f"{folder}/{node}")

    def _await_work(self) -> None:
        with self._changed:
            until = min((place.ends_at for place in self._places.values()), default=math.inf)
            if self._strays:
                until = min(until, time.monotonic() + AGAIN)
            self._wakes_at = -math.inf if self.is_over else until
            self._changed.wait(min(max(0.0, self._wakes_at - time.monotonic()), LONGEST))
