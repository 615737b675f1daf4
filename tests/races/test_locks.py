"""The promises about locked rows whose locks meet in a circle, or come late."""

import threading
from contextlib import contextmanager

import pytest
from django.db import Error, connection, transaction
from django.db.models import F

from idempotency import LockUnavailable
from idempotency.inserts import TRIES
from idempotency.optimistic import retry_stale
from idempotency.pessimistic import atomic_retry, get_or_create_locked, lock_row, lock_rows
from idempotency.testing import race
from tests.conftest import elsewhere
from tests.models import Account, Effect, Ticket

pytestmark = pytest.mark.django_db(transaction=True)

on_sqlite = pytest.mark.skipif("connection.vendor != 'sqlite'", reason="a way of SQLite to begin")
on_mysql = pytest.mark.skipif("connection.vendor != 'mysql'", reason="a level of MariaDB and MySQL")
with_row_locks = pytest.mark.skipif(
    "connection.vendor == 'sqlite'", reason="the one lock of a file makes no circle"
)
on_postgresql = pytest.mark.skipif(
    "connection.vendor != 'postgresql'", reason="elsewhere an insert that meets a row locks it"
)

DEADLOCKS = {"postgresql": "40P01", "mysql": 1213}


@with_row_locks
def test_one_of_two_in_a_certain_deadlock_is_run_again():
    keys = [Ticket.objects.create(number=number, venue=number, seat=0).pk for number in "AB"]
    both_hold_one = threading.Barrier(2)
    attempts, codes = [], []

    def lock(key):
        try:
            Ticket.objects.select_for_update().get(pk=key)
        except Error as error:
            codes.append(getattr(error.__cause__, "sqlstate", error.args[0]))
            raise

    @atomic_retry(attempts=2)
    def work(name, first, second):
        attempts.append(name)
        Effect.objects.create(name=name)
        lock(first)
        if attempts.count(name) == 1:
            both_hold_one.wait(30)
        lock(second)
        Ticket.objects.update(seat=F("seat") + 1)

    other = threading.Thread(target=elsewhere, args=[lambda: work("other", *reversed(keys))])
    other.start()
    work("own", *keys)
    other.join(30)

    assert codes == [DEADLOCKS[connection.vendor]]
    assert len(attempts) == 3
    assert sorted(Effect.objects.values_list("name", flat=True)) == ["other", "own"]
    assert list(Ticket.objects.values_list("seat", flat=True)) == [2, 2]


@contextmanager
def before_each_lock(action):
    """Run *action* on another connection before each statement that locks a row."""

    def wrapper(execute, sql, *rest):
        if "FOR NO KEY UPDATE" in sql:
            elsewhere(action)
        return execute(sql, *rest)

    with connection.execute_wrapper(wrapper):
        yield


def delete():
    Ticket.objects.all().delete()


def replace():
    """Delete the row for another one, the first time."""
    if not Ticket.objects.filter(title="second").exists():
        delete()
        Ticket.objects.create(number="A", title="second")


@on_postgresql
def test_row_that_vanishes_before_its_lock_is_made():
    Ticket.objects.create(number="A", title="first")

    with transaction.atomic(), before_each_lock(delete):
        row, created = get_or_create_locked(Ticket, number="A", defaults={"title": "made"})

    assert created is True
    assert list(Ticket.objects.values_list("pk", "title")) == [(row.pk, "made")]


@on_postgresql
def test_row_that_took_the_place_of_one_that_vanished_is_locked():
    Ticket.objects.create(number="A", title="first")

    def is_held():
        with transaction.atomic(), pytest.raises(LockUnavailable):
            lock_row(Ticket, number="A", wait=0)

    with transaction.atomic():
        with before_each_lock(replace):
            row, created = get_or_create_locked(Ticket, number="A")
        elsewhere(is_held)

    assert (row.title, created) == ("second", False)


@on_postgresql
def test_row_that_vanishes_before_every_lock_is_given_up():
    Ticket.objects.create(number="A")
    locks = []

    def replace_again():
        locks.append(1)
        delete()
        Ticket.objects.create(number="A")

    vanishing, gone = before_each_lock(replace_again), pytest.raises(Ticket.DoesNotExist)
    with transaction.atomic(), vanishing, gone:
        get_or_create_locked(Ticket, number="A")

    assert len(locks) == TRIES


@pytest.fixture
def connect_with(monkeypatch):
    """Give a function that has all connections of the test be made with an option."""

    def reconnect(**options):
        for name, value in options.items():
            monkeypatch.setitem(connection.settings_dict["OPTIONS"], name, value)
        connection.close()

    yield reconnect
    connection.close()


