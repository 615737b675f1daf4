"""The promises of docs/explanation/guarantees.md, kept by real processes on a real database."""

import threading

import pytest
from django.db import OperationalError, connection, connections, transaction
from django.test import Client
from django.utils import timezone

from idempotency import KeyInProgress, StoreUnavailable, run_once
from idempotency.models import IdempotencyRecord
from idempotency.testing import crash_points, race
from tests.models import Effect

pytestmark = pytest.mark.django_db(transaction=True)

PROCESSES, KEYS, DUPLICATES = 8, 200, 8


def post(key: str, body: object = None, path: str = "/place/"):
    return Client(raise_request_exception=False).post(
        path,
        body or {"name": key},
        content_type="application/json",
        headers={"Idempotency-Key": key},
    )


def key_of(number: int) -> str:
    return f"intent-number-{number:06}"


def effects_of(number: int) -> int:
    return Effect.objects.filter(name__contains=key_of(number)).count()


def place(number: int, **options) -> bool:
    """Make the effect of the intent *number* once; tell whether it was there."""
    outcome = run_once(
        lambda: Effect.objects.create(name=key_of(number)).pk,
        scope="test",
        operation="place",
        key=key_of(number),
        **options,
    )
    return outcome.replayed


def test_8_processes_with_8_duplicates_of_200_keys_make_200_effects():
    def client(process: int) -> dict[int, int]:
        statuses: dict[int, int] = {}
        # Each process sends each key once, so that every key is sent eight times at once.
        for number in range(KEYS):
            status = post(key_of(number)).status_code
            statuses[status] = statuses.get(status, 0) + 1
        return statuses

    finishes = race(client, processes=PROCESSES)

    assert [finish.error for finish in finishes] == [None] * PROCESSES
    statuses = {status for finish in finishes for status in finish.result}
    assert statuses <= {201, 409}
    assert sum(sum(finish.result.values()) for finish in finishes) == PROCESSES * KEYS
    assert {effects_of(number) for number in range(KEYS)} == {1}
    assert Effect.objects.count() == KEYS


@pytest.mark.parametrize("options", [{}, {"mode": "lease"}], ids=["atomic", "lease"])
def test_a_process_that_dies_at_any_statement_leaves_one_effect_after_the_retry(options):
    points = []
    for point in crash_points(lambda number: place(number, **options)):
        left = effects_of(point.number)
        IdempotencyRecord.objects.update(ends_at=timezone.now() - timezone.timedelta(hours=1))

        replayed = place(point.number, **options)

        assert effects_of(point.number) == 1, point
        assert replayed is bool(left), point
        points.append(str(point))

    assert len(points) >= 8
    assert any("COMMIT" in point for point in points)


def test_a_process_that_dies_in_atomic_mode_leaves_nothing_behind():
    for point in crash_points(place):
        records = IdempotencyRecord.objects.filter(key=key_of(point.number))

        assert list(records.values_list("state", flat=True)) == ["completed"] * effects_of(
            point.number
        ), point


LEVELS = {
    "postgresql": ["REPEATABLE READ", "SERIALIZABLE"],
    "mysql": ["REPEATABLE READ", "SERIALIZABLE", "READ UNCOMMITTED"],
    "sqlite": [],
}


@pytest.mark.parametrize("mode", ["atomic", "lease"])
@pytest.mark.parametrize("level", LEVELS[connection.vendor])
def test_every_isolation_level_makes_one_effect_for_each_key(level, mode):
    def client(process):
        isolate(level)
        return [place_patiently(number, mode=mode) for number in range(40)]

    finishes = race(client, processes=6)

    assert [finish.error for finish in finishes] == [None] * 6
    assert {effects_of(number) for number in range(40)} == {1}


def isolate(level):
    with connection.cursor() as cursor:
        if connection.vendor == "mysql":
            cursor.execute(f"SET SESSION TRANSACTION ISOLATION LEVEL {level}")
        else:
            cursor.execute(f"SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL {level}")


def place_patiently(number, **options):
    """Retry as a client does that is told to come again, or whose view failed."""
    for _ in range(100):
        try:
            return place(number, wait=2, **options)
        except (KeyInProgress, StoreUnavailable, OperationalError):
            continue
    raise AssertionError("It never came to an end.")


@pytest.mark.skipif(connection.vendor != "mysql", reason="a level of MariaDB and MySQL")
def test_outcome_that_an_old_snapshot_does_not_show_is_replayed():
    def elsewhere():
        place(1)
        connections.close_all()

    isolate("REPEATABLE READ")
    with transaction.atomic():
        assert not Effect.objects.exists()
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        replayed = place(1)
    connection.close()

    assert replayed is True
    assert effects_of(1) == 1
