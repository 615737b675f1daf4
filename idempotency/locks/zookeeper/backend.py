"""Keeps locks in ZooKeeper, by kazoo: fair, and free once the session of their holder is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any
from weakref import finalize

from django.core.checks import CheckMessage, Error

from ...backends import seconds_of
from ...exceptions import InvalidBackend, StoreUnavailable
from ..base import Ask, BaseLockBackend, Busy, Grant, LiveLock
from .clients import new_client
from .nodes import folder_of, in_line, name_of, new_place, owner_of, split
from .processes import OnePerProcess
from .sessions import AWAY, Session
from .tenures import Place, Tenures

TRIES = 20
"""How often a node is made whose folder others take away at that moment."""


class ZooKeeperLockBackend(BaseLockBackend):
    """
    Keeps each lock as a line of nodes that end with the sessions of those who made them.

    Those who wait stand in the order of their arrival, and each is woken up by the one before. A
    lock is lost at once if the connection breaks. LEASE is the session's time-out that is asked
    for. The one that ZooKeeper agrees to is the longest lease of a lock, and how long a lock
    outlasts a process that died.

    OPTIONS: `hosts`; `root`, the node below which the locks are; `timeout`, the seconds that a
    step waits for ZooKeeper; `client`, further options of kazoo's client.
    """

    option_names = ("hosts", "root", "timeout", "client")

    def __init__(self, alias: str, options: Mapping[str, Any]) -> None:
        super().__init__(alias, options)
        where = f"IDEMPOTENCY_LOCKS[{alias!r}]['OPTIONS']"
        defaults = {"root": "/idempotency/locks", "timeout": 5}
        patience = seconds_of({**defaults, **self.options}, "timeout", where)
        self.root = self.options.get("root", defaults["root"]).rstrip("/")
        if not self.root.startswith("/"):
            raise InvalidBackend(f"{where}['root'] is a path such as '/idempotency/locks'.")
        self._make_client = partial(new_client, alias, self.lease, self.options)
        self._tenures = OnePerProcess(partial(_begin, self._make_client, patience))
        # What other settings have replaced is to keep no session.
        finalize(self, self._tenures.end).atexit = False

    def acquire(self, ask: Ask) -> Grant | Busy:
        tenures = self._connected()
        place = tenures.find(ask.name, ask.owner)
        if place is None and not ask.queues and self._is_taken(tenures.session, ask.name):
            return Busy()
        breaks = tenures.session.breaks
        if place is None or place.is_lost:
            place, line = self._line_up(tenures, ask)
        elif place.grant is not None:
            return place.grant
        elif place.is_behind:
            tenures.stay(place)
            return Busy()
        else:
            line = self._line(tenures.session, ask.name)
        return self._decide(tenures, ask, place, line, breaks)

    def _is_taken(self, session: Session, name: str) -> bool:
        """Tell whether somebody stands in line, so that a single try need not write."""
        folder, client = self._folder(name), session.client
        # Without a sync its server may not know yet that the lock is free.
        _, nodes = session.ask(client.sync_async(folder), client.get_children_async(folder))
        return not isinstance(nodes, Exception) and bool(in_line(nodes))

    def _line(self, session: Session, name: str) -> list[str]:
        (nodes,) = session.ask(session.client.get_children_async(self._folder(name)))
        return [] if isinstance(nodes, Exception) else in_line(nodes)

    def _line_up(self, tenures: Tenures, ask: Ask) -> tuple[Place, list[str]]:
        """Give a new place at the end of the line, and the line."""
        tenures.give_up(ask.name, ask.owner)
        session, client = tenures.session, tenures.session.client
        folder = self._folder(ask.name)
        start = new_place(folder, ask.owner)
        options = {"ephemeral": True, "sequence": True, "include_data": True}
        try:
            for _ in range(TRIES):
                _, node, nodes = session.ask(
                    client.create_async(folder),
                    client.create_async(start, ask.owner.encode(), **options),
                    client.get_children_async(folder),
                )
                if not isinstance(node, Exception):
                    line = [] if isinstance(nodes, Exception) else in_line(nodes)
                    return tenures.stand(ask, *node), line
                session.ask(client.ensure_path_async(self.root))
        except BaseException:
            tenures.abandon(start)  # It may be there, or come to be yet.
            raise
        raise StoreUnavailable(AWAY, retry_after=1)

    def _decide(
        self, tenures: Tenures, ask: Ask, place: Place, line: list[str], breaks: int
    ) -> Grant | Busy:
        """Hold the lock if *place* is the first in line; else stay there, if *ask* queues."""
        session, (folder, own) = tenures.session, split(place.path)
        turn = line.index(own) if own in line else None
        if turn == 0:
            grant = Grant(ask.name, ask.owner, place.token, min(ask.lease, session.lease))
            tenures.hold(place, grant, breaks)
            return grant
        if turn is None or not ask.queues:
            self._leave(tenures, ask.name, ask.owner)
        else:
            place.ahead = session.watch(f"{folder}/{line[turn - 1]}")
            tenures.stay(place)
        return Busy()

    def renew(self, grants: Collection[Grant]) -> Collection[Grant]:
        tenures = self._tenures.existing()
        return grants if tenures is None else tenures.renew(grants)

    def release(self, grant: Grant) -> bool:
        tenures = self._tenures.existing()
        place = None if tenures is None else tenures.find(grant.name, grant.owner)
        if tenures is not None and place is not None:
            return place.token == grant.token and self._leave(tenures, grant.name, grant.owner)
        return self._release_of_another_session(self._connected().session, grant)

    def _release_of_another_session(self, session: Session, grant: Grant) -> bool:
        for node in self._line(session, grant.name):
            if owner_of(node) == grant.owner:
                path = f"{self._folder(grant.name)}/{node}"
                (stat,) = session.ask(session.client.exists_async(path))
                if stat is not None and stat.czxid == grant.token:
                    return session.remove(path)
        return False

    def withdraw(self, ask: Ask) -> None:
        tenures = self._tenures.existing()
        if tenures is not None:
            self._leave(tenures, ask.name, ask.owner)

    def _leave(self, tenures: Tenures, name: str, owner: str) -> bool:
        """Take away the node that *owner* has; tell whether there was one, and all the time."""
        place = tenures.drop(name, owner)
        if place is None:
            return False
        try:
            tenures.session.check()
            return tenures.session.remove(place.path) and not place.is_lost
        except BaseException:
            tenures.abandon(place.path)
            raise

    def live(self, limit: int = 1_000) -> list[LiveLock]:
        session = self._connected().session
        lines = self._lines(session)
        sent = [session.client.exists_async(f"{self.root}/{f}/{line[0]}") for f, line in lines]
        found = [
            LiveLock(
                name_of(folder),
                owner_of(line[0]),
                stat.czxid,
                held_for=session.seconds_since(stat.ctime),
                left=None,
                waiters=len(line) - 1,
            )
            for (folder, line), stat in zip(lines, session.ask(*sent), strict=True)
            if stat is not None
        ]
        return sorted(found, key=lambda lock: lock.token)[:limit]

    def _lines(self, session: Session) -> list[tuple[str, list[str]]]:
        """Give the folders of all locks that are held, each with its line."""
        (folders,) = session.ask(session.client.get_children_async(self.root))
        if isinstance(folders, Exception):
            return []
        sent = [session.client.get_children_async(f"{self.root}/{folder}") for folder in folders]
        answers = zip(folders, session.ask(*sent), strict=True)
        lines = [(f, in_line(nodes)) for f, nodes in answers if isinstance(nodes, list)]
        return [(folder, line) for folder, line in lines if line]

    def pause(self, ask: Ask, busy: Busy, seconds: float) -> None:
        tenures = self._tenures.existing()
        place = None if tenures is None else tenures.find(ask.name, ask.owner)
        if place is None or place.ahead is None:
            time.sleep(seconds)
        else:
            place.ahead.wait(seconds)

    def watch(self, grant: Grant, on_loss: Callable[[], object]) -> None:
        tenures = self._tenures.existing()
        if tenures is None:
            on_loss()
        else:
            tenures.watch(grant, on_loss)

    def check(self) -> list[CheckMessage]:
        try:
            self._make_client()
        except InvalidBackend as error:
            is_missing = isinstance(error.__cause__, ImportError)
            id = "idempotency.E032" if is_missing else "idempotency.E033"
            return [Error(str(error), id=id)]
        return []

    def _connected(self) -> Tenures:
        tenures = self._tenures.get()
        try:
            tenures.session.connect()
        except StoreUnavailable:
            if not tenures.is_over:
                raise
            tenures = self._tenures.get()  # ZooKeeper has just ended the other one.
            tenures.session.connect()
        return tenures

    def _folder(self, name: str) -> str:
        return folder_of(self.root, name)


def _begin(make_client: Callable[[], Any], patience: float) -> Tenures:
    return Tenures(Session(make_client(), patience))
