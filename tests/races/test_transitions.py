"""The promises about transitions, kept by real processes on a real database."""

import os

import pytest
from django.db import OperationalError, connection, transaction

from idempotency import StaleObject, TransitionConflict
from idempotency.testing import crash_points, interleavings, race
from idempotency.transitions import TransitionLog, log_of
from tests.conftest import elsewhere
from tests.models import Contract, Effect, Lease, Letter, Refused

pytestmark = pytest.mark.django_db(transaction=True)

PROCESSES, ROWS = 8, 50
KINDS = [Letter, Contract, Lease]


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


class Tally:
    """Counts what happens in any process, also what is rolled back."""

    def __init__(self, path):
        self.path = path
        path.touch()

    def count_one(self):
        with self.path.open("ab", buffering=0) as file:
            file.write(b".")

    @property
    def count(self):
        return os.path.getsize(self.path)


@pytest.fixture
def tally(tmp_path):
    return Tally(tmp_path / "tally")


def logged(row):
    return [(log.source, log.target) for log in log_of(row)][::-1]


def test_8_processes_that_send_50_rows_run_50_bodies(kind, tally):
    rows = [kind.objects.create() for _ in range(ROWS)]

    def send_all(process):
        # All are read before the first is sent, so that each process holds them as new.
        objects = list(kind.objects.filter(pk__in=[row.pk for row in rows]))
        return [row.send(lambda row: tally.count_one()).repeated for row in objects]

    finishes = race(send_all, processes=PROCESSES)

    assert [finish.error for finish in finishes] == [None] * PROCESSES
    ran = [repeated for finish in finishes for repeated in finish.result].count(False)
    assert (tally.count, ran, Effect.objects.count()) == (ROWS, ROWS, ROWS)
    assert TransitionLog.objects.count() == ROWS
    assert set(kind.objects.values_list("state", flat=True)) == {"sent"}


def test_8_processes_inside_of_transactions_run_50_bodies(tally):
    rows = [Letter.objects.create() for _ in range(ROWS)]

    def send_all(process):
        for row in Letter.objects.filter(pk__in=[row.pk for row in rows]):
            with transaction.atomic():
                row.send(lambda row: tally.count_one())

    finishes = race(send_all, processes=PROCESSES)

    assert [finish.error for finish in finishes] == [None] * PROCESSES
    assert (tally.count, Effect.objects.count()) == (ROWS, ROWS)


def test_body_that_fails_leaves_its_row_to_the_next_process(tally):
    row = Letter.objects.create()

    def send(process):
        def body(row):
            tally.count_one()
            if tally.count < 4:
                raise Refused

        try:
            return Letter.objects.get(pk=row.pk).send(body).repeated
        except Refused:
            return None

    results = [finish.result for finish in race(send, processes=PROCESSES)]

    assert sorted(map(str, results)) == ["False"] + ["None"] * 3 + ["True"] * 4
    assert Effect.objects.count() == 1
    assert logged(row) == [("new", "sent")]


@pytest.mark.parametrize("kind", [Letter, Contract], indirect=True)
def test_of_two_ways_out_of_a_state_one_is_taken_in_every_order(kind):
    rows = []

    def row_of(number):
        return kind.objects.get(pk=rows[number])

    def send(number):
        return row_of(number).send().repeated

    def lose(number):
        return row_of(number).lose().repeated

    orders = 0
    rows.append(kind.objects.create().pk)
    for interleaving in interleavings(send, lose):
        orders += 1
        row = kind.objects.get(pk=rows[-1])
        names = set(
            Effect.objects.filter(name__endswith=f" {row.pk}").values_list("name", flat=True)
        )
        steps = logged(row)
        assert steps in ALLOWED, interleaving
        assert names == {
            f"{'lose' if target == 'lost' else 'send'} {row.pk}" for _, target in steps
        }
        rows.append(kind.objects.create().pk)

    assert orders > 10


ALLOWED = [[("new", "sent")], [("new", "lost")], [("new", "sent"), ("sent", "lost")]]


