"""What a protected call costs: statements and kinds of updates, counted."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from idempotency import idempotent_view, lock, run_once
from idempotency.keys import uuid7
from idempotency.models import IdempotencyRecord
from idempotency.stores import _stores
from tests.conftest import KEY
from tests.test_http import effect

pytestmark = pytest.mark.django_db(transaction=True)

FRAME = ("BEGIN", "COMMIT")
ADDED = {"postgresql": (2, 1, 1), "mysql": (2, 2, 1), "sqlite": (3, 1, 1)}
"""
Statements besides BEGIN and COMMIT: those added to a first call, those of a replay in another
process, and those of one in the same process.
"""


def forget():
    """Know as little of earlier calls as another process does."""
    _stores.forget()


def statements(call):
    with CaptureQueriesContext(connection) as queries:
        call()
    return [query["sql"] for query in queries if not query["sql"].startswith(FRAME)]


@pytest.mark.parametrize("key", [KEY, str(uuid7())], ids=["opaque key", "key with time"])
@pytest.mark.parametrize("requests", ["plain", "atomic"])
def test_first_request_and_replay_add_as_few_statements_as_promised(request, served, key, requests):
    if requests == "atomic":
        request.getfixturevalue("atomic_requests")
    send = served(idempotent_view(effect))

    first, here = statements(lambda: send(key)), statements(lambda: send(key))
    forget()
    elsewhere = statements(lambda: send(key))

    (insert,) = [sql for sql in first if "tests_effect" in sql]
    assert first.index(insert) == len(first) - 2
    assert (len(first) - 1, len(elsewhere), len(here)) == ADDED[connection.vendor]


def test_lease_mode_adds_no_more_statements():
    def call():
        run_once(lambda: 1, scope="s", operation="o", key="key", mode="lease")

    first, here = statements(call), statements(call)
    forget()
    elsewhere = statements(call)

    assert (len(first), len(elsewhere), len(here)) == ADDED[connection.vendor]


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="a notion of PostgreSQL")
def test_every_completion_is_a_heap_only_update(served):
    send = served(idempotent_view(effect))
    updates_before, heap_only_before = updates()

    for number in range(300):
        assert send(f"{KEY}-{number}").status_code == 201

    updates_after, heap_only_after = updates()
    assert updates_after - updates_before == 300
    assert heap_only_after - heap_only_before == 300


def updates():
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_force_next_flush()")
        cursor.execute("SELECT 1")
        cursor.execute(
            "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = %s",
            [IdempotencyRecord._meta.db_table],
        )
        return cursor.fetchone()


LOCKING = {"postgresql": 2, "mysql": 3, "sqlite": 3}
"""Statements of a lock that was held before; a refused try has one less, and no release."""


def test_lock_costs_as_few_statements_as_promised():
    def hold():
        with lock("a"):
            pass

    hold()

    assert len(statements(hold)) == LOCKING[connection.vendor]


def test_lock_in_redis_costs_two_round_trips(settings, own_redis):
    settings.IDEMPOTENCY_LOCKS = {
        "default": {
            "BACKEND": "idempotency.locks.redis.RedisLockBackend",
            "OPTIONS": {"cache": "own"},
        },
    }

    def hold():
        with lock("counted"):
            pass

    def scripts_run():
        counted = own_redis.tell("INFO", "commandstats")
        return [counted.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval")]

    hold()
    evalsha, evals = scripts_run()
    hold()

    assert scripts_run() == [evalsha + 2, evals]
