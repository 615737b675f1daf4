"""The numbers of a window are those that were counted in it, whatever they are asked by."""

import time
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from idempotency.keys import new_token
from idempotency.models import CallLog, IdempotencyRecord, Statistic
from idempotency.statistics import stuck, writing
from idempotency.statistics.counting import Counted, Tally
from idempotency.statistics.figures import DUPLICATES, WINDOWS
from idempotency.statistics.instants import seconds_of
from idempotency.statistics.summary import summarize

pytestmark = pytest.mark.django_db(databases=["default", "other"])

LONG_BEHIND = datetime(9999, 12, 1, tzinfo=UTC)


def count(outcome, times=1, ago=0.0, name="place", kind="call", length=60, each=1.0):
    at = int(time.time() - ago) // length * length
    tally = Tally(times, times * each, each)
    writing.add({Counted(at, length, kind, name, outcome): tally}, "default")


def log(outcome="replayed", scope="user:1", number=1, ago=0.0, operation="place"):
    CallLog.objects.create(
        record_id=uuid.UUID(int=1 << 127 | number),
        scope=scope,
        operation=operation,
        outcome=outcome,
        at=timezone.now() - timedelta(seconds=ago),
    )


def record(state, number=1, ends_at=None, purge_after=None):
    now = timezone.now()
    return IdempotencyRecord.objects.create(
        id=uuid.UUID(int=1 << 127 | number),
        state=state,
        token=new_token(),
        scope="user:1",
        operation="place",
        key=f"key {number}",
        created_at=now,
        ends_at=ends_at,
        purge_after=purge_after or now + timedelta(hours=number),
    )


@pytest.mark.parametrize("name", WINDOWS)
def test_window_without_anything_has_empty_bars(name):
    window = WINDOWS[name]
    summary = summarize(window)

    assert len(summary.bars) == window.length // window.step
    assert {bar.starts_at.timestamp() % window.step for bar in summary.bars} == {0}
    starts = [bar.starts_at for bar in summary.bars]
    assert starts == sorted(starts)
    assert starts[-1] <= summary.until < starts[-1] + timedelta(seconds=window.step)
    assert (summary.calls, summary.duplicates, summary.saved, summary.operations) == ({}, 0, 0, [])
    assert (summary.callers, summary.keys, summary.locks, summary.rows) == ([], [], [], [])


def test_calls_are_summed_up_by_operation_and_outcome():
    count("executed", 4, each=0.5)
    count("replayed", 3)
    count("reused", 2, ago=600)
    count("taken_over", 1)
    count("in_progress", 7, name="pay")
    count("replayed", 100, ago=2 * 86_400)
    summary = summarize(WINDOWS["24h"])

    assert summary.calls == {"executed": 4, "replayed": 3, "reused": 2, "in_progress": 7}
    assert (summary.taken_over, summary.duplicates, summary.saved) == (1, 12, 1.5)
    assert [(one.name, one.duplicates, one.mean) for one in summary.operations] == [
        ("pay", 7, None),
        ("place", 5, 0.5),
    ]
    assert sum(sum(bar.counts.values()) for bar in summary.bars) == 12


def test_hours_and_days_count_like_minutes():
    count("replayed", 5, ago=4 * 86_400, length=3_600)
    count("replayed", 2)

    assert summarize(WINDOWS["7d"]).duplicates == 7
    assert summarize(WINDOWS["24h"]).duplicates == 2


def test_bar_has_what_was_counted_in_its_time():
    count("replayed", 5, ago=3_600 * 5)
    summary = summarize(WINDOWS["24h"])

    (bar,) = [bar for bar in summary.bars if bar.counts]
    assert bar.counts == {"replayed": 5}
    age = seconds_of(summary.until) - seconds_of(bar.starts_at)
    assert 3_600 * 5 - 60 <= age <= 3_600 * 6


