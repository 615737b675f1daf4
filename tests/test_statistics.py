"""What is counted is written, once; and what is old is summed up."""

import threading
import uuid
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.db import DataError, OperationalError, connection
from django.db.models import Sum
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from idempotency import KeyReused, lock, run_once
from idempotency.models import CallLog, LockLease, Statistic
from idempotency.signals import CallEvent, announce
from idempotency.statistics import counting, flushing, rolling, writing
from idempotency.statistics.counting import Batch, Counted, Counters, Tally
from idempotency.statistics.flushing import Flushing
from idempotency.testing import crash_points, race
from tests.conftest import wait_until

pytestmark = pytest.mark.django_db
committing = pytest.mark.django_db(transaction=True)

AT = 1_764_158_520.5
RECORDS = [uuid.UUID(int=1 << 127 | number) for number in range(2)]


@pytest.fixture(autouse=True)
def counters(monkeypatch):
    """What is counted from now on; no other test has used its names up."""
    monkeypatch.setattr(flushing.flushing, "counters", Counters())
    return flushing.flushing.counters


def event(outcome="replayed", record=RECORDS[0], **facts):
    facts = {"operation": "place", "at": AT, "seconds": 0.25, **facts}
    return CallEvent(outcome=outcome, record_id=record, **facts)


def stored():
    return sorted(Statistic.objects.values_list("kind", "name", "outcome", "count"))


def call(fingerprint="1", **options):
    return run_once(
        lambda: 1, scope="s", operation="place", key="key", fingerprint=fingerprint, **options
    )


@committing
def test_calls_locks_and_rows_are_counted_by_their_outcome():
    call()
    call()
    with pytest.raises(KeyReused):
        call("2")
    with lock("order:7"):
        pass
    flushing.flushing.flush()

    assert stored() == [
        ("call", "place", "executed", 1),
        ("call", "place", "replayed", 1),
        ("call", "place", "reused", 1),
        ("lock", "order:…", "released", 1),
        ("lock", "order:…", "taken", 1),
    ]


def test_what_is_counted_again_is_added_to_the_same_row():
    for seconds in (0.5, 2.0, 1.0):
        announce(event(seconds=seconds))
        flushing.flushing.flush()

    row = Statistic.objects.get()
    assert (row.count, row.seconds, row.longest, row.length) == (3, 3.5, 2.0, 60)
    assert row.starts_at.timestamp() == 1_764_158_520


def test_minutes_operations_and_outcomes_are_counted_apart():
    for each in (event(), event(at=AT + 60), event(operation="pay"), event("executed")):
        announce(each)
    flushing.flushing.flush()

    assert Statistic.objects.count() == 4


def test_duplicate_is_logged_with_what_is_known_of_it():
    announce(
        event(
            "reused",
            scope="user:1",
            status=422,
            request_id="r-1",
            differences=("/body/n",),
            attempt=1,
        )
    )
    flushing.flushing.flush()

    entry = CallLog.objects.get()
    assert (entry.scope, entry.operation, entry.outcome) == ("user:1", "place", "reused")
    assert (entry.status, entry.seconds, entry.request_id) == (422, 0.25, "r-1")
    assert entry.differences == ["/body/n"]
    assert entry.record_id == RECORDS[0]
    assert entry.at.timestamp() == AT
    assert entry.worker == writing.worker()


def test_first_run_and_what_has_no_record_is_not_logged():
    for each in (event("executed", attempt=1), event("refused", None), event("executed")):
        announce(each)
    announce(event("executed", attempt=2))
    flushing.flushing.flush()

    assert [entry.outcome for entry in CallLog.objects.all()] == ["executed"]
    assert Statistic.objects.aggregate(Sum("count")) == {"count__sum": 4}


def test_log_of_each_record_is_bounded(settings):
    settings.IDEMPOTENCY_STATISTICS = {"CALLS_PER_RECORD": 3}
    for _ in range(3):
        for record in RECORDS:
            announce(event(record=record))
            announce(event(record=record))
        flushing.flushing.flush()

    assert CallLog.objects.filter(record_id=RECORDS[0]).count() == 3
    assert CallLog.objects.filter(record_id=RECORDS[1]).count() == 3
    assert Statistic.objects.get().count == 12


def test_nothing_is_counted_if_that_is_switched_off(settings, counters):
    settings.IDEMPOTENCY_STATISTICS = False
    announce(event())

    assert counters.is_empty


