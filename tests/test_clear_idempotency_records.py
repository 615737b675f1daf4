"""Records whose retention is over go; nothing else does."""

import io
import uuid
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.core.management.base import OutputWrapper
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from idempotency import lock
from idempotency.keys import new_token, record_id
from idempotency.management.progress import Progress
from idempotency.models import IdempotencyRecord, LockLease, Statistic
from idempotency.purge import purge, purgeable
from idempotency.testing import crash_points, race

pytestmark = pytest.mark.django_db
committing = pytest.mark.django_db(transaction=True)

LONG_AGO, YESTERDAY, SOON = timedelta(days=-9), timedelta(hours=-20), timedelta(hours=1)


def make(count=1, using="default", **fields):
    now = timezone.now()
    instants = ("ends_at", "expires_at", "purge_after")
    values = {
        name: now + value if name in instants and value is not None else value
        for name, value in {"purge_after": LONG_AGO, **fields}.items()
    }
    IdempotencyRecord.objects.using(using).bulk_create(
        IdempotencyRecord(
            id=record_id("s", "o", f"{new_token()}-{number}"),
            token=new_token(),
            scope="s",
            operation="o",
            key=f"{number}",
            created_at=now,
            **values,
        )
        for number in range(count)
    )


def clear(**options):
    out, err = io.StringIO(), io.StringIO()
    call_command("clear_idempotency_records", stdout=out, stderr=err, **options)
    return out.getvalue(), err.getvalue()


@pytest.mark.parametrize(
    ("fields", "goes"),
    [
        ({"state": "completed", "expires_at": LONG_AGO}, True),
        ({"state": "released", "expires_at": LONG_AGO}, True),
        ({"state": "completed", "expires_at": SOON}, False),
        ({"state": "released", "expires_at": SOON}, False),
        ({"state": "completed", "expires_at": LONG_AGO, "purge_after": SOON}, False),
        ({"state": "unknown", "expires_at": LONG_AGO}, False),
        ({"state": "unknown"}, False),
        ({"state": "in_progress", "ends_at": SOON}, False),
        ({"state": "in_progress", "ends_at": YESTERDAY}, False),
        ({"state": "in_progress", "ends_at": LONG_AGO}, True),
        ({"state": "in_progress", "ends_at": LONG_AGO, "purge_after": SOON}, False),
        ({"state": "in_progress"}, False),
    ],
)
def test_only_what_is_over_goes(fields, goes):
    make(**fields)

    clear()

    assert IdempotencyRecord.objects.exists() is not goes


def test_grace_of_an_abandoned_claim_may_be_shorter():
    make(state="in_progress", ends_at=YESTERDAY)

    clear(grace=3_600)

    assert not IdempotencyRecord.objects.exists()


def test_dry_run_counts_and_deletes_nothing():
    make(3, state="completed", expires_at=LONG_AGO)

    out, _ = clear(dry_run=True)

    assert out == "3 records would be deleted.\n"
    assert IdempotencyRecord.objects.count() == 3


def test_batches_are_bounded_and_each_is_a_transaction_of_its_own():
    make(25, state="completed", expires_at=LONG_AGO)
    make(5, state="completed", expires_at=SOON)

    assert list(purge("default", batch_size=10)) == [10, 10, 5]
    assert IdempotencyRecord.objects.count() == 5


def test_batch_takes_the_same_few_statements_whatever_its_size():
    make(40, state="completed", expires_at=LONG_AGO)

    with CaptureQueriesContext(connection) as queries:
        list(purge("default", batch_size=100))

    deletes = [query for query in queries if query["sql"].startswith("DELETE")]
    assert len(deletes) == 1
    assert len(queries) <= 6


def test_command_says_what_it_did():
    make(3, state="completed", expires_at=LONG_AGO)

    assert clear(batch_size=2) == ("3 records deleted.\n", "")


@pytest.mark.parametrize("option", ["--batch-size=0", "--batch-size=x", "--grace=-1"])
def test_option_that_makes_no_sense_is_refused(option):
    with pytest.raises(CommandError, match="no number above 0"):
        call_command("clear_idempotency_records", option)