LOCKS = {
    "lock_row": lambda row: lock_row(Ticket, pk=row.pk),
    "lock_row of an object": lambda row: lock_row(row),
    "lock_rows": lambda row: lock_rows(Ticket.objects.filter(pk=row.pk))[0],
}
every_lock = pytest.mark.parametrize("lock", LOCKS.values(), ids=LOCKS)

PROCESSES, INCREMENTS = 8, 25


@on_sqlite
@pytest.mark.parametrize("reads_first", [False, True])
@every_lock
def test_transactions_that_begin_without_the_lock_lose_no_update(connect_with, lock, reads_first):
    row = Ticket.objects.create(number="A", seat=0)
    connect_with(transaction_mode="DEFERRED")

    # A lock that comes first waits for its turn; one that comes after a read may be too late.
    @atomic_retry(attempts=1_000 if reads_first else 1)
    def add():
        held = lock(Ticket.objects.get() if reads_first else row)
        held.seat += 1
        held.save()

    finishes = race(lambda process: [add() for _ in range(INCREMENTS)], processes=PROCESSES)

    assert [finish.error for finish in finishes] == [None] * PROCESSES
    assert Ticket.objects.get().seat == PROCESSES * INCREMENTS


@on_sqlite
@every_lock
def test_lock_that_comes_too_late_for_a_snapshot_is_unavailable(connect_with, lock):
    Ticket.objects.create(number="A", seat=0)
    connect_with(transaction_mode="DEFERRED")

    with transaction.atomic():
        row = Ticket.objects.get()
        elsewhere(lambda: Ticket.objects.update(seat=1))
        with pytest.raises(LockUnavailable):
            lock(row)
        assert Ticket.objects.get().seat == 0
    assert Ticket.objects.get().seat == 1


def repeatable_read():
    if connection.vendor == "mysql":
        return "repeatable read"
    from psycopg import IsolationLevel

    return IsolationLevel.REPEATABLE_READ


SNAPSHOTS = {
    "sqlite": {},
    "postgresql": {"refused": (None, 2)},
    "mysql": {
        "passed by": ("SET innodb_snapshot_isolation = OFF", 1),
        "refused": ("SET innodb_snapshot_isolation = ON", 2),
    },
}
"""What a lock makes of a row newer than the snapshot, how to have that, and how many attempts."""


@with_row_locks
@pytest.mark.parametrize(
    ("choice", "expected"),
    SNAPSHOTS[connection.vendor].values(),
    ids=SNAPSHOTS[connection.vendor],
)
@every_lock
def test_lock_gives_what_is_newer_than_the_snapshot(connect_with, lock, choice, expected):
    Ticket.objects.create(number="A", title="old")
    connect_with(isolation_level=repeatable_read())
    if choice:
        connect_with(init_command=choice)
    attempts = []

    @atomic_retry
    def change():
        row = Ticket.objects.get()
        attempts.append(row.title)
        if len(attempts) == 1:
            elsewhere(lambda: Ticket.objects.update(title="new"))
            assert Ticket.objects.get().title == "old"
        return lock(row).title

    assert change() == "new"
    assert len(attempts) == expected


@with_row_locks
@pytest.mark.parametrize(
    "choice",
    [choice for choice, _ in SNAPSHOTS[connection.vendor].values()],
    ids=SNAPSHOTS[connection.vendor],
)
def test_change_of_an_old_snapshot_is_made_anew(connect_with, choice):
    Account.objects.create(balance=1)
    connect_with(isolation_level=repeatable_read())
    if choice:
        connect_with(init_command=choice)
    attempts = []

    @retry_stale
    def change():
        row = Account.objects.get()
        attempts.append(row.balance)
        if len(attempts) == 1:
            elsewhere(lambda: Account.objects.update(balance=5))
        row.balance += 1
        row.save()

    change()

    assert attempts == [1, 5]
    assert Account.objects.get().balance == 6


@on_mysql
def test_rows_that_are_newer_than_the_snapshot_are_locked_along(connect_with):
    Ticket.objects.create(number="A")
    connect_with(isolation_level="repeatable read")

    with transaction.atomic():
        assert Ticket.objects.count() == 1
        elsewhere(lambda: Ticket.objects.create(number="B"))
        rows = lock_rows(Ticket.objects.all())

    assert [row.number for row in rows] == ["A", "B"]