def test_many_rows_are_written_in_parts(counters):
    calls = [
        event(operation=f"place {number}", record=uuid.UUID(int=number)) for number in range(250)
    ]
    for call in calls:
        announce(call)
    with CaptureQueriesContext(connection) as captured:
        flushing.flushing.flush()

    inserts = [query for query in captured if query["sql"].startswith("INSERT")]
    assert len(inserts) == 3 + 4  # Of 111 statistics and 83 calls, as a statement takes 999 values.
    assert Statistic.objects.count() == CallLog.objects.count() == 250
    logged = CallLog.objects.order_by("id").values_list("operation", "record_id")
    assert [*logged] == [(call.operation, call.record_id) for call in calls]


def test_nothing_is_asked_if_there_is_nothing_to_write(django_assert_num_queries):
    with django_assert_num_queries(0):
        flushing.flushing.flush()


@committing
def test_what_cannot_be_written_is_kept_and_told_once(monkeypatch, caplog, counters):
    announce(event())
    with monkeypatch.context() as patch:
        patch.setitem(Statistic._meta.__dict__, "db_table", LockLease._meta.db_table)
        flushing.flushing.flush_quietly()
        flushing.flushing.flush_quietly()
    announce(event(operation="pay"))
    announce(event())
    flushing.flushing.flush_quietly()

    assert [record.levelname for record in caplog.records if "kept" in record.message] == [
        "WARNING"
    ]
    assert stored() == [("call", "pay", "replayed", 1), ("call", "place", "replayed", 2)]
    assert CallLog.objects.count() == 3


@committing
def test_what_no_database_takes_is_dropped(counters):
    if connection.vendor == "sqlite":
        pytest.skip("SQLite takes everything")
    announce(event(operation="x", request_id="r" * 65))
    with pytest.raises(DataError):
        flushing.flushing.flush()

    assert counters.is_empty


@committing
def test_flush_that_dies_at_any_statement_writes_all_or_nothing():
    def work(number):
        counters = Counters()
        counters.count("call", f"place {number}", "replayed", 1.0, AT)
        counters.log(event(operation=f"place {number}"))
        Flushing(counters).flush()

    for point in crash_points(work):
        written = Statistic.objects.filter(name=f"place {point.number}").count()
        logged = CallLog.objects.filter(operation=f"place {point.number}").count()
        assert written == logged
    assert written == 1


@committing
def test_processes_add_to_the_same_rows():
    def work(number):
        for _ in range(50):
            for name in ("place", "pay", "ship"):
                announce(event(operation=name, record=None))
            flushing.flushing.flush()

    finished = race(work, processes=4)

    assert [finish.error for finish in finished] == [None] * 4
    assert stored() == [("call", name, "replayed", 200) for name in ("pay", "place", "ship")]


class TestThread:
    @committing
    def test_thread_writes_by_itself_and_ends_when_there_is_nothing(self, settings, monkeypatch):
        settings.IDEMPOTENCY_STATISTICS = {"INTERVAL": 0.01}
        monkeypatch.setattr(flushing, "_is_testing", lambda: False)
        own = Flushing(Counters())
        own.counters.count("call", "place", "replayed", 1.0, AT)

        own.notice()
        own.notice()

        wait_until(lambda: own._thread is None)
        assert stored() == [("call", "place", "replayed", 1)]

    def test_tests_write_only_when_they_say_so(self):
        own = Flushing(Counters())
        own.counters.count("call", "place", "replayed", 1.0, AT)

        own.notice()
        own.flush_at_exit()

        assert (own.is_manual, own._thread) == (True, None)
        assert stored() == []

    def test_no_thread_can_be_started_any_more(self, monkeypatch):
        def refuse(thread):
            raise RuntimeError("can't start new thread at interpreter shutdown")

        monkeypatch.setattr(flushing, "_is_testing", lambda: False)
        monkeypatch.setattr(threading.Thread, "start", refuse)
        own = Flushing(Counters())

        own.notice()

        assert own._thread is None


class TestBounds:
    def test_names_beyond_a_number_are_counted_together(self, monkeypatch):
        monkeypatch.setattr(counting, "MOST_NAMES", 2)
        counters = Counters()
        for name in ("a", "b", "c", "d", "a"):
            counters.count("call", name, "executed", 0.0, AT)

        counts = {counted.name: tally.count for counted, tally in counters.take().tallies.items()}
        assert counts == {"a": 2, "b": 1, "(other)": 2}

    def test_counts_and_calls_that_cannot_be_written_are_bounded(self, monkeypatch):
        monkeypatch.setattr(counting, "MOST_COUNTS", 2)
        monkeypatch.setattr(counting, "MOST_CALLS", 2)
        counters = Counters()
        for name in ("a", "b", "c"):
            counters.count("call", name, "executed", 0.0, AT)
            counters.log(event(operation=name))
        batch = counters.take()
        counters.log(event(operation="d"))
        counters.put_back(batch)

        kept = counters.take()
        assert [counted.name for counted in kept.tallies] == ["a", "b"]
        assert [call.operation for call in kept.calls] == ["a", "b"]

    def test_long_name_is_cut(self):
        counters = Counters()
        counters.count("row", "n" * 300, "stale", 0.0, AT)

        assert [len(counted.name) for counted in counters.take().tallies] == [255]


