"""Whether stores and locks answer, asked of servers that run, hang, or are gone."""

import json
import subprocess
import sys
import threading
import time

import pytest
from django.core.management import call_command
from django.db import connections
from django.test import Client
from django.urls import path

from idempotency import KeyInvalid, run_once
from idempotency.contrib.health import check, health
from idempotency.contrib.health.asking import NEVER
from idempotency.contrib.health.failures import failure_of, without_secrets
from idempotency.exceptions import InvalidBackend, StoreUnavailable
from idempotency.locks.zookeeper.processes import end_all
from idempotency.models import IdempotencyRecord, LockLease
from tests import services
from tests.conftest import paused, wait_until
from tests.races.test_advisory_locks import Server, database

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])

REDIS = {"BACKEND": "idempotency.stores.redis.RedisStore", "OPTIONS": {"cache": "own"}}
REDIS_LOCKS = {"BACKEND": "idempotency.locks.redis.RedisLockBackend", "OPTIONS": {"cache": "own"}}


@pytest.fixture(autouse=True)
def only_default(settings):
    settings.IDEMPOTENCY_STORES = {"default": {}}
    settings.IDEMPOTENCY_LOCKS = {"default": {}}


@pytest.fixture
def in_redis(settings, own_redis):
    settings.IDEMPOTENCY_STORES = {"default": {}, "redis": REDIS}
    settings.IDEMPOTENCY_LOCKS = {"default": {}, "redis": REDIS_LOCKS}
    return own_redis


@pytest.fixture
def away(monkeypatch):
    """Let nobody connect to the database any more, but those who are connected."""
    for alias in ("default", "other"):
        where = connections[alias].settings_dict
        is_file = where["ENGINE"].endswith("sqlite3")
        name = "/nowhere/db.sqlite3" if is_file else where["NAME"]
        monkeypatch.setitem(where, "NAME", name)
        monkeypatch.setitem(where, "HOST", "/nowhere")
        monkeypatch.setitem(where, "PASSWORD", "password-of-somebody")


def failures(answers):
    return {(answer.kind, answer.alias): answer.failure for answer in answers if not answer.ok}


def names_of(answers):
    return [(answer.kind, answer.alias) for answer in answers]


def asking():
    """Give the threads that ask."""
    return [one for one in threading.enumerate() if "health" in one.name]


def is_well(**options):
    return not failures(check(**options))


@pytest.fixture
def send(settings):
    """Give a function that asks the view, served with some options."""

    def send(method="get", **options):
        settings.ROOT_URLCONF = (path("health/", health, options),)
        return getattr(Client(raise_request_exception=False), method)("/health/")

    return send


# Asking


def test_all_stores_and_lock_backends_are_asked(in_redis):
    answers = check()

    assert names_of(answers) == [
        ("store", "default"),
        ("store", "redis"),
        ("lock", "default"),
        ("lock", "redis"),
    ]
    assert all(answer.ok and 0 < answer.seconds < 2 for answer in answers), answers


def test_question_is_about_a_call_that_cannot_exist():
    with pytest.raises(KeyInvalid):
        run_once(int, scope="anybody", operation=NEVER.operation, key=NEVER.key)


def test_nothing_is_written(in_redis):
    check()

    assert not IdempotencyRecord.objects.exists()
    assert not LockLease.objects.exists()
    assert in_redis.tell("DBSIZE") == 0


def test_no_thread_and_no_connection_is_left(in_redis, monkeypatch):
    kind, closed = type(connections["default"]), []
    close = kind.close

    def note(connection):
        if connection.connection is not None:
            closed.append(threading.current_thread().name)
        close(connection)

    monkeypatch.setattr(kind, "close", note)
    assert is_well()

    assert closed == ["idempotency health of default"] * 2
    wait_until(lambda: not asking())


def test_redis_that_is_gone_is_told_at_once_and_the_others_are_well(in_redis):
    in_redis.stop()

    started_at = time.monotonic()
    answers = check(timeout=20)

    assert time.monotonic() - started_at < 5
    assert failures(answers).keys() == {("store", "redis"), ("lock", "redis")}
    assert all("ConnectionError" in failure for failure in failures(answers).values())


def test_redis_that_hangs_is_told_in_time_and_forgiven_when_it_answers(in_redis):
    with in_redis.paused():
        started_at = time.monotonic()
        answers = check(timeout=0.2)  # Less than its SOCKET_TIMEOUT.
        took = time.monotonic() - started_at

    assert 0.2 <= took < 5
    assert failures(answers) == {
        ("store", "redis"): "No answer within 0.2 seconds.",
        ("lock", "redis"): "No answer within 0.2 seconds.",
    }
    wait_until(is_well)


