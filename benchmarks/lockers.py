"""Who competes in locking: those that keep locks in Redis, the database or ZooKeeper."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from zlib import crc32

from django.db import connection, transaction

from idempotency import cache_lock, lock
from idempotency.testing import race

from .raw import RawLock

LEASE = 30
WAIT = 60
KINDS = REDIS, DATABASE, TRANSACTION, ZOOKEEPER = (
    "Redis",
    "database",
    "transaction",
    "ZooKeeper",
)

Hold = Callable[[], AbstractContextManager[Any]]
"""Gives a block that holds the lock."""


class Absent(Exception):
    """It cannot compete here."""


@dataclass(frozen=True, slots=True)
class Locker:
    """A way to lock: *make* takes a name, and gives what holds it."""

    name: str
    kind: str
    make: Callable[..., Hold]
    is_ours: bool = False
    is_floor: bool = False

    def prepare(self, name: str, *, waits: bool = False) -> Hold:
        """Connect in the process that will hold the lock; all but ours wait in any case."""
        return self.make(name, wait=WAIT) if self.is_ours and waits else self.make(name)


def floor(name: str) -> Hold:
    return RawLock(redis_url(), name).held


def ours(alias: str, name: str, **options: Any) -> Hold:
    return partial(lock, name, backend=alias, **options)


def ours_in_redis(name: str, **options: Any) -> Hold:
    return partial(cache_lock, name, **options)


def redis_py(name: str) -> Hold:
    return partial(redis_client().lock, name, timeout=LEASE)


def python_redis_lock(name: str) -> Hold:
    from redis_lock import Lock

    return partial(Lock, redis_client(), name, expire=LEASE)


def pottery(name: str) -> Hold:
    from pottery import Redlock

    return partial(Redlock, key=name, masters={redis_client()}, auto_release_time=LEASE)


def redis_client() -> Any:
    from redis import Redis

    return Redis.from_url(redis_url())


def redis_url() -> str:
    if url := os.environ.get("REDIS_URL"):
        return url
    raise Absent("there is no Redis")


def advisory_by_hand(name: str) -> Hold:
    refuse_other_databases()
    key = crc32(name.encode())

    @contextmanager
    def held() -> Iterator[None]:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s)", [key])
            yield
            cursor.execute("SELECT pg_advisory_unlock(%s)", [key])

    return held


def django_pglock(name: str) -> Hold:
    from pglock import advisory

    refuse_other_databases()
    return lambda: advisory(name)


def transaction_by_hand(name: str) -> Hold:
    """Hold it in a transaction of its own, to whose end it lasts."""
    refuse_other_databases()
    key = crc32(name.encode())

    @contextmanager
    def held() -> Iterator[None]:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [key])
            yield

    return held


def ours_in_transaction(name: str, **options: Any) -> Hold:
    @contextmanager
    def held() -> Iterator[None]:
        with transaction.atomic(), lock(name, backend="transaction", **options):
            yield

    return held


def django_pglock_in_transaction(name: str) -> Hold:
    from pglock import advisory

    refuse_other_databases()

    @contextmanager
    def held() -> Iterator[None]:
        with transaction.atomic():
            advisory(name, xact=True).acquire()
            yield

    return held


def refuse_other_databases() -> None:
    if connection.vendor != "postgresql":
        raise Absent("the database is not PostgreSQL")


def node_by_hand(name: str) -> Hold:
    """Make an ephemeral node and delete it; others try until it is gone."""
    from kazoo.exceptions import NodeExistsError

    client = zookeeper_client()

    @contextmanager
    def held() -> Iterator[None]:
        while True:
            try:
                client.create(f"/by-hand-{name}", ephemeral=True)
                break
            except NodeExistsError:
                pass
        yield
        client.delete(f"/by-hand-{name}")

    return held


def kazoo(name: str) -> Hold:
    client = zookeeper_client()
    return partial(client.Lock, f"/kazoo-{name}")


def zookeeper_client() -> Any:
    from kazoo.client import KazooClient

    hosts = os.environ.get("ZOOKEEPER_HOSTS")
    if hosts is None:
        raise Absent("there is no ZooKeeper")
    logging.getLogger("kazoo").setLevel(logging.CRITICAL)  # The server ends before its clients.
    client = KazooClient(hosts)
    client.start()
    return client


LOCKERS = [
    Locker("by hand: SET NX PX", REDIS, floor, is_floor=True),
    Locker("ours", REDIS, ours_in_redis, is_ours=True),
    Locker("by hand: advisory lock", DATABASE, advisory_by_hand, is_floor=True),
    Locker("ours, rows", DATABASE, partial(ours, "default"), is_ours=True),
    Locker("ours, advisory", DATABASE, partial(ours, "advisory"), is_ours=True),
    Locker("by hand: advisory lock", TRANSACTION, transaction_by_hand, is_floor=True),
    Locker("ours, advisory", TRANSACTION, ours_in_transaction, is_ours=True),
    Locker("by hand: ephemeral node", ZOOKEEPER, node_by_hand, is_floor=True),
    Locker("ours", ZOOKEEPER, partial(ours, "zookeeper"), is_ours=True),
]
PEERS = [
    Locker("redis-py Lock", REDIS, redis_py),
    Locker("python-redis-lock", REDIS, python_redis_lock),
    Locker("pottery Redlock", REDIS, pottery),
    Locker("django-pglock", DATABASE, django_pglock),
    Locker("django-pglock", TRANSACTION, django_pglock_in_transaction),
    Locker("kazoo Lock", ZOOKEEPER, kazoo),
]


def fit(lockers: Sequence[Locker]) -> tuple[list[Locker], list[str]]:
    """Give those of *lockers* that work here, and a line for each that does not."""
    found: list[Locker] = []
    absent: list[str] = []
    for each in lockers:
        # In a process of its own, as some start threads that a later fork would lose.
        (finish,) = race(partial(try_out, each), processes=1)
        if finish.result is None:
            found.append(each)
        else:
            absent.append(f"{each.name} ({each.kind}) does not compete: {finish.result}")
    return sorted(found, key=lambda locker: KINDS.index(locker.kind)), absent


def try_out(locker: Locker, number: int) -> str | None:
    """Tell why *locker* cannot compete, or nothing."""
    try:
        hold = locker.prepare("tried-out")
        with hold():
            return None
    except Exception as reason:  # Whatever a peer fails with, it is out.
        return str(reason) or repr(reason)
