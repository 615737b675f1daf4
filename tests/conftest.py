"""Fixtures that several files of tests need."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import connection, connections
from django.test import Client
from django.urls import path
from django.utils import timezone

from idempotency.locks.zookeeper.processes import end_all
from idempotency.models import IdempotencyRecord, LockLease
from idempotency.renewal import renewal
from idempotency.scripts import Server
from idempotency.stores import belated
from tests import services
from tests.services import NotStarted, ZooKeeper, do_without, running_zookeeper

KEY = "a-key-that-nobody-guesses"


REDIS = Server("records")
"""Where stores keep their records that have `IN_REDIS` as their settings."""
IN_REDIS = {
    "BACKEND": "idempotency.stores.redis.RedisStore",
    "OPTIONS": {"cache": REDIS.alias},
}
IN_BOTH = IN_REDIS | {"OPTIONS": {"cache": REDIS.alias, "record": True}}
"""The same, with what is completed in the database as well."""


class Sender:
    """Sends requests to one view, through all of Django."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def __call__(
        self,
        key: str | None = KEY,
        body: Any = b'{"a": 1}',
        *,
        method: str = "post",
        path: str = "/served/",
        content_type: str = "application/json",
        **extra: Any,
    ) -> Any:
        headers = {**extra.pop("headers", {})}
        if key is not None:
            headers["Idempotency-Key"] = key
        return self.client.generic(
            method.upper(), path, body, content_type=content_type, headers=headers, **extra
        )


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """Let no session outlive the tests: a database that somebody still asks cannot be dropped."""
    yield
    if connection.vendor != "postgresql":
        return
    apart = connection.copy()
    apart.settings_dict["NAME"] = "postgres"
    with django_db_blocker.unblock(), apart.cursor() as cursor:
        names = [connections[alias].settings_dict["NAME"] for alias in connections]
        connections.close_all()
        cursor.execute("SELECT datname FROM pg_database WHERE datname = ANY(%s)", [names])
        for (name,) in cursor.fetchall():
            cursor.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
            )
    apart.close()


@pytest.fixture(scope="session")
def django_db_modify_db_settings_xdist_suffix() -> None:
    """Leave names of databases alone: those of `tests.settings` are of one worker already."""


@pytest.fixture
def served(settings: Any) -> Callable[..., Sender]:
    """Give a function that serves a view, under an address and a name, and gives its sender."""

    def serve(view: Any, *more: Any, client: Client | None = None) -> Sender:
        settings.ROOT_URLCONF = (
            path("served/", view, name="served"),
            path("served/<int:number>/", view, name="numbered"),
            *more,
        )
        return Sender(client or Client(raise_request_exception=False))

    return serve


@pytest.fixture
def atomic_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)