def test_redis_that_hangs_for_longer_than_its_own_timeout_is_told_as_a_failure(in_redis):
    with in_redis.paused():
        answers = check(timeout=20)

    assert all("TimeoutError" in failure for failure in failures(answers).values())
    assert len(failures(answers)) == 2


@pytest.fixture
def own_postgres(monkeypatch, settings):
    """A PostgreSQL that a test may stop and pause, known as the database "own"."""
    if not any(services.postgres_folders()):
        pytest.skip("no PostgreSQL to start")
    if connections["default"].vendor != "postgresql":
        pytest.skip("the tests' settings are not of PostgreSQL")
    with services.run_folder() as folder:
        server = Server(folder)
        server.start()
        monkeypatch.setitem(connections.settings, "own", database(folder, 5432))
        call_command("migrate", "idempotency", database="own", verbosity=0)
        connections["own"].close()
        own = {"OPTIONS": {"using": "own"}}
        advisory = "idempotency.locks.postgres.AdvisoryLockBackend"
        settings.IDEMPOTENCY_STORES = {"default": {}, "own": own}
        settings.IDEMPOTENCY_LOCKS = {
            "default": {},
            "own": own,
            "advisory": own | {"BACKEND": advisory},
        }
        yield server
        server.stop()
        del connections["own"]


def postmaster_of(server):
    return int((server.data / "postmaster.pid").read_text().split()[0])


@pytest.fixture
def unguarded(django_db_blocker):
    """Let tests reach a database that is not the tests'."""
    with django_db_blocker.unblock():
        yield


@pytest.mark.usefixtures("unguarded")
def test_postgresql_that_hangs_stops_and_comes_back_is_told(own_postgres):
    own = {("store", "own"), ("lock", "own"), ("lock", "advisory")}
    assert is_well()

    with paused(postmaster_of(own_postgres)):
        started_at = time.monotonic()
        silent = [failures(check(timeout=0.3)) for _ in range(3)]
        took = time.monotonic() - started_at
        threads = asking()
    wait_until(is_well)
    own_postgres.stop()
    stopped = failures(check())
    own_postgres.start()

    assert [answers.keys() for answers in silent] == [own] * 3
    assert 0.9 <= took < 10
    assert len(threads) == 3  # However often it was asked.
    assert stopped.keys() == own
    assert all("OperationalError" in failure for failure in stopped.values())
    wait_until(is_well)


@pytest.fixture
def in_zookeeper(settings, zookeeper_server):
    if zookeeper_server.process is None:
        pytest.skip("it is no server of ours, to be paused")
    backend = "idempotency.locks.zookeeper.ZooKeeperLockBackend"
    options = {"hosts": zookeeper_server.hosts, "timeout": 1}
    settings.IDEMPOTENCY_LOCKS = {"default": {"BACKEND": backend, "LEASE": 2, "OPTIONS": options}}
    yield zookeeper_server.process
    end_all()


def test_zookeeper_that_hangs_is_told_in_time_and_forgiven_when_it_answers(in_zookeeper):
    assert is_well()

    with paused(in_zookeeper.pid):
        silent, refused = failures(check(timeout=0.2)), failures(check(timeout=20))
    wait_until(is_well)

    assert silent == {("lock", "default"): "No answer within 0.2 seconds."}
    assert refused.keys() == {("lock", "default")}


def test_missing_table_is_told(not_migrated):
    told = failures(check())

    assert told.keys() == {("store", "default"), ("lock", "default")}
    assert all("no_idempotency" in failure for failure in told.values())


def test_settings_that_describe_no_backend_are_told(settings):
    settings.IDEMPOTENCY_LOCKS = {"default": {"BACKEND": "nowhere.Locks"}}

    told = failures(check())

    assert told.keys() == {("lock", "default")}
    assert told["lock", "default"].startswith("InvalidBackend: IDEMPOTENCY_LOCKS['default']")