def test_command_that_is_stopped_says_how_far_it_came(monkeypatch):
    make(4, state="completed", expires_at=LONG_AGO)

    def interrupted(*args, **options):
        yield from list(purge("default", batch_size=2))[:1]
        raise KeyboardInterrupt

    monkeypatch.setattr(
        "idempotency.management.commands.clear_idempotency_records.purge", interrupted
    )

    assert clear()[0] == "Stopped: 2 of 4 records deleted.\n"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_shown_on_a_terminal_only():
    terminal, log = Terminal(), io.StringIO()
    for stream in (terminal, log):
        progress = Progress(OutputWrapper(stream), 200)
        progress.show(100)
        progress.end()

    assert "[###############...............]  50% 100" in terminal.getvalue()
    assert log.getvalue() == ""


def test_database_without_records_is_told(monkeypatch):
    with pytest.raises(CommandError, match="There is no database 'elsewhere' in DATABASES"):
        call_command("clear_idempotency_records", database="elsewhere")

    monkeypatch.setitem(IdempotencyRecord._meta.__dict__, "db_table", "no_table")
    for model in (LockLease, Statistic):
        monkeypatch.setitem(model._meta.__dict__, "db_table", "no_table")
    with pytest.raises(CommandError, match=r"Has `manage\.py migrate` been run"):
        call_command("clear_idempotency_records")


@pytest.mark.django_db(databases=["default", "other"])
def test_every_database_that_is_used_is_cleared(settings):
    settings.IDEMPOTENCY_STORES = {"default": {}, "billing": {"OPTIONS": {"using": "other"}}}
    settings.IDEMPOTENCY_STATISTICS = {"USING": "other"}
    for using in ("default", "other"):
        make(state="completed", expires_at=LONG_AGO, using=using)
    old = timezone.now() - timedelta(days=500)
    Statistic.objects.using("other").create(
        id=uuid.uuid4(), starts_at=old, length=60, count=1, seconds=0, longest=0
    )

    assert clear(database="default")[0] == "1 records deleted.\n"
    assert clear()[0].splitlines()[0] == "1 records deleted."
    assert not IdempotencyRecord.objects.using("other").exists()
    assert not Statistic.objects.using("other").exists()


@committing
def test_two_that_clear_at_once_share_the_work():
    make(600, state="completed", expires_at=LONG_AGO)
    make(50, state="completed", expires_at=SOON)
    make(50, state="in_progress", ends_at=SOON)

    finishes = race(lambda process: sum(purge("default", batch_size=20)), processes=3)

    assert [finish.error for finish in finishes] == [None] * 3
    assert sum(finish.result for finish in finishes) <= 600
    assert not purgeable("default").exists() or sum(purge("default")) > 0
    assert IdempotencyRecord.objects.count() == 100


@committing
def test_one_that_is_killed_anywhere_leaves_what_the_next_one_finishes():
    killed = 0
    for point in crash_points(lambda number: list(purge("default", batch_size=10))):
        sum(purge("default"))
        assert IdempotencyRecord.objects.count() == 0, point
        make(15, state="completed", expires_at=LONG_AGO)
        killed += bool(point.sql)

    assert killed > 4


@committing
@pytest.mark.skipif(connection.vendor != "postgresql", reason="a plan of PostgreSQL")
def test_records_are_found_by_the_index():
    make(2_000, state="completed", expires_at=SOON, purge_after=SOON)
    make(20, state="completed", expires_at=LONG_AGO)
    with connection.cursor() as cursor:
        cursor.execute(f"ANALYZE {IdempotencyRecord._meta.db_table}")

    plan = purgeable("default").order_by("purge_after")[:10].explain()

    assert "Index Scan using" in plan
    assert "purge_after" in plan


@committing
def test_locks_that_nobody_has_held_for_a_day_go_as_well():
    with lock("live"), lock("released today"):
        for name in ("old", "older", "oldest"):
            with lock(name):
                pass
        yesterday = timezone.now() - timedelta(days=1, minutes=1)
        LockLease.objects.filter(name__startswith="old").update(ends_at=yesterday)

        out, _ = clear(dry_run=True)
        assert "3 locks would be deleted" in out
        out, _ = clear(batch_size=2)

    assert "3 locks deleted" in out
    assert sorted(LockLease.objects.values_list("name", flat=True)) == ["live", "released today"]
    assert "lock" not in clear()[0]


@committing
def test_token_grows_over_a_purge():
    with lock("a") as before:
        pass
    LockLease.objects.all().delete()

    with lock("a") as after:
        assert after.token > before.token
