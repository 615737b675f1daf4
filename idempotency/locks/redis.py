"""Keeps locks in Redis, through a cache alias of django-redis."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from zlib import crc32

from django.core.cache import DEFAULT_CACHE_ALIAS
from django.core.checks import CheckMessage, Warning
from django.core.exceptions import ImproperlyConfigured

from ..redis_checks import check_memory, check_server
from ..scripts import Call, Server, Word
from ..waiting import LONGEST_PAUSE
from .base import Ask, BaseLockBackend, Busy, Grant, LiveLock, untold
from .lua import ACQUIRE, LIVE, RELEASE, RENEW, WITHDRAW

PARTS = 16
"""Into how many parts the locks are divided; each has a hash tag, and so one node of a cluster."""

PATIENCE = 400
"""Milliseconds for which a waiting caller keeps its turn without trying again."""

SHORTEST_PATIENCE = 3 * LONGEST_PAUSE
"""Seconds below which no answer may be held back: a Redis at rest may do so for 0.1 s longer."""


@dataclass(frozen=True, slots=True)
class Part:
    """The keys of those locks that have a hash tag in common."""

    space: str

    @property
    def index(self) -> str:
        """A sorted set of the names of all live locks, by when their leases are over."""
        return f"{self.space}:locks"

    @property
    def token(self) -> str:
        """The last token."""
        return f"{self.space}:token"

    def lock(self, name: str) -> str:
        """A string: token, owner and since when."""
        return f"{self.space}:lock:{name}"

    def queue(self, name: str) -> str:
        """A sorted set of the owners that wait, by when they came."""
        return f"{self.space}:queue:{name}"

    def patient(self, name: str) -> str:
        """A sorted set of the owners that wait, by when their patience is over."""
        return f"{self.space}:patient:{name}"

    def bell(self, owner: str) -> str:
        """A list on which one that waits is woken up."""
        return f"{self.space}:bell:{owner}"


class RedisLockBackend(BaseLockBackend):
    """
    Keeps each lock as a key that expires with its lease, by the clock of Redis.

    Those who wait queue in the order of their arrival, and a release wakes up the first.

    OPTIONS: `cache`, the alias in CACHES.
    """

    option_names = ("cache",)

    def __init__(self, alias: str, options: Mapping[str, Any]) -> None:
        super().__init__(alias, options)
        self.server = Server(self.options.get("cache", DEFAULT_CACHE_ALIAS))

    @property
    def place(self) -> str:
        return f"{type(self).__qualname__}:{self.server.alias}"

    def acquire(self, ask: Ask) -> Grant | Busy:
        part, name = self._part(ask.name), ask.name
        queue = (part.queue(name), part.patient(name))
        words: list[Word] = [ask.owner, name, _milliseconds(ask.lease), PATIENCE]
        if ask.queues:
            words.append(round((time.monotonic() - ask.asked_at) * 1_000))
        reply = self.server.run(
            ACQUIRE,
            (part.lock(name), part.index, part.token, *queue),
            words,
        )
        if isinstance(reply, list):
            return Busy(max(0, reply[0]) / 1_000)
        return Grant(name, ask.owner, int(reply), ask.lease)

    def renew(self, grants: Collection[Grant]) -> Collection[Grant]:
        by_part: dict[Part, list[Grant]] = {}
        for grant in grants:
            by_part.setdefault(self._part(grant.name), []).append(grant)
        calls = [self._renewal(part, held) for part, held in by_part.items()]
        replies = self.server.run_each(RENEW, calls)
        return [
            held[place - 1]
            for held, lost in zip(by_part.values(), replies, strict=True)
            for place in lost
        ]

    def release(self, grant: Grant) -> bool:
        part, name = self._part(grant.name), grant.name
        keys = (part.lock(name), part.index, part.queue(name))
        words = (_held(grant), name, part.bell(""))
        freed, is_repeated = self.server.run_perhaps_twice(RELEASE, keys, words)
        if is_repeated and not freed:
            raise untold(grant)
        return bool(freed)

    def withdraw(self, ask: Ask) -> None:
        part, name = self._part(ask.name), ask.name
        keys = (part.lock(name), part.index, part.queue(name), part.patient(name))
        self.server.run(WITHDRAW, keys, (ask.owner, name, part.bell("")))

    def live(self, limit: int = 1_000) -> list[LiveLock]:
        calls: list[Call] = [
            ((part.index,), (part.lock(""), part.queue(""), limit)) for part in self._parts
        ]
        replies = self.server.run_each(LIVE, calls)
        found = [(row, int(now)) for now, *rows in replies for row in rows]
        found.sort(key=lambda each: int(each[0].split(b" ", 1)[0]))
        return [_live(row, now) for row, now in found[:limit]]

    def pause(self, ask: Ask, busy: Busy, seconds: float) -> None:
        until_free = seconds if busy.left is None else busy.left
        pause = max(0.001, min(seconds, until_free))
        if self.server.patience < SHORTEST_PATIENCE:
            super().pause(ask, busy, pause)
        else:
            self.server.send("BLPOP", self._part(ask.name).bell(ask.owner), pause)

    def may_leave(self, ask: Ask, error: BaseException) -> bool:
        """Whether `withdraw` helps: not if Redis is silent, which would cost a second time-out."""
        from redis.exceptions import TimeoutError as Silent

        return super().may_leave(ask, error) and not isinstance(error.__cause__, Silent)

    def check(self) -> list[CheckMessage]:
        what = f"IDEMPOTENCY_LOCKS[{self.alias!r}]"
        return [*check_server(self.server, what), *_check_patience(self.server, what)]

    def check_service(self) -> list[CheckMessage]:
        return check_memory(self.server, f"IDEMPOTENCY_LOCKS[{self.alias!r}]")

    @cached_property
    def _parts(self) -> list[Part]:
        space = self.server.space
        return [Part(f"{{idempotency-locks-{number:x}}}:{space}") for number in range(PARTS)]

    def _part(self, name: str) -> Part:
        return self._parts[crc32(name.encode()) % PARTS]

    def _renewal(self, part: Part, grants: list[Grant]) -> Call:
        keys = (part.index, *(part.lock(grant.name) for grant in grants))
        words = [(_milliseconds(grant.lease or 0), grant.name, _held(grant)) for grant in grants]
        return keys, [word for each in words for word in each]


def _check_patience(server: Server, what: str) -> list[CheckMessage]:
    try:
        patience = server.patience
    except ImproperlyConfigured:
        return []  # `check_server` tells.
    if patience >= SHORTEST_PATIENCE:
        return []
    message = (
        f"{what}: CACHES[{server.alias!r}] waits {patience} s for an answer of Redis, which is too"
        " short to be woken up: those who wait for a lock just try again and again."
    )
    hint = f"Set SOCKET_TIMEOUT to {SHORTEST_PATIENCE:.1f} s or more."
    return [Warning(message, hint=hint, id="idempotency.W036")]


def _held(grant: Grant) -> str:
    """Give what the key of a lock begins with while *grant* holds it."""
    return f"{grant.token} {grant.owner} "


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1_000))


def _live(row: bytes, now: int) -> LiveLock:
    """Give a lock from what the script tells of it, instants in milliseconds."""
    token, owner, since, ends_at, waiters, name = row.decode().split(" ", 5)
    held_for = (now - int(since)) / 1_000
    left = (int(ends_at) - now) / 1_000
    return LiveLock(name, owner, int(token), held_for, left, int(waiters))