def test_process_that_is_out_of_threads_is_told_so(monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        told = failures(check())

    assert set(told.values()) == {"RuntimeError: can't start new thread"}
    assert is_well()


FORKING = """
import os

import django
from django.conf import settings

settings.configure(
    INSTALLED_APPS=["idempotency"],
    DATABASES={},
    IDEMPOTENCY_STORES={},
    IDEMPOTENCY_LOCKS={"slow": {"BACKEND": "__main__.Slow"}},
)
django.setup()

from idempotency.contrib.health import check
from idempotency.locks.base import BaseLockBackend

parent = os.getpid()
forever, unblock = os.pipe()


class Slow(BaseLockBackend):
    acquire = renew = release = withdraw = None

    def live(self, limit=1_000):
        if os.getpid() == parent:
            os.read(forever, 1)


assert [answer.ok for answer in check(timeout=0.01)] == [False]
child = os.fork()
if not child:
    assert [answer.ok for answer in check(timeout=20)] == [True]
    os._exit(0)
status = os.waitpid(child, 0)[1]
os.close(unblock)
assert [answer.ok for answer in check(timeout=20)] == [True]
raise SystemExit(os.waitstatus_to_exitcode(status))
"""


def test_child_of_a_fork_asks_for_itself():
    done = subprocess.run([sys.executable, "-c", FORKING], capture_output=True, timeout=60)

    assert done.returncode == 0, done.stderr


# What a failure tells


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("redis://:secret@host:6379/0 is away", "redis://…@host:6379/0 is away"),
        ("redis://me:se/cr@et@host is away", "redis://…@host is away"),
        ("postgresql://me:secret@host/db?x=1", "postgresql://…@host/db?x=1"),
        ("user=me password=secret host=h", "user=me password=… host=h"),
        ("password='two words' host=h", "password=… host=h"),
        ('{"password": "secret", "db": 1}', '{"password": …, "db": 1}'),
        ("auth_data: secret", "auth_data: …"),
        ("TOKEN=secret", "TOKEN=…"),
        (
            'FATAL:  password authentication failed for user "me"',
            'FATAL:  password authentication failed for user "me"',
        ),
        ("http://host/a and b@c", "http://host/a and b@c"),
    ],
)
def test_failure_tells_no_password(text, told):
    assert without_secrets(text) == told


def caused(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (StoreUnavailable("We say."), "StoreUnavailable: We say."),
        (caused(StoreUnavailable(), OSError("gone\nDETAIL: a key")), "OSError: gone"),
        (caused(InvalidBackend("We say."), ImportError("no")), "InvalidBackend: We say."),
        (OSError(), "OSError: "),
        (OSError("x" * 900), f"OSError: {'x' * 200}"),
    ],
    ids=["own", "cause", "settings", "empty", "long"],
)
def test_failure_is_one_line_about_the_cause(error, told):
    assert failure_of(error) == told


# The view


def test_view_says_that_all_is_well_and_nothing_else(send):
    response = send()

    assert response.status_code == 200
    assert response["Cache-Control"] == "no-store"
    assert response["Content-Type"] == "application/json"
    assert json.loads(response.content) == {"ok": True}


def test_view_says_that_something_is_away_and_nothing_else(send, not_migrated):
    response = send()

    assert response.status_code == 503
    assert response["Cache-Control"] == "no-store"
    assert json.loads(response.content) == {"ok": False}


def test_view_tells_details_if_asked(send, not_migrated):
    told = json.loads(send(details=True).content)

    assert told["ok"] is False
    assert [(one["kind"], one["alias"], one["ok"]) for one in told["checks"]] == [
        ("store", "default", False),
        ("lock", "default", False),
    ]
    assert told["checks"][0].keys() == {"alias", "kind", "ok", "seconds", "failure"}
    assert "no_idempotency" in told["checks"][0]["failure"]


def test_view_waits_as_long_as_it_is_told(send, in_redis):
    with in_redis.paused():
        told = json.loads(send(details=True, timeout=0.1).content)

    assert "No answer within 0.1 seconds." in [one["failure"] for one in told["checks"]]
    wait_until(is_well)


def test_view_takes_head_and_no_method_that_writes(send):
    assert [send(method).status_code for method in ("head", "post", "put", "delete")] == [
        200,
        405,
        405,
        405,
    ]


def test_view_needs_no_login(send, settings):
    settings.MIDDLEWARE = [
        *settings.MIDDLEWARE,
        "django.contrib.auth.middleware.LoginRequiredMiddleware",
    ]

    assert send().status_code == 200


def test_view_answers_when_the_database_of_each_request_is_away(send, away, monkeypatch):
    for alias in ("default", "other"):
        monkeypatch.setitem(connections[alias].settings_dict, "ATOMIC_REQUESTS", True)
        connections[alias].close()

    response = send(details=True)

    assert response.status_code == 503
    assert "password-of-somebody" not in response.text