@pytest.fixture
def store_away(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Give a function that takes the store away: what it asks the database only fails."""

    def take_away() -> None:
        monkeypatch.setitem(IdempotencyRecord._meta.__dict__, "db_table", LockLease._meta.db_table)
        settings.IDEMPOTENCY_STORES = {"default": {}}

    return take_away


@pytest.fixture(autouse=True)
def nothing_belated() -> Iterator[None]:
    """Let no later test see how an end is told that the store of this one did not take."""
    yield
    for each in belated._belated.values():
        each._ends.update(dict.fromkeys(each._ends, (int, 0.0)))


@pytest.fixture
def not_migrated(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no table for records, and none for locks."""
    for model in (IdempotencyRecord, LockLease):
        monkeypatch.setitem(model._meta.__dict__, "db_table", f"no_{model._meta.db_table}")
    settings.IDEMPOTENCY_STORES = {"default": {}}
    settings.IDEMPOTENCY_LOCKS = {"default": {}}


@pytest.fixture(scope="session")
def zookeeper_server() -> Iterator[ZooKeeper]:
    """A ZooKeeper; where there is none, a test that asks for it is skipped, and fails in CI."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(running_zookeeper())
        except NotStarted as error:
            do_without("ZooKeeper", error)
        yield server
        end_all()  # Some tests begin a session without the fixture below.


@pytest.fixture
def zookeeper_locks(zookeeper_server: ZooKeeper, settings: Any) -> Iterator[None]:
    """Tell the alias "zookeeper", if there is one, where that is."""
    options = {"OPTIONS": {"hosts": zookeeper_server.hosts}, "LEASE": 2}
    settings.IDEMPOTENCY_LOCKS = {
        **settings.IDEMPOTENCY_LOCKS,
        "zookeeper": {**settings.IDEMPOTENCY_LOCKS["zookeeper"], **options},
    }
    yield
    end_all()  # kazoo's threads take numbers out of `random`, which some tests want for themselves.


class Gate:
    """Where a view stands until it is let go on."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()

    def pass_through(self) -> None:
        self.reached.set()
        assert self.opened.wait(30)


@contextmanager
def standing_at(gate: Gate, call: Callable[[], Any]) -> Iterator[list[Any]]:
    """Have *call* stand at the gate, in a thread, while the block runs; give its result later."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(call())
        except Exception as error:
            results.append(error)
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert gate.reached.wait(30), results
        yield results
    finally:
        gate.opened.set()
        thread.join(30)


def redis_records() -> list[bytes]:
    """Give the keys of all records that this run has in Redis, if there is one."""
    if "records" not in settings.CACHES:
        return []
    found: list[bytes] = []
    cursor = b"0"
    while True:
        cursor, keys = REDIS.send("SCAN", cursor, "MATCH", f"idempotency:*:{REDIS.space}")
        found += keys
        if cursor == b"0":
            return found


@pytest.fixture
def empty_redis() -> Iterator[None]:
    """Have no records in Redis before and after a test."""
    if "records" not in settings.CACHES:
        pytest.skip("no Redis")
    for key in redis_records():
        REDIS.send("DEL", key)
    yield
    for key in redis_records():
        REDIS.send("DEL", key)


def pause(pid: int) -> None:
    """Stop a child process; it has stopped, with all its threads, when this returns."""
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)


@contextmanager
def paused(pid: int) -> Iterator[None]:
    pause(pid)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


class OwnRedis:
    """A server that a test may stop, pause and fill, known as the cache "own"."""

    def __init__(self, folder: Path, program: Path) -> None:
        self.folder, self.program = folder, program
        self.running = ExitStack()
        self.pid = 0

    def start(self) -> None:
        self.running.enter_context(services.redis(self.folder, self.program))
        with redis.Redis(unix_socket_path=self.address) as client:
            self.pid = client.info("server")["process_id"]

    def stop(self) -> None:
        self.running.close()

    @property
    def address(self) -> str:
        return f"{self.folder}/redis.sock"

    def tell(self, *command: Any) -> Any:
        with redis.Redis(unix_socket_path=self.address) as client:
            return client.execute_command(*command)

    def paused(self) -> AbstractContextManager[None]:
        return paused(self.pid)


@pytest.fixture
def own_redis(settings: Any) -> Iterator[OwnRedis]:
    program = next(services.redis_programs(), None)
    if program is None:
        pytest.skip("no Redis is installed")
    with services.run_folder() as folder:
        own = OwnRedis(folder, program)
        settings.CACHES = {
            "own": {
                "BACKEND": "django_redis.cache.RedisCache",
                "LOCATION": f"unix://{own.address}",
                "OPTIONS": {"SOCKET_TIMEOUT": 0.5, "SOCKET_CONNECT_TIMEOUT": 0.5},
            },
            **settings.CACHES,
        }
        own.start()
        yield own
        own.stop()
        for holding in renewal.holdings:  # Ends that it was still to be told.
            renewal.discard(holding)


def end_leases() -> None:
    """Let all leases have ended an hour ago, in every store."""
    IdempotencyRecord.objects.update(ends_at=timezone.now() - timezone.timedelta(hours=1))
    for key in redis_records():
        if REDIS.send("HEXISTS", key, "ends_at"):
            REDIS.send("HSET", key, "ends_at", int(time.time() - 3_600) * 1_000)


def end_retention() -> None:
    """Let all retentions have ended an hour ago, in every store: Redis has forgotten them."""
    IdempotencyRecord.objects.update(expires_at=timezone.now() - timezone.timedelta(hours=1))
    for key in redis_records():
        if not REDIS.send("HEXISTS", key, "ends_at"):
            REDIS.send("DEL", key)


def run_async(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run *coroutine* in a loop of its own, and leave no connection behind."""

    async def run() -> Any:
        try:
            return await coroutine
        finally:
            await sync_to_async(connections.close_all)()

    return asyncio.run(run())


def wait_until(is_true: Callable[[], Any], seconds: float = 20.0) -> None:
    """Return once *is_true* gives so."""
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


def elsewhere(function: Callable[[], Any]) -> None:
    """Run *function* to its end on another connection."""
    errors: list[Exception] = []

    def run() -> None:
        try:
            function()
        except Exception as error:
            errors.append(error)
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert errors == []