def test_transition_killed_at_any_moment_and_retried_takes_effect_once(kind):
    rows = []

    def send(number):
        row = kind.objects.create(pk=1_000 + number)
        row.send(lambda row: setattr(row, "name", "changed"))

    for point in crash_points(send):
        rows.append(kind.objects.filter(pk=1_000 + len(rows)).first())
        row = rows[-1]
        if row is None:
            continue  # Killed before there was a row.
        found = Effect.objects.filter(name=f"send {row.pk}").count()
        assert found == len(logged(row)) == (row.state == "sent") == (row.name == "changed"), point

        assert row.send().repeated is (found == 1)
        assert Effect.objects.filter(name=f"send {row.pk}").count() == 1
        assert logged(row) == [("new", "sent")]
    assert len(rows) > 8


def test_failure_state_killed_at_any_moment_is_written_with_its_log_or_not_at_all():
    count = 0

    def risk(number):
        row = Letter.objects.create(pk=1_000 + number)
        with pytest.raises(Refused):
            row.risk(refuse)

    for point in crash_points(risk):
        row = Letter.objects.filter(pk=1_000 + count).first()
        count += 1
        if row is None:
            continue
        assert logged(row) == ([("new", "lost")] if row.state == "lost" else []), point
        assert row.state in ("new", "lost")
        assert Effect.objects.count() == 0
    assert count > 8


def refuse(row):
    raise Refused


def test_saves_beside_transitions_lose_neither(tally):
    """Objects without a version are saved by all while their state moves on."""
    rows = [Letter.objects.create() for _ in range(ROWS)]

    def work(process):
        for row in Letter.objects.filter(pk__in=[row.pk for row in rows]):
            if process % 2:
                row.send(lambda row: tally.count_one())
            else:
                row.name = f"of {process}"
                row.save()

    finishes = race(work, processes=PROCESSES)

    assert [finish.error for finish in finishes] == [None] * PROCESSES
    assert tally.count == ROWS
    assert set(Letter.objects.values_list("state", flat=True)) == {"sent"}


def test_versioned_rows_that_are_saved_and_sent_at_once_lose_neither(tally):
    rows = [Contract.objects.create() for _ in range(ROWS)]

    def work(process):
        saved = 0
        for row in Contract.objects.filter(pk__in=[row.pk for row in rows]):
            while True:
                try:
                    if process % 2:
                        row.send(lambda row: tally.count_one())
                    else:
                        row.marks.append(process)
                        row.save()
                        saved += 1
                    break
                except StaleObject:
                    row.refresh_from_db()
        return saved

    finishes = race(work, processes=PROCESSES)

    assert [finish.error for finish in finishes] == [None] * PROCESSES
    assert tally.count == ROWS
    assert sum(finish.result for finish in finishes) == 4 * ROWS
    assert sum(len(marks) for marks in Contract.objects.values_list("marks", flat=True)) == 4 * ROWS
    assert set(Contract.objects.values_list("version", flat=True)) == {1 + 4 + 1}


@pytest.mark.skipif("connection.vendor == 'sqlite'", reason="SQLite has one isolation level.")
def test_old_snapshot_does_not_run_a_body_a_second_time():
    row = Letter.objects.create()
    level = {
        "mysql": "SET SESSION TRANSACTION",
        "postgresql": "SET SESSION CHARACTERISTICS AS TRANSACTION",
    }
    connection.ensure_connection()
    with connection.cursor() as cursor:
        cursor.execute(f"{level[connection.vendor]} ISOLATION LEVEL REPEATABLE READ")
    try:
        with transaction.atomic():
            old = Letter.objects.get(pk=row.pk)
            elsewhere(lambda: Letter.objects.get(pk=row.pk).send())

            if connection.vendor == "postgresql":
                with pytest.raises(OperationalError), transaction.atomic():
                    old.send()
            else:
                assert old.send().repeated
                assert old.state == "sent"
    finally:
        connection.close()

    assert Effect.objects.count() == 1


def test_conflict_tells_the_state_that_another_process_committed():
    row = Letter.objects.create()
    old = Letter.objects.get(pk=row.pk)
    race(lambda process: Letter.objects.get(pk=row.pk).lose().repeated, processes=2)

    with pytest.raises(TransitionConflict) as caught:
        old.send()

    assert caught.value.actual == "lost"