class TestRolling:
    def fill(self, ago, length=60, count=1, name="place"):
        seconds = int((timezone.now() - ago).timestamp()) // length * length
        counted = Counted(seconds, length, "call", name, "executed")
        writing.add({counted: Tally(count, count * 2.0, 2.0)}, "default")

    def lengths(self):
        rows = Statistic.objects.order_by("length").values_list("length", "count")
        return list(rows)

    def clear(self):
        call_command("clear_idempotency_records", verbosity=0)

    def test_old_minutes_become_hours_and_old_hours_days(self):
        for minutes in range(120):
            self.fill(timedelta(days=3, minutes=minutes))
        self.fill(timedelta(days=40), 3_600, 5)
        self.fill(timedelta(minutes=5))
        before = Statistic.objects.aggregate(Sum("count"), Sum("seconds"))
        self.clear()
        self.clear()

        lengths = [length for length, _ in self.lengths()]
        assert lengths == [60, 3_600, 3_600, *([3_600] * (len(lengths) - 4)), 86_400]
        assert Statistic.objects.aggregate(Sum("count"), Sum("seconds")) == before
        assert Statistic.objects.latest("longest").longest == 2.0

    def test_names_and_outcomes_stay_apart(self):
        for name in ("place", "pay"):
            for minutes in (0, 1):
                self.fill(timedelta(days=3, minutes=minutes), name=name)
        list(rolling.roll_up("default"))

        assert {name: count for _, name, _, count in stored()}.keys() == {"place", "pay"}
        assert sum(count for *_, count in stored()) == 4

    def test_an_hour_of_very_many_names_is_summed_up(self):
        old = timezone.now() - timedelta(days=3)
        counted = [
            Counted(int(old.timestamp()) // 60 * 60, 60, "call", str(name), "replayed")
            for name in range(1_000)
        ]
        writing.add(dict.fromkeys(counted, Tally(2, 1.0, 1.0)), "default")
        with CaptureQueriesContext(connection) as captured:
            list(rolling.roll_up("default"))

        deletes = [query["sql"] for query in captured if query["sql"].startswith("DELETE")]
        assert len(deletes) == 2  # As no statement takes more than 999 values.
        assert Statistic.objects.filter(length=3_600, count=2).count() == 1_000
        assert Statistic.objects.count() == 1_000

    def test_what_is_too_old_goes(self, capsys):
        self.fill(timedelta(days=401), 86_400)
        CallLog.objects.create(record_id=RECORDS[0], at=timezone.now() - timedelta(days=36))
        CallLog.objects.create(record_id=RECORDS[0], at=timezone.now() - timedelta(days=34))
        call_command("clear_idempotency_records", dry_run=True)
        counted = capsys.readouterr().out
        self.clear()

        assert "2 rows of old statistics would be deleted." in counted
        assert "2 rows of old statistics summed up or deleted." in capsys.readouterr().out
        assert (Statistic.objects.count(), CallLog.objects.count()) == (0, 1)

    @committing
    def test_two_at_once_and_a_late_count_lose_and_double_nothing(self):
        for minutes in range(90):
            self.fill(timedelta(days=3, minutes=minutes), count=2)

        def work(number):
            if number == 3:
                for minutes in range(90):
                    self.fill(timedelta(days=3, minutes=minutes))
            else:
                list(rolling.roll_up("default"))

        finished = race(work, processes=4)
        list(rolling.roll_up("default"))

        # A deadlock may end a roll-up, which the next one goes on with.
        assert finished[3].error is None
        assert all(isinstance(each.error, OperationalError | None) for each in finished)
        assert Statistic.objects.aggregate(Sum("count")) == {"count__sum": 270}

    @committing
    def test_roll_up_that_dies_at_any_statement_loses_and_doubles_nothing(self):
        for minutes in range(3):
            self.fill(timedelta(days=3, minutes=minutes))
        for _ in crash_points(lambda number: list(rolling.roll_up("default"))):
            assert Statistic.objects.aggregate(Sum("count")) == {"count__sum": 3}
        assert {length for length, _ in self.lengths()} == {3_600}


def test_batch_is_something_if_it_has_anything():
    assert not Batch()
    assert Batch(calls=[event()])
