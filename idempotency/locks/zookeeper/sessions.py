"""A session with ZooKeeper whose every step ends in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ...exceptions import StoreUnavailable
from .nodes import split

AWAY = "ZooKeeper does not answer, and nobody else knows who has a lock; retry a little later."

TOGETHER = 100
"""How many nodes are asked for at once: the longest paths are below ZooKeeper's limit of 1 MB."""


class Session:
    """
    A session of this process, which kazoo's threads keep alive until it is lost or closed.

    Raises from each step: `StoreUnavailable` if ZooKeeper does not answer within *patience*.
    """

    def __init__(self, client: Any, patience: float) -> None:
        self.client = client
        self.patience = patience
        self.lease = 0.0
        """Seconds for which ZooKeeper keeps the session without a sign of life."""
        self.breaks = 0
        """How often the connection broke."""
        self.is_over = False
        self.changed = threading.Condition()
        self.on_break: Callable[[], object] = lambda: None
        """Called in kazoo's thread when the connection breaks: it must not wait."""
        self._ahead = 0.0
        """Seconds by which ZooKeeper's clock seems to be ahead of ours."""
        self._watched: dict[str, threading.Event] = {}
        _learn_lease(self)
        client.add_listener(self._notice)
        client.start_async()

    @property
    def is_connected(self) -> bool:
        return bool(self.client.connected) and not self.is_over

    def connect(self) -> None:
        """Wait until ZooKeeper is there."""
        if self.is_connected:
            return
        with self.changed:
            self.changed.wait_for(lambda: self.is_over or self.is_connected, self.patience)
            # kazoo stops without a word if it cannot even try, as with a wrong certificate.
            self.is_over = self.is_over or self.client.client_state == "CLOSED"
        self.check()

    def check(self) -> None:
        """Raise `StoreUnavailable` if ZooKeeper is away."""
        if not self.is_connected:
            raise StoreUnavailable(AWAY, retry_after=1)

    def ask(self, *sent: Any) -> list[Any]:
        """Give the answers to what was *sent*; that a node is there, or is not, is an answer."""
        deadline = time.monotonic() + self.patience
        return [self._answer(one, deadline) for one in sent]

    def _answer(self, sent: Any, deadline: float) -> Any:
        from kazoo.exceptions import KazooException, NodeExistsError, NoNodeError, NotEmptyError

        try:
            return sent.get(timeout=max(0.0, deadline - time.monotonic()))
        except (NodeExistsError, NoNodeError, NotEmptyError) as answer:
            return answer.with_traceback(None)  # It would hold on to those who keep the answer.
        except (KazooException, self.client.handler.timeout_exception) as error:
            raise StoreUnavailable(AWAY, retry_after=1) from error

    def remove(self, path: str) -> bool:
        """Take away the node at *path*, and its folder if it was the last; tell if it was there."""
        folder, _ = split(path)
        node, _ = self.ask(self.client.delete_async(path), self.client.delete_async(folder))
        return not isinstance(node, Exception)

    def there(self, paths: list[str]) -> set[str]:
        """Give those of *paths* at which the node is that we made."""
        sent = [self._guard(paths[at : at + TOGETHER]) for at in range(0, len(paths), TOGETHER)]
        answers = [answer for answers in self.ask(*sent) for answer in answers]
        if not any(isinstance(answer, Exception) for answer in answers):
            return set(paths)
        nodes = self.ask(*map(self.client.exists_async, paths))
        return {path for path, node in zip(paths, nodes, strict=True) if node is not None}

    def _guard(self, paths: list[str]) -> Any:
        # One request for many nodes, and one that a session does not outlive: it is written.
        transaction = self.client.transaction()
        for path in paths:
            transaction.check(path, 0)
        return transaction.commit_async()

    def watch(self, path: str) -> threading.Event:
        """Give what is set when there may be no node at *path* any more."""
        with self.changed:
            if path in self._watched:
                return self._watched[path]
            event = self._watched[path] = threading.Event()

        def look(*news: object) -> None:
            with self.changed:
                self._watched.pop(path, None)
            event.set()

        try:
            (node,) = self.ask(self.client.get_async(path, watch=look))
        except BaseException:
            look()
            raise
        if isinstance(node, Exception):  # It has gone, and nothing more will be heard of it.
            look()
        return event

    def learn_time(self, instant: int) -> None:
        """Learn ZooKeeper's time, in milliseconds, from what it has just done."""
        self._ahead = instant / 1_000 - time.time()

    def seconds_since(self, instant: int) -> float:
        """Give the seconds since *instant*, which ZooKeeper told in milliseconds."""
        return max(0.0, time.time() + self._ahead - instant / 1_000)

    def end(self) -> None:
        """Let the session be over; its client is then to be stopped by `stop`."""
        with self.changed:
            self.is_over = True
            self.changed.notify_all()

    def stop(self) -> None:
        """Close the session, and so take away all nodes that it has."""
        from kazoo.exceptions import KazooException

        with suppress(KazooException, OSError):
            self.client.stop()
            self.client._connection.connection_stopped.wait()  # Another thread may be stopping it.
            self.client.close()

    def _notice(self, state: str) -> None:
        with self.changed:
            if state != "CONNECTED":
                self.breaks += 1
            if state == "LOST":
                self.is_over = True
            self.changed.notify_all()
        if state != "CONNECTED":
            self.on_break()


def _learn_lease(session: Session) -> None:
    """Have the session know the time-out that ZooKeeper agreed to, which kazoo keeps to itself."""
    from kazoo.protocol.serialization import Connect

    connection = session.client._connection
    invoke = connection._invoke

    def noting(timeout: float, request: Any, xid: int | None = None) -> Any:
        answer = invoke(timeout, request, xid)
        if isinstance(request, Connect):
            session.lease = answer[0].time_out / 1_000
        return answer

    connection._invoke = noting
