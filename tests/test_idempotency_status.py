"""The status in the terminal: the page's numbers, and what cannot be known."""

import io
import json
import threading
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, connections, transaction
from django.utils import timezone

from idempotency import lock
from idempotency.management.terminal import columns
from idempotency.models import Statistic
from idempotency.pessimistic import lock_row
from idempotency.statistics import asking
from idempotency.statistics.blocking import row_locks
from idempotency.statistics.holdings import held_locks
from idempotency.statistics.masking import without_values
from tests.conftest import elsewhere, wait_until
from tests.models import Ticket
from tests.test_summary import LONG_BEHIND, count, log, record

pytestmark = pytest.mark.django_db(databases=["default", "other"], transaction=True)
with_row_locks = pytest.mark.skipif(
    "connection.vendor == 'sqlite'", reason="nobody waits for a row there"
)


@pytest.fixture(autouse=True)
def locks(settings):
    settings.IDEMPOTENCY_LOCKS = {"default": {}}


def status(**options):
    out = io.StringIO()
    call_command("idempotency_status", stdout=out, **options)
    return out.getvalue()


def fill():
    count("executed", 40, each=0.25)
    count("replayed", 1_234)
    count("taken_over")
    count("turned_away", 3, kind="lock", name="order:…", each=0.5)
    count("stale", 2, kind="row", name="orders.order")
    log(scope="user:7")
    record("unknown", purge_after=LONG_BEHIND)


def test_everything_that_is_known_is_shown():
    fill()
    with lock("nightly"):
        text = status()

    for words in (
        "1,234 duplicates stopped in 24h",
        "of 1,274 calls; 5 min 8 s of work was not repeated",
        "taken over",
        "user:7",
        "nightly",
        "order:…",
        "orders.order",
        "unknown",
    ):
        assert words in text
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text


def test_nothing_to_say_is_said_briefly():
    assert status(window="1h") == (
        "0 duplicates stopped in 1h\nof 0 calls; 0 ms of work was not repeated\n"
    )


def test_programs_get_the_same_numbers():
    fill()
    with lock("nightly"):
        found = json.loads(status(json=True))

    assert found["is_counting"] is True
    assert found["duplicates"] == 1_234
    assert found["calls"] == {"executed": 40, "replayed": 1_234}
    assert found["held_locks"][0]["locks"][0]["name"] == "nightly"
    assert found["stuck"][0]["state"] == "unknown"
    assert found["keys"][0]["scope"] == "user:7"
    assert found["window"] == {"name": "24h", "length": 86_400, "step": 3_600}


def test_numbers_may_be_in_another_database():
    count("replayed", 5)

    assert "0 duplicates" in status(database="other")
    with pytest.raises(CommandError, match="There is no database 'elsewhere'"):
        status(database="elsewhere")


def test_it_is_said_that_nothing_is_counted(settings):
    settings.IDEMPOTENCY_STATISTICS = False

    assert "IDEMPOTENCY_STATISTICS counts nothing." in status()


def test_missing_tables_are_told_as_that(monkeypatch):
    monkeypatch.setitem(Statistic._meta.__dict__, "db_table", "no_table")

    with pytest.raises(CommandError, match="migrate"):
        status()


def test_misconfigured_backends_keep_nothing_else_from_being_shown(settings):
    settings.IDEMPOTENCY_LOCKS = {"default": {}, "wrong": {"BACKEND": "no.such.Backend"}}
    settings.IDEMPOTENCY_STORES = {"default": {}, "wrong": {"BACKEND": "no.such.Store"}}
    record("unknown", purge_after=LONG_BEHIND)
    with lock("nightly"):
        text = status()

    assert "nightly" in text
    assert "unknown" in text
    assert "Locks in 'wrong' are not known: " in text
    assert "no path of a class" in text


def test_backend_that_is_away_keeps_nothing_else_from_being_shown(settings, own_redis):
    redis_backend = "idempotency.locks.redis.RedisLockBackend"
    settings.IDEMPOTENCY_LOCKS = {
        "default": {},
        "again": {},
        "redis": {"BACKEND": redis_backend, "OPTIONS": {"cache": "own"}},
    }
    own_redis.stop()
    with lock("nightly"):
        first, second = held_locks()
        text = status()

    assert (first.alias, [each.name for each in first.locks]) == ("default", ["nightly"])
    assert (second.alias, second.locks) == ("redis", [])
    assert "Locks in 'redis' are not known: " in text
    assert "nightly" in text


def test_backend_that_hangs_is_not_waited_for(settings, own_redis, monkeypatch):
    monkeypatch.setattr(asking, "PATIENCE", 0.2)
    settings.CACHES["own"]["OPTIONS"]["SOCKET_TIMEOUT"] = 5
    backend = "idempotency.locks.redis.RedisLockBackend"
    settings.IDEMPOTENCY_LOCKS = {"default": {"BACKEND": backend, "OPTIONS": {"cache": "own"}}}
    with own_redis.paused():
        (found,) = held_locks()

    assert found.failure == "no answer within 0.2 s (TimeoutError)"


