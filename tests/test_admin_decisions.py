"""What a person decides about a record: for every store that has it, once, and never unlogged."""

from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.db.utils import ConnectionDoesNotExist
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from idempotency import StaleClaim, run_once
from idempotency.admin import deciding, paging
from idempotency.admin.answers import shown
from idempotency.keys import new_token
from idempotency.models import CallLog, IdempotencyRecord
from idempotency.stores import get_store
from idempotency.stores.base import Answer, Bid, Call
from tests.conftest import IN_BOTH
from tests.test_admin_records import LIST, record, said, url
from tests.test_summary import LONG_BEHIND

pytestmark = pytest.mark.django_db
committing = pytest.mark.django_db(transaction=True)

WITH_REDIS = {"default": {}, "fast": IN_BOTH}
IN_ANOTHER_REDIS = IN_BOTH | {"OPTIONS": IN_BOTH["OPTIONS"] | {"cache": "locks"}}
UNREACHABLE = IN_BOTH | {"OPTIONS": IN_BOTH["OPTIONS"] | {"cache": "nowhere"}}
NOWHERE = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": "redis://127.0.0.1:1/0"}


@pytest.fixture
def desk():
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("root"))
    return client


def mark_on(client, page):
    return client.get(page).context["seen"]


def decide(client, name, row, **sent):
    page = url(name, row)
    return client.post(page, {"seen": mark_on(client, page), "reason": "by phone", **sent})


def state_of(row):
    return IdempotencyRecord.objects.get(pk=row.pk).state


def five_minutes(sign):
    return timezone.now() + sign * timedelta(minutes=5)


# Which stores decide


@committing
def test_stuck_claim_is_released_though_another_store_keeps_outcomes_in_redis(
    desk, settings, empty_redis
):
    settings.IDEMPOTENCY_STORES = WITH_REDIS
    row = record("in_progress", ends_at=five_minutes(-1))

    decide(desk, "release", row)

    assert state_of(row) == "released"


@committing
def test_outcome_is_decided_for_every_redis_that_may_have_it(desk, settings, empty_redis):
    settings.IDEMPOTENCY_STORES = {"default": IN_BOTH, "fast": IN_ANOTHER_REDIS}
    options = {"scope": "s", "operation": "o", "key": "key", "store": "fast"}
    run_once(lambda: 7, **options)

    decide(desk, "expire", IdempotencyRecord.objects.get())

    assert run_once(lambda: 8, **options).result == 8


@committing
def test_nothing_is_decided_if_a_store_cannot_be_told(desk, settings, empty_redis):
    settings.CACHES = settings.CACHES | {"nowhere": NOWHERE}
    settings.IDEMPOTENCY_STORES = {"default": UNREACHABLE}
    row = record()

    answer = decide(desk, "expire", row)

    assert said(answer)[-1] == "The store cannot be reached now."
    assert state_of(row) == "completed"
    assert not LogEntry.objects.exists()
    assert not CallLog.objects.exists()


def test_outcome_is_kept_for_the_longest_retention_of_its_database(desk, settings):
    settings.IDEMPOTENCY_STORES = {"default": {"RETENTION": 60}, "money": {"RETENTION": 900}}
    row = record("unknown", purge_after=LONG_BEHIND)

    decide(desk, "resolve", row, outcome="completed", status="200", body="{}")

    row.refresh_from_db()
    assert round((row.expires_at - row.completed_at).total_seconds()) == 900


def test_record_under_the_id_of_another_is_left_alone(desk):
    named, other = record(key="named"), record(key="other")
    IdempotencyRecord.objects.filter(pk=other.pk).update(key="named")

    answer = desk.get(url("expire", other))

    assert said(answer) == ["The record is in another state. Nothing was done."]
    assert state_of(named) == "completed"


# Once, and only on what was seen


@committing
def test_claim_that_was_released_cannot_be_completed(desk):
    store, call = get_store(), Call("s", "o", "key")
    claim = store.claim(call, Bid(new_token(), 30, 60))

    decide(desk, "release", IdempotencyRecord.objects.get(), sure="on")

    with pytest.raises(StaleClaim):
        store.settle(claim, "completed", Answer(200), 60)


def test_claim_that_was_renewed_meanwhile_asks_whether_that_is_meant(desk):
    row = record("in_progress", ends_at=five_minutes(-1))
    page = url("release", row)
    seen = mark_on(desk, page)
    IdempotencyRecord.objects.update(ends_at=five_minutes(+1))

    answer = desk.post(page, {"seen": seen, "reason": "by phone"})

    assert "sure" in answer.context["form"].errors
    assert state_of(row) == "in_progress"


def test_record_that_is_purged_meanwhile_is_told(desk):
    row = record()
    page = url("expire", row)
    seen = mark_on(desk, page)
    keeper = deciding.keeper_of(row)
    IdempotencyRecord.objects.all().delete()

    answer = desk.post(page, {"seen": seen, "reason": "by phone"})

    assert "any more" in said(answer)[-1]
    assert keeper.look_again() is None


def test_decision_that_cannot_be_logged_is_not_taken(desk, settings):
    row = record()
    settings.IDEMPOTENCY_STATISTICS = {"USING": "no such database"}

    with pytest.raises(ConnectionDoesNotExist):
        decide(desk, "expire", row)

    assert state_of(row) == "completed"


# What is entered


@pytest.mark.parametrize("body", ["", "{", "NaN", "[" * 20_000])
def test_body_that_no_caller_could_read_is_refused(desk, body):
    row = record("unknown", purge_after=LONG_BEHIND)

    answer = decide(desk, "resolve", row, outcome="completed", status="200", body=body)

    assert answer.context["form"].errors["body"] == ["This is not JSON."]


def test_answer_without_content_has_no_body(desk):
    row = record("unknown", purge_after=LONG_BEHIND)

    decide(desk, "resolve", row, outcome="completed", status="204", body="{}")

    row.refresh_from_db()
    assert (row.status, row.headers, bytes(row.body)) == (204, [], b"")


# Counting


@pytest.mark.parametrize(("rows", "told"), [(2, False), (3, True)])
def test_only_what_is_not_counted_is_told_of(desk, monkeypatch, rows, told):
    monkeypatch.setattr(paging, "MOST", 2)
    for number in range(rows):
        record(key=f"{number}")

    page = desk.get(reverse(LIST))

    assert page.context["cl"].result_count == 2
    assert ("There are more than" in page.text) is told


# Answers as they are shown


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"a":[1,2.5,"\\u00e9"]}', '{\n  "a": [\n    1,\n    2.5,\n    "é"\n  ]\n}'),
        (b'{"amount":12.50}', '{"amount":12.50}'),
        (b'"\\ud800"', '"\\ud800"'),
        (b"[" * 20_000, "[" * 20_000),
        (b"plain", "plain"),
        (b"\x00\x01", None),
        (b"\xff", None),
    ],
)
def test_body_is_shown_without_changing_a_value(body, text):
    assert shown(record(body=body)).text == text


def test_page_of_an_answer_with_half_a_character_opens(desk):
    assert desk.get(url("change", record(body=b'"\\ud800"'))).status_code == 200


@pytest.mark.parametrize("location", [" javascript:alert(1)", "\tjavascript:alert(1)", " /x"])
def test_location_with_space_around_it_is_no_link(location):
    assert shown(record(headers=[["Location", location]])).location == ""
