"""The promises about rows, kept by real processes on a real database."""

import random

import pytest
from django.db import connection, transaction
from django.db.models import F

from idempotency import StaleObject
from idempotency.optimistic import retry_stale
from idempotency.pessimistic import atomic_retry, lock_row, lock_rows
from idempotency.testing import crash_points, race
from tests.models import Account, Savings

pytestmark = pytest.mark.django_db(transaction=True)

PROCESSES, INCREMENTS = 8, 200


def by_save(pk):
    row = Account.objects.get(pk=pk)
    row.balance += 1
    row.save()


def by_update_fields(pk):
    row = Account.objects.get(pk=pk)
    row.balance += 1
    row.save(update_fields=["balance"])


def by_only(pk):
    row = Account.objects.only("balance").get(pk=pk)
    row.balance += 1
    row.save()


def by_defer(pk):
    row = Account.objects.defer("name").get(pk=pk)
    row.balance += 1
    row.save()


def by_bulk_update(pk):
    row = Account.objects.get(pk=pk)
    row.balance += 1
    if Account.objects.bulk_update([row], ["balance"]):
        raise StaleObject


def by_child(pk):
    row = Savings.objects.get(pk=pk)
    row.balance += 1
    row.rate += 1
    row.save()


def by_child_field(pk):
    row = Savings.objects.get(pk=pk)
    row.balance += 1
    row.save(update_fields=["balance"])


def by_queryset(pk):
    Account.objects.filter(pk=pk).update(balance=F("balance") + 1)


def by_update_or_create(pk):
    with transaction.atomic():
        row = Account.objects.select_for_update().get(pk=pk)
        Account.objects.update_or_create(pk=pk, defaults={"balance": row.balance + 1})


WRITES = [
    by_save,
    by_update_fields,
    by_only,
    by_defer,
    by_bulk_update,
    by_child,
    by_child_field,
    by_queryset,
    by_update_or_create,
]


def test_8_processes_times_200_increments_by_every_kind_of_write_lose_none():
    row = Savings.objects.create(name="shared")

    def count_up(process: int) -> None:
        for number in range(INCREMENTS):
            write = WRITES[(process + number) % len(WRITES)]
            retry_stale(write, attempts=1_000)(row.pk)

    finishes = race(count_up, processes=PROCESSES)

    assert [finish.error for finish in finishes] == [None] * PROCESSES
    row.refresh_from_db()
    assert row.balance == PROCESSES * INCREMENTS
    assert row.version == 1 + PROCESSES * INCREMENTS


def test_of_8_processes_that_delete_or_save_one_version_one_wins():
    rows = [Account.objects.create(name=str(number)) for number in range(20)]

    def take(process: int) -> int:
        won = 0
        for row in rows:
            try:
                row.delete() if process % 2 else row.save()
            except StaleObject:
                continue
            won += 1
        return won

    connection.close()
    finishes = race(take, processes=PROCESSES)

    assert [finish.error for finish in finishes] == [None] * PROCESSES
    assert sum(finish.result for finish in finishes) == len(rows)


def test_rows_locked_in_any_order_by_8_processes_deadlock_never():
    keys = [Account.objects.create(name=str(number)).pk for number in range(6)]

    def transfer(process: int) -> None:
        chooser = random.Random(process)  # noqa: S311 - not a secret.
        for _ in range(50):
            pair = chooser.sample(keys, 2)
            order = chooser.choice(["pk", "-pk", "name", "?"])
            with transaction.atomic():
                rows = lock_rows(Account.objects.filter(pk__in=pair).order_by(order))
                for row, amount in zip(rows, (1, -1), strict=True):
                    row.balance += amount
                    row.save()

    connection.close()
    finishes = race(transfer, processes=PROCESSES)

    assert [finish.error for finish in finishes] == [None] * PROCESSES
    assert sum(Account.objects.values_list("balance", flat=True)) == 0
    versions = Account.objects.values_list("version", flat=True)
    assert sum(versions) == len(keys) + PROCESSES * 50 * 2


def test_a_deadlock_is_cured_by_atomic_retry():
    first, second = (Account.objects.create(name=name) for name in "AB")

    @atomic_retry(attempts=100)
    def add(keys: list[int]) -> None:
        for key in keys:
            row = lock_row(Account, pk=key)
            row.balance += 1
            row.save()

    def work(process: int) -> None:
        keys = [first.pk, second.pk]
        for _ in range(5):
            add(keys if process % 2 else keys[::-1])

    connection.close()
    finishes = race(work, processes=2)

    assert [finish.error for finish in finishes] == [None] * 2
    assert set(Account.objects.values_list("balance", flat=True)) == {10}


def test_row_of_two_tables_is_saved_once_wherever_the_process_dies():
    rows = [Savings.objects.create(name=str(number)) for number in range(40)]

    def save(number: int) -> None:
        row = rows[number]  # As the caller read it, before the crash as for the retry.
        row.balance, row.rate = 1, 1
        row.save()

    points = []
    for point in crash_points(save):
        left = numbers_of(rows[point.number])
        assert left in [(0, 0, 1), (1, 1, 2)], point

        if left == (0, 0, 1):
            save(point.number)
        else:
            with pytest.raises(StaleObject):
                save(point.number)

        assert numbers_of(rows[point.number]) == (1, 1, 2), point
        points.append((point.when, point.sql.split(" ")[0]))

    assert points.count(("before", "UPDATE")) == points.count(("after", "UPDATE")) == 2
    assert points[-3:-1] == [("before", "COMMIT"), ("after", "COMMIT")]


def numbers_of(row: Savings) -> tuple[int, int, int]:
    return Savings.objects.values_list("balance", "rate", "version").get(pk=row.pk)