@with_row_locks
def test_session_that_waits_for_a_row_is_shown_with_whom_it_waits_for():
    key = Ticket.objects.create(number="secret-7", venue="here", seat=7).pk

    def wait():
        with transaction.atomic():
            Ticket.objects.filter(pk=key, number="secret-7").update(seat=8)

    def is_seen():
        waiting.join(0.2)  # MariaDB tells anything new only if nobody has asked for 0.1 s.
        return any(one.locks for one in row_locks())

    waiting = threading.Thread(target=elsewhere, args=[wait])
    with transaction.atomic():
        lock_row(Ticket, pk=key)
        waiting.start()
        wait_until(is_seen)
        locks = {one.database: one.locks for one in row_locks()}
        text = status()
    waiting.join(30)

    (one,) = locks["default"]
    assert locks["other"] == []  # Which is on the same server.
    assert one.blocked_by
    assert one.session not in one.blocked_by
    assert one.table == Ticket._meta.db_table
    assert one.waits_for >= 0
    assert one.statement.startswith(("UPDATE", "SELECT"))
    assert "secret-7" not in one.statement
    assert "Waiting for row locks in" in text


def test_databases_that_are_away_say_so(monkeypatch):
    if connection.vendor == "sqlite":
        assert row_locks() == []
        return
    monkeypatch.setitem(connections["other"].settings_dict, "NAME", "no_such_database")

    failures = {one.database: one.failure for one in row_locks()}
    assert failures["default"] == ""
    assert "Error)" in failures["other"]
    assert "no_such_database" not in failures["other"]


def test_databases_of_another_kind_are_not_asked(monkeypatch):
    monkeypatch.setattr(type(connections["other"]), "vendor", "oracle")

    assert row_locks() == []


@pytest.fixture
def few_privileges(monkeypatch):
    """Have "other" reached as a user who may see its tables, and nothing of the server."""
    database = connections["other"].settings_dict
    name = database["NAME"]
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE USER `{name}`")
        cursor.execute(f"GRANT SELECT ON `{name}`.* TO `{name}`")
        monkeypatch.setitem(database, "USER", name)
        monkeypatch.setitem(database, "PASSWORD", "")
        yield
        monkeypatch.undo()
        cursor.execute(f"DROP USER `{name}`")


@pytest.mark.skipif("connection.vendor != 'mysql'", reason="there everybody may ask")
@pytest.mark.usefixtures("few_privileges")
def test_missing_privilege_is_told_as_that():
    failures = {one.database: one.failure for one in row_locks()}

    assert failures == {"default": "", "other": "its user needs the PROCESS privilege"}


@pytest.mark.parametrize("vendor", ["postgresql", "mysql"])
@pytest.mark.parametrize(
    ("query", "masked"),
    [
        ("SELECT 1 WHERE a = 'it''s'\n AND b=2.5", "SELECT ? WHERE a = ? AND b=?"),
        ("UPDATE t1 SET a = 0x5e, b = 1e5, c = .5", "UPDATE t1 SET a = ?, b = ?, c = ?"),
        ("UPDATE t1 SET a = 'secret that was cut of", "UPDATE t1 SET a = ?"),
        ("UPDATE t1 /* user='secret' */ SET a = 1", "UPDATE t1 SET a = ?"),
        ("UPDATE t1 /* secret", "UPDATE t1"),
        ("DELETE FROM t1 -- it's secret\nWHERE a = 'b'", "DELETE FROM t1 WHERE a = ?"),
        ("SELECT " + "x" * 400, ("SELECT " + "x" * 400)[:300]),
    ],
)
def test_statement_is_shown_without_its_values(vendor, query, masked):
    assert without_values(query, vendor) == masked


@pytest.mark.parametrize(
    ("query", "masked"),
    [
        ("UPDATE t1 SET x = $tag$a $ secret$tag$, y = $1", "UPDATE t1 SET x = ?, y = $1"),
        ("UPDATE t1 SET x = $$secret that was cut", "UPDATE t1 SET x = ?"),
        ("UPDATE \"it's\" SET x = 'a\\', y = 'b'", 'UPDATE "it\'s" SET x = ?, y = ?'),
        ("UPDATE t1 SET x =  E'a\\'secret', y = e'\\", "UPDATE t1 SET x = ?, y = ?"),
        ("SELECT a #> '{b}' FROM t1", "SELECT a #> ? FROM t1"),
    ],
)
def test_values_are_told_as_postgresql_writes_them(query, masked):
    assert without_values(query, "postgresql") == masked


@pytest.mark.parametrize(
    ("query", "masked"),
    [
        ("UPDATE t1 SET x = 'O\\'Brien', y = 'a\\", "UPDATE t1 SET x = ?, y = ?"),
        ('UPDATE t1 SET x = "O\\"Brien", y = "a', "UPDATE t1 SET x = ?, y = ?"),
        ("UPDATE `it's` SET x = 'a'", "UPDATE `it's` SET x = ?"),
        ("UPDATE t1 SET x = 3--2 # it's secret", "UPDATE t1 SET x = ?--?"),
    ],
)
def test_values_are_told_as_mysql_writes_them(query, masked):
    assert without_values(query, "mysql") == masked


def test_columns_fit_the_terminal():
    lines = columns(("Name", "Count"), [("n" * 100, 1_000_000), ("short", 2)])

    assert [len(line) <= 80 for line in lines] == [True] * 3
    assert lines[1].endswith("…  1,000,000")
    assert lines[2] == "  short" + " " * (len(lines[1]) - len("  short") - 1) + "2"


def test_age_of_what_is_stuck_is_shown():
    record("in_progress", ends_at=timezone.now() - timedelta(minutes=5))

    assert "5 min" in status()