def test_clock_that_is_ahead_loses_no_count():
    count("replayed", 5, ago=-7_200)

    assert summarize(WINDOWS["1h"]).bars[-1].counts == {"replayed": 5}


def test_callers_and_keys_with_the_most_duplicates_come_first():
    for number in range(12):
        log(scope=f"user:{number}", number=number)
    for _ in range(3):
        log(scope="user:5", number=5)
    log("executed")
    log(ago=7_200)
    summary = summarize(WINDOWS["1h"])

    assert len(summary.callers) == len(summary.keys) == 10
    assert (summary.callers[0].scope, summary.callers[0].duplicates) == ("user:5", 4)
    assert summary.keys[0].record_id == uuid.UUID(int=1 << 127 | 5)
    assert summary.keys[0].duplicates == 4
    assert summary.keys[0].last_at == CallLog.objects.get(pk=summary_last()).at


def summary_last():
    return CallLog.objects.filter(scope="user:5").latest("at").pk


def test_locks_and_rows_have_their_own_figures():
    for outcome, seconds in (("taken", 1.0), ("waited", 3.0), ("released", 5.0), ("lost", 7.0)):
        count(outcome, kind="lock", name="order:…", each=seconds)
    count("turned_away", 2, kind="lock", name="nightly", each=2.0)
    count("moved", 9, kind="row", name="orders.order.pay")
    count("stale", 3, kind="row", name="orders.order")
    summary = summarize(WINDOWS["1h"])

    first, second = summary.locks
    assert (first.template, first.mean_wait, first.longest_wait) == ("order:…", 2.0, 3.0)
    assert (first.mean_held, first.longest_held) == (6.0, 7.0)
    assert (second.counts, second.mean_wait, second.mean_held) == ({"turned_away": 2}, 2.0, None)
    assert (second.longest_wait, second.longest_held) == (2.0, None)
    assert [row.name for row in summary.rows] == ["orders.order", "orders.order.pay"]


def test_claims_without_a_lease_left_and_unknown_outcomes_are_stuck():
    now = timezone.now()
    record("in_progress", 1, ends_at=now - timedelta(minutes=5))
    record("in_progress", 2, ends_at=now + timedelta(minutes=5))
    record("completed", 3)
    record("unknown", 4, purge_after=LONG_BEHIND)

    found = summarize(WINDOWS["1h"]).stuck
    assert [(one.state, one.record_id.int & 7) for one in found] == [
        ("in_progress", 1),
        ("unknown", 4),
    ]


def test_claims_are_looked_for_among_the_newest_records(monkeypatch):
    over = timezone.now() - timedelta(minutes=5)
    for number in range(1, 5):
        record("in_progress", number, ends_at=over)

    assert {row.pk.int & 7 for row in stuck.abandoned(IdempotencyRecord.objects.all())} == {
        1,
        2,
        3,
        4,
    }
    assert {row.pk.int & 7 for row in stuck.newest(IdempotencyRecord.objects.all(), 2)} == {3, 4}


def test_few_statements_are_sent(django_assert_max_num_queries):
    count("replayed")
    log()
    with django_assert_max_num_queries(11):
        summarize(WINDOWS["30d"])


def test_numbers_are_read_where_they_are_kept(settings):
    count("replayed")
    settings.IDEMPOTENCY_STATISTICS = {"USING": "other"}

    assert summarize(WINDOWS["1h"]).duplicates == 0
    assert summarize(WINDOWS["1h"], using="default").duplicates == 1


def test_times_without_zones_are_understood(settings):
    settings.USE_TZ = False
    settings.TIME_ZONE = "America/New_York"
    count("replayed", 5)
    summary = summarize(WINDOWS["1h"])

    assert summary.duplicates == 5
    assert summary.bars[-1].counts == {"replayed": 5}
    assert set(DUPLICATES) >= summary.calls.keys()
    assert timezone.is_naive(summary.until)
    assert Statistic.objects.count() == 1
