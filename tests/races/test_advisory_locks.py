"""Advisory locks on a server of their own: it restarts, falls silent, or is behind a pooler."""

import os
import shutil
import signal
import socket
import tempfile
import threading
import time
import uuid
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import pytest
from django.core.checks import run_checks
from django.core.management import call_command
from django.db import connection, connections

from idempotency import InvalidBackend, StaleLock, StoreUnavailable, lock
from idempotency.locks import get_backend
from idempotency.locks.base import Ask
from tests import services
from tests.test_locks import apart, is_free, take_and_leave

pytestmark = pytest.mark.skipif(
    "connection.vendor != 'postgresql'", reason="advisory locks are PostgreSQL's"
)
LEVELS = pytest.mark.parametrize("alias", ["transaction", "session"])
POOLER = """
[databases]
postgres = host={folder} port=5432 user=postgres
[pgbouncer]
listen_addr =
listen_port = 6432
unix_socket_dir = {folder}
auth_type = trust
auth_file = {folder}/users.txt
pool_mode = transaction
default_pool_size = 2
"""


class Server:
    """A PostgreSQL that may be stopped, and started again with its data."""

    def __init__(self, folder):
        self.folder = folder
        self.data = Path(tempfile.mkdtemp(prefix="postgres-", dir=folder))
        self.user = services.server_user()
        self.running = ExitStack()
        services.give(self.data, self.user)
        self.programs = services.within_reach(next(services.postgres_folders()), folder)
        options = ["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8"]
        services.run([self.program("initdb"), *options, "-D", str(self.data)], folder, self.user)

    def program(self, name):
        return str(self.programs / name)

    def start(self):
        command = [self.program("postgres"), "-D", str(self.data), "-k", str(self.folder)]
        command += ["-c", "listen_addresses=", "-p", "5432"]
        is_ready = partial(services.is_postgres_ready, self.data)
        self.running.enter_context(services.serving(command, self.folder, is_ready, self.user))

    def stop(self):
        self.running.close()


@pytest.fixture(scope="module")
def folder():
    with services.run_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def cluster(folder):
    if not any(services.postgres_folders()):
        pytest.skip("no PostgreSQL to start")
    server = Server(folder)
    server.start()
    yield server
    server.stop()


def database(folder, port):
    address = {"NAME": "postgres", "USER": "postgres", "HOST": str(folder), "PORT": str(port)}
    return {**connection.settings_dict, **address, "PASSWORD": "", "OPTIONS": {}}


@pytest.fixture(autouse=True)
def server(cluster, settings, monkeypatch, django_db_blocker):
    monkeypatch.setitem(connections.settings, "apart", database(cluster.folder, 5432))
    monkeypatch.setitem(connections.settings, "pooled", database(cluster.folder, 6432))
    settings.IDEMPOTENCY_LOCKS = {
        "default": {},
        "transaction": backend("apart", "transaction"),
        "session": backend("apart", "session"),
        "pooled": backend("pooled", "transaction"),
        "pooled-session": backend("pooled", "session"),
    }
    with django_db_blocker.unblock():  # No test of Django's: these databases are not the tests'.
        call_command("migrate", "idempotency", database="apart", verbosity=0)
        yield cluster
        for alias in ("apart", "pooled"):
            connections[alias].close()
            del connections[alias]


def backend(using, level):
    options = {"using": using, "level": level}
    return {"BACKEND": "idempotency.locks.postgres.AdvisoryLockBackend", "OPTIONS": options}


@pytest.fixture
def name():
    return f"lock:{uuid.uuid4()}"


@LEVELS
def test_restart_of_the_server_loses_the_lock_and_needs_no_help(alias, server, name):
    told = threading.Event()

    def lose():
        with lock(name, backend=alias, lease=0.9, on_lost=lambda held: told.set()) as held:
            tokens.append(held.token)
            server.stop()
            with pytest.raises(StoreUnavailable):
                apart(lambda: take_and_leave(alias, f"{name}:other"))
            assert told.wait(20)
            server.start()

    tokens = []
    with pytest.raises(StaleLock):
        lose()

    assert take_and_leave(alias, name).token > tokens[0]
    assert get_backend(alias)._sessions == {}


@LEVELS
def test_connection_that_falls_silent_loses_its_lock_and_holds_up_no_other(alias, name):
    backend = get_backend(alias)
    silent = backend.acquire(Ask(name, "silent", 0.9))
    other = backend.acquire(Ask(f"{name}:other", "other", 30))
    pid = backend._sessions["silent"].connection.connection.info.backend_pid
    os.kill(pid, signal.SIGSTOP)
    try:
        started_at = time.monotonic()
        lost = backend.renew([silent, other])
        took = time.monotonic() - started_at
    finally:
        os.kill(pid, signal.SIGCONT)

    assert lost == [silent]
    assert took < 1
    assert backend.release(other)


@pytest.fixture(scope="module")
def pooler(cluster):
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        services.do_without("PgBouncer", services.NotStarted("it is not installed"))
    folder = cluster.folder
    (folder / "users.txt").write_text('"postgres" ""\n')
    (folder / "pgbouncer.ini").write_text(POOLER.format(folder=folder))
    command = [program, str(folder / "pgbouncer.ini")]
    is_ready = partial(answers, folder / ".s.PGSQL.6432")
    with services.serving(command, folder, is_ready, services.server_user()):
        yield


def answers(address):
    with suppress(OSError), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(address))
        return True
    return False


@pytest.mark.usefixtures("pooler")
def test_lock_of_a_transaction_works_through_a_pooler(name):
    with lock(name, backend="pooled") as held:
        assert not is_free("transaction", name)
        assert not is_free("pooled", name)
        assert [one.token for one in get_backend("pooled").live()] == [held.token]

    assert is_free("transaction", name)


@pytest.mark.usefixtures("pooler")
def test_those_who_wait_take_no_server_from_a_pooler(name):
    backend = get_backend("pooled")
    asks = [Ask(name, f"waiting:{number}", 30, queues=True) for number in range(4)]
    with lock(name, backend="pooled"):
        for ask in asks:
            backend.acquire(ask)
        with connections["pooled"].cursor() as cursor:
            cursor.execute("SELECT 1")

    for ask in asks:
        backend.withdraw(ask)


@pytest.mark.usefixtures("pooler")
def test_session_level_is_refused_through_a_pooler(name):
    with (
        pytest.raises(InvalidBackend, match="transaction pooling"),
        lock(name, backend="pooled-session"),
    ):
        pass

    assert get_backend("pooled-session")._sessions == {}


@pytest.mark.usefixtures("pooler")
def test_check_of_the_database_tells_of_a_pooler():
    found = run_checks(databases=["pooled"], tags=["database"])

    assert [message.id for message in found] == ["idempotency.E035"]
    assert run_checks(databases=["apart"], tags=["database"]) == []
