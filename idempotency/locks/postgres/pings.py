"""Signs of life on many connections at once: one after the other, they might come too late."""

from __future__ import annotations

import selectors
import time
from collections.abc import Iterable
from typing import Any

from .sessions import LockSession


class Ping:
    """A question to the server that is under way on a session's connection."""

    def __init__(self, session: LockSession) -> None:
        self.session = session
        self.deadline = time.monotonic() + session.ask.lease / 3
        self.connection: Any = session.connection.connection.pgconn
        self.connection.send_query(session.question.encode())
        self.answer = False

    def has_answer(self) -> bool:
        """Read what has come, and tell whether that is all."""
        self.connection.flush()
        self.connection.consume_input()
        while not self.connection.is_busy():
            result = self.connection.get_result()
            if result is None:
                return True
            self.answer = result.ntuples == 1 and result.get_value(0, 0) == b"t"
        return False


class Pings:
    """The questions that are under way; each keeps its session from other use until it is over."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.holding: set[LockSession] = set()
        """The sessions that hold their locks, as far as is known."""

    def __bool__(self) -> bool:
        return bool(self.selector.get_map())

    def send(self, session: LockSession) -> None:
        from psycopg import Error

        if not session.mutex.acquire(blocking=False):
            self.holding.add(session)  # Its owner is about to let it go.
            return
        try:
            if session.is_open:
                ping = Ping(session)
                self.selector.register(ping.connection.socket, selectors.EVENT_READ, ping)
                return
        except (Error, ValueError):  # psycopg, and the selector, of a connection that has ended.
            pass
        session.mutex.release()

    def receive(self) -> None:
        """Wait for the next answers, or until it is too late for one."""
        from psycopg import Error

        deadline = min(key.data.deadline for key in self._open())
        for key, _ in self.selector.select(max(0, deadline - time.monotonic())):
            try:
                is_over = key.data.has_answer()
            except Error:
                is_over = True
            if is_over:
                self._end(key)
        now = time.monotonic()
        for key in self._open():
            if key.data.deadline <= now:
                self._end(key)

    def close(self) -> None:
        for key in self._open():
            self._end(key)
        self.selector.close()

    def _open(self) -> list[selectors.SelectorKey]:
        return list(self.selector.get_map().values())

    def _end(self, key: selectors.SelectorKey) -> None:
        self.selector.unregister(key.fileobj)
        ping: Ping = key.data
        if ping.answer:
            self.holding.add(ping.session)
        ping.session.mutex.release()


def renew_together(sessions: Iterable[LockSession]) -> set[LockSession]:
    """
    Show the server that each of *sessions* is in use; give those that hold their locks.

    One that does not answer within a third of its lease counts as lost.
    """
    pings = Pings()
    try:
        for session in sessions:
            pings.send(session)
        while pings:
            pings.receive()
    finally:
        pings.close()
    return pings.holding
