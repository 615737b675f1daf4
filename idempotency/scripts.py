"""Runs scripts on the Redis of a django-redis alias, one round trip each."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Sequence
from typing import Any

from django.core.cache import caches
from django.core.cache.backends.base import InvalidCacheBackendError

from .exceptions import InvalidBackend, StoreUnavailable

Word = str | bytes | int | float
Call = tuple[Sequence[Word], Sequence[Word]]
"""The keys and the arguments of one run of a script."""

IDLE = 8
"""How many connections a process keeps open; what is needed beyond is closed after its use."""


TIMEOUT = 5.0
"""Seconds to wait for an answer, unless the alias has SOCKET_TIMEOUT and SOCKET_CONNECT_TIMEOUT."""


class Script:
    """A Lua script whose keys share one hash tag, so that it runs on a cluster as well."""

    __slots__ = ("digest", "text")

    def __init__(self, text: str) -> None:
        self.text = text.encode()
        self.digest = hashlib.sha1(self.text, usedforsecurity=False).hexdigest().encode()


class Server:
    """
    Sends commands to the Redis of a cache *alias*; replies are bytes and integers.

    What the alias does to values (serializer, compressor, decoding) and to errors
    (IGNORE_EXCEPTIONS) does not apply. A command whose connection had died since its last use is
    sent once more, so commands must bear to be repeated. A time-out is told at once.

    Raises: `StoreUnavailable` if Redis does not answer; `InvalidBackend` if *alias* is not one of
    django-redis.
    """

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self._idle: deque[Any] = deque()
        self._process = os.getpid()

    @property
    def client(self) -> Any:
        """The redis-py client of the alias, for what is asked seldom."""
        try:
            from django_redis import get_redis_connection
        except ImportError as error:
            raise InvalidBackend(_NOT_INSTALLED) from error
        try:
            return get_redis_connection(self.alias, write=True)
        except (NotImplementedError, TypeError, InvalidCacheBackendError) as error:
            raise InvalidBackend(_NOT_REDIS.format(self.alias)) from error
        except ValueError as error:
            raise InvalidBackend(_NO_ADDRESS.format(self.alias)) from error

    @property
    def patience(self) -> float:
        """Seconds for which an answer is waited for."""
        timeout = self.client.connection_pool.connection_kwargs.get("socket_timeout")
        return TIMEOUT if timeout is None else float(timeout)

    @property
    def space(self) -> str:
        """What sets the keys of this alias apart from those of other projects."""
        cache = caches[self.alias]
        return f"{cache.key_prefix}:{cache.version}"

    def run(self, script: Script, keys: Sequence[Word], arguments: Sequence[Word]) -> Any:
        """Give what *script* returns."""
        return self.run_each(script, [(keys, arguments)])[0]

    def run_perhaps_twice(
        self, script: Script, keys: Sequence[Word], arguments: Sequence[Word]
    ) -> tuple[Any, bool]:
        """Give what *script* returns, and whether it was sent again as no answer came."""
        replies, is_repeated = self._run_each(script, [(keys, arguments)])
        return replies[0], is_repeated

    def run_each(self, script: Script, calls: Sequence[Call]) -> list[Any]:
        """Give what *script* returns for each of *calls*, in one round trip."""
        return self._run_each(script, calls)[0]

    def _run_each(self, script: Script, calls: Sequence[Call]) -> tuple[list[Any], bool]:
        runs = [(len(keys), *keys, *arguments) for keys, arguments in calls]
        replies, is_repeated = self._reach([(b"EVALSHA", script.digest, *run) for run in runs])
        for place, reply in enumerate(replies):
            if _is_error(reply, "NoScriptError"):
                again, too = self._reach([(b"EVAL", script.text, *runs[place])])
                replies[place], is_repeated = again[0], is_repeated or too
        return [self._reply(reply) for reply in replies], is_repeated

    def send(self, *command: Word) -> Any:
        """Give the reply to one *command*."""
        return self._reply(self._reach([command])[0][0])

    def _reply(self, reply: Any) -> Any:
        if isinstance(reply, Exception):
            raise self._unavailable() from reply
        return reply

    def _reach(self, commands: Sequence[Sequence[Word]]) -> tuple[list[Any], bool]:
        try:
            return self._exchange(b"".join(map(_packed, commands)), len(commands))
        except InvalidBackend:
            raise
        except (_errors().RedisError, OSError) as error:
            raise self._unavailable() from error

    def _unavailable(self) -> StoreUnavailable:
        return StoreUnavailable(_AWAY.format(self.alias), retry_after=1)

    def _exchange(self, message: bytes, count: int) -> tuple[list[Any], bool]:
        """
        Send *message*, which holds *count* commands, and give their replies or errors.

        Tell as well whether they were sent once more, and so may have taken effect before.
        """
        connection = self._take()
        if connection is not None:
            try:
                replies = _ask(connection, message, count)
            except _errors().ConnectionError:
                pass  # It died since its last use.
            else:
                if not any(_is_error(reply, "ReadOnlyError") for reply in replies):
                    self._put(connection)
                    return replies, False
                connection.disconnect()  # Its server has become a replica.
        is_repeated = connection is not None
        connection = self._connect()
        replies = _ask(connection, message, count)
        self._put(connection)
        return replies, is_repeated

    def _take(self) -> Any:
        if self._process != os.getpid():
            # A child of a fork must not speak on the connections of its parent.
            self._process, self._idle = os.getpid(), deque()
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _put(self, connection: Any) -> None:
        if len(self._idle) < IDLE:
            self._idle.append(connection)
        else:
            connection.disconnect()

    def _connect(self) -> Any:
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        pool = self.client.connection_pool
        # One try in one time-out: it is for the caller to say how long it waits.
        once = {"retry": Retry(NoBackoff(), 0), "retry_on_timeout": False, "retry_on_error": []}
        bounded = {"socket_timeout": TIMEOUT, "socket_connect_timeout": TIMEOUT}
        given = {name: value for name, value in pool.connection_kwargs.items() if value is not None}
        connection = pool.connection_class(**{**bounded, **given, **once})
        connection.connect()
        return connection

    def close(self) -> None:
        """Close what is open; it is opened again when needed."""
        while (connection := self._take()) is not None:
            connection.disconnect()


_NOT_INSTALLED = "django-redis is missing: pip install 'django-idempotency[redis]'."
_NOT_REDIS = (
    "CACHES[{!r}] is not a cache of django-redis on one Redis (or Sentinel); others cannot decide"
    " between two processes. Name one in the OPTIONS: {{'cache': …}}."
)
_NO_ADDRESS = (
    "CACHES[{!r}] has a LOCATION that is no address of Redis: write it like"
    " 'redis://127.0.0.1:6379/1', with the scheme redis, rediss or unix."
)
_AWAY = "Redis behind CACHES[{!r}] does not answer; retry a little later."


def _errors() -> Any:
    """Give the errors of redis-py, which only those import who use it, and when there are any."""
    import redis.exceptions

    return redis.exceptions


def _is_error(reply: Any, name: str) -> bool:
    return isinstance(reply, Exception) and isinstance(reply, getattr(_errors(), name))


def _ask(connection: Any, message: bytes, count: int) -> list[Any]:
    replies: list[Any] = []
    try:
        connection.send_packed_command([message], check_health=False)
        for _ in range(count):
            try:
                replies.append(connection.read_response(disable_decoding=True))
            except _errors().ResponseError as error:
                replies.append(error)
    except BaseException:
        connection.disconnect()  # What it still had to say would answer the next question.
        raise
    return replies


def _packed(command: Sequence[Word]) -> bytes:
    """Give *command* as the protocol of Redis has it (RESP)."""
    lines = [b"*%d" % len(command)]
    for word in command:
        octets = word if isinstance(word, bytes) else str(word).encode()
        lines += (b"$%d" % len(octets), octets)
    lines.append(b"")
    return b"\r\n".join(lines)
