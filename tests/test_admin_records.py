"""Records in the admin: found fast, shown whole to those who may, and decided about once."""

import uuid
from datetime import timedelta

import pytest
from django.contrib.admin import site
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.contrib.messages import get_messages
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from idempotency import OutcomeUnknown, StaleClaim, run_once
from idempotency.admin import filters, paging
from idempotency.admin.answers import shown
from idempotency.admin.made import Made, made_by
from idempotency.http.attributes import NAME
from idempotency.keys import new_token, record_id
from idempotency.models import CallLog, IdempotencyRecord, TransitionLog
from idempotency.statistics import stuck
from tests.conftest import IN_BOTH, end_leases
from tests.test_summary import LONG_BEHIND, count

pytestmark = pytest.mark.django_db
committing = pytest.mark.django_db(transaction=True)
User = get_user_model()

EVIL = '<script>alert(1)</script>"><img src=x onerror=alert(1)>'
LIST = "admin:idempotency_idempotencyrecord_changelist"


def staff(*permissions, name="ada"):
    user = User.objects.create_user(name, is_staff=True)
    named = Permission.objects.filter(content_type__app_label="idempotency")
    user.user_permissions.set(named.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture(autouse=True)
def no_operations_remembered():
    filters._operations.cache_clear()


@pytest.fixture
def admin():
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    return client


def record(
    state="completed", key="key", *, scope="user:1", operation="place", using="default", **facts
):
    now = timezone.now()
    facts = {"created_at": now, "purge_after": now + timedelta(hours=25), **facts}
    if state == "completed":
        facts = {"status": 201, "body": b'{"order": 7}', "completed_at": now, **facts}
        facts = {"headers": [["Content-Type", "application/json"]], **facts}
        facts = {"expires_at": now + timedelta(hours=24), **facts}
    return IdempotencyRecord.objects.using(using).create(
        id=record_id(scope, operation, key),
        state=state,
        token=new_token(),
        scope=scope,
        operation=operation,
        key=key,
        **facts,
    )


def log(row, outcome="replayed", **facts):
    facts = {"at": timezone.now(), "operation": row.operation, "scope": row.scope, **facts}
    return CallLog.objects.create(record_id=row.pk, outcome=outcome, **facts)


def url(page, row):
    return reverse(f"admin:idempotency_idempotencyrecord_{page}", args=[row.pk])


def listed(client, **query):
    response = client.get(reverse(LIST), query)
    assert response.status_code == 200
    return [row.key for row in response.context["cl"].result_list]


def said(response):
    return [str(message) for message in get_messages(response.wsgi_request)]


class TestList:
    def test_newest_records_come_first_with_how_often_they_were_repeated(self, admin):
        old = record(key="old", purge_after=timezone.now())
        record(key="new")
        log(old)
        log(old, "reused")
        log(old, "decided")
        response = admin.get(reverse(LIST))

        rows = response.context["cl"].result_list
        assert [(row.key, row.duplicates) for row in rows] == [("new", 0), ("old", 2)]
        assert "201, 12\xa0bytes" in response.text

    def test_number_of_statements_does_not_grow_with_the_rows(
        self, admin, django_assert_max_num_queries
    ):
        for number in range(30):
            log(record(key=f"key {number}"))
        with django_assert_max_num_queries(8):
            admin.get(reverse(LIST))

    @pytest.mark.parametrize(
        "term",
        [
            "this key",
            "  this key ",
            "user:1 place this key",
            str(record_id("user:1", "place", "this key")),
        ],
    )
    def test_search_finds_what_is_given_whole(self, admin, term):
        record(key="this key")
        record(key="this")

        assert listed(admin, q=term) == ["this key"]

    @pytest.mark.parametrize("term", ["this", "key", "place", EVIL])
    def test_search_finds_no_parts(self, admin, term):
        record(key="this key")

        assert listed(admin, q=term) == []

    def test_states_are_told_apart(self, admin):
        now = timezone.now()
        record("completed", "completed")
        record("released", "released")
        record("unknown", "unknown", purge_after=LONG_BEHIND)
        record("in_progress", "running", ends_at=now + timedelta(minutes=5))
        record("in_progress", "dead", ends_at=now - timedelta(minutes=5))

        found = {name: sorted(listed(admin, state=name)) for name in filters.STATES}
        assert found == {
            "unknown": ["unknown"],
            "stuck": ["dead"],
            "in_progress": ["dead", "running"],
            "completed": ["completed"],
            "released": ["released"],
        }
        text = admin.get(reverse(LIST)).text
        assert "over for 5 min" in text
        assert "left" in text

    def test_operations_can_be_chosen_that_were_called(self, admin):
        count("executed", name="place")
        record(operation="place", key="a")
        record(operation="pay", key="b")

        assert listed(admin, operation="place") == ["a"]
        assert listed(admin, operation="pay") == ["b"]
        assert "?operation=place" in admin.get(reverse(LIST)).text

    def test_filters_look_at_the_newest_and_say_so(self, admin, monkeypatch):
        for number in range(3):
            record(key=f"{number}", purge_after=timezone.now() + timedelta(hours=number))
        monkeypatch.setattr(stuck.newest, "__defaults__", (2,))

        assert listed(admin, state="completed") == ["2", "1"]
        assert "Filters look at the newest" in admin.get(reverse(LIST), {"state": "completed"}).text
        assert "Filters look at the newest" not in admin.get(reverse(LIST)).text

    def test_only_so_many_are_counted(self, admin, monkeypatch):
        for number in range(3):
            record(key=f"{number}")
        monkeypatch.setattr(paging, "MOST", 2)

        response = admin.get(reverse(LIST))
        assert response.context["cl"].result_count == 2

    def test_filter_that_does_not_exist_is_told_as_the_admin_does(self, admin):
        response = admin.get(reverse(LIST), {"no_such_field": "x"})

        assert (response.status_code, response.url) == (302, f"{reverse(LIST)}?e=1")

    def test_nothing_can_be_added_changed_or_deleted(self, admin):
        row = record()

        assert admin.get(reverse("admin:idempotency_idempotencyrecord_add")).status_code == 403
        for name in ("delete", "history"):
            admin.get(url(name, row))
        assert admin.post(url("delete", row), {"post": "yes"}).status_code == 403
        assert "action" not in admin.get(reverse(LIST)).context["cl"].list_display
        assert IdempotencyRecord.objects.count() == 1

    @pytest.mark.skipif("connection.vendor != 'postgresql'", reason="a plan of PostgreSQL")
    def test_list_and_search_use_the_indexes(self, admin):
        record()
        from django.test.utils import CaptureQueriesContext

        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL enable_seqscan = off")
        with CaptureQueriesContext(connection) as sent:
            listed(admin)
            listed(admin, q="key")
        selects = [
            one["sql"] for one in sent if 'FROM "idempotency_idempotencyrecord"' in one["sql"]
        ]
        plans = []
        with connection.cursor() as cursor:
            for sql in selects:
                cursor.execute(f"EXPLAIN {sql}")
                plans.append(" ".join(row[0] for row in cursor.fetchall()))

        assert all("Index" in plan for plan in plans if "WHERE" in plan or "ORDER" in plan), plans


class TestDetail:
    def test_timeline_has_the_first_call_every_duplicate_and_take_overs(self, admin):
        row = record()
        log(row, "replayed", status=201, seconds=0.004, request_id="r-7", worker="web:1")
        log(row, "reused", differences=["/body/amount", ""])
        log(row, "taken_over")
        text = admin.get(url("change", row)).text

        for words in (
            "First call",
            "Completed",
            "Replayed",
            "4.0 ms",
            "request r-7",
            "on web:1",
            "<code>/body/amount</code>",
            "<code>/</code>",
            "Taken over",
        ):
            assert words in text
        assert text.index("First call") < text.index("Replayed")

    def test_transitions_of_the_call_and_what_they_moved_are_shown(self, admin):
        row = record()
        for model in ("orders.order", "tests.letter", "gone.model", "no model"):
            TransitionLog.objects.create(
                model=model,
                object_id="7",
                field="status",
                transition="pay",
                source="placed",
                target="paid",
                record_id=row.pk,
                created_at=timezone.now(),
            )
        text = admin.get(url("change", row)).text

        assert f'<a href="{reverse("admin:orders_order_change", args=["7"])}">order 7</a>' in text
        assert "letter 7" in text
        assert "gone.model 7" in text
        assert "placed → paid" in text

    def test_what_was_moved_has_no_link_where_its_page_is_not_served(self, rf, settings):
        settings.ROOT_URLCONF = type("Urls", (), {"urlpatterns": []})
        entry = TransitionLog(model="orders.order", object_id="7")
        request = rf.get("/")
        request.user = User(is_active=True, is_superuser=True)

        assert made_by([entry, entry], site, request) == [Made("order 7", "")]

    def test_answer_is_for_those_who_may_read_it(self):
        row = record()
        may, may_not = (
            staff("view_idempotencyrecord", "view_answer"),
            staff("view_idempotencyrecord", name="bob"),
        )

        assert "&quot;order&quot;: 7" in may.get(url("change", row)).text
        text = may_not.get(url("change", row)).text
        assert "order&quot;" not in text
        assert "You may not see what was answered." in text

    @pytest.mark.parametrize(
        ("facts", "words"),
        [
            ({"body": b"\xff\xfe\x00"}, "3\xa0bytes, binary"),
            ({"body": b"x" * 100_001}, "The rest is not shown."),
            ({"body": None}, "The body was not kept."),
            ({"body": b"not json {"}, "not json {"),
            ({"body": None, "status": None}, "None is stored."),
        ],
    )
    def test_every_kind_of_body_is_shown_as_it_can_be(self, admin, facts, words):
        assert words in admin.get(url("change", record(**facts))).text

    def test_whatever_stands_in_a_record_is_only_text(self, admin):
        row = record(
            key=EVIL,
            scope=EVIL,
            operation=EVIL,
            body=EVIL.encode(),
            headers=[["Location", "javascript:alert(1)"], [EVIL, EVIL]],
        )
        log(
            row, "reused", request_id=EVIL[:64], worker=EVIL, differences=[EVIL], by=EVIL, note=EVIL
        )
        for page in (url("change", row), url("expire", row), reverse(LIST)):
            text = admin.get(page).text
            assert "<script>alert" not in text
            assert "<img src=x" not in text
            assert 'href="javascript:' not in text

    @pytest.mark.parametrize(
        ("location", "link"),
        [
            ("/orders/7/", "/orders/7/"),
            ("https://shop.example/7", "https://shop.example/7"),
            ("javascript:alert(1)", ""),
            ("data:text/html,x", ""),
            ("//[", ""),
            ("java\nscript:x", ""),
        ],
    )
    def test_location_is_a_link_only_to_the_web(self, location, link):
        assert shown(record(headers=[["location", location]])).location == link

    def test_record_that_is_gone_is_told(self, admin):
        for page in ("change", "release"):
            gone = reverse(f"admin:idempotency_idempotencyrecord_{page}", args=[uuid.uuid4()])
            response = admin.get(gone)
            assert (response.status_code, response["Location"]) == (302, reverse(LIST))
            assert "any more" in said(response)[-1]

    def test_stranger_sees_nothing(self):
        row = record()
        client = staff()

        for page in (reverse(LIST), url("change", row), url("expire", row)):
            assert client.get(page).status_code == 403


class TestDecisions:
    def mark(self, client, page):
        return client.get(page).context["seen"]

    def decide(self, client, page, *, seen=None, **sent):
        seen = self.mark(client, page) if seen is None else seen
        return client.post(page, {"seen": seen, "reason": "asked by phone", **sent})

    def test_abandoned_claim_is_released_with_a_reason(self, admin):
        row = record("in_progress", ends_at=timezone.now() - timedelta(minutes=5))
        response = self.decide(admin, url("release", row))
        row.refresh_from_db()

        assert row.state == "released"
        assert said(response) == ["The key is free."]
        entry = LogEntry.objects.get()
        assert entry.change_message == "Release the claim: asked by phone"
        logged = CallLog.objects.get(record_id=row.pk)
        user = User.objects.get()
        assert (logged.outcome, logged.by) == ("decided", f"user:{user.pk}")
        assert logged.note == "Release the claim: asked by phone"
        text = admin.get(url("change", row)).text
        assert "asked by phone" in text
        assert "Release the claim</a>" not in text

    def test_live_claim_is_never_released_by_accident(self, admin):
        row = record("in_progress", ends_at=timezone.now() + timedelta(minutes=5))
        refused = self.decide(admin, url("release", row))
        row.refresh_from_db()
        assert (refused.status_code, row.state) == (200, "in_progress")
        assert "sure" in refused.context["form"].errors

        self.decide(admin, url("release", row), sure="on")
        row.refresh_from_db()
        assert row.state == "released"

    @pytest.mark.skipif(connection.vendor == "sqlite", reason="no other writer while one works")
    @committing
    def test_run_whose_claim_is_taken_from_it_cannot_complete(self, admin):
        from tests.conftest import elsewhere

        def take_away():
            page = url("release", IdempotencyRecord.objects.get())
            self.decide(admin, page, sure="on")

        def work():
            elsewhere(take_away)

        with pytest.raises(StaleClaim):
            run_once(work, scope="s", operation="o", key="key", mode="lease")
        assert IdempotencyRecord.objects.get().state == "released"

    def test_what_an_expired_record_was_stays_in_its_timeline(self, admin):
        done = timezone.now()
        row = record(created_at=done - timedelta(seconds=3), completed_at=done)
        self.decide(admin, url("expire", row))
        page = admin.get(url("change", row))

        told = [(one.what, one.status, one.seconds) for one in page.context["timeline"]]
        assert told[:2] == [("First call", None, None), ("Executed", 201, 3.0)]
        assert {one[0] for one in told[2:]} == {"Released", "Decided"}
        assert "The key is free, and the next call with it runs." in page.text
        assert "no lasting effect" not in page.text

    def test_reason_is_asked_for(self, admin):
        row = record()
        response = self.decide(admin, url("expire", row), reason=" ")

        assert "reason" in response.context["form"].errors
        assert IdempotencyRecord.objects.get().state == "completed"

    def test_second_click_changes_nothing(self, admin):
        row = record()
        seen = self.mark(admin, url("expire", row))
        self.decide(admin, url("expire", row), seen=seen)
        second = self.decide(admin, url("expire", row), seen=seen)

        assert said(second)[-1] == "The record is in another state. Nothing was done."
        assert LogEntry.objects.count() == 1

    def test_record_that_has_changed_since_is_left_alone(self, admin):
        row = record()
        seen = self.mark(admin, url("expire", row))
        IdempotencyRecord.objects.update(token=row.token + 1)
        response = self.decide(admin, url("expire", row), seen=seen)

        assert said(response)[-1] == "It has changed since you looked. Nothing was done."
        assert IdempotencyRecord.objects.get().state == "completed"

    @pytest.mark.parametrize("seen", ["", "forged", "a:b:c"])
    def test_page_that_was_not_shown_decides_nothing(self, admin, seen):
        row = record()
        self.decide(admin, url("expire", row), seen=seen)

        assert IdempotencyRecord.objects.get().state == "completed"

    @committing
    def test_unknown_outcome_that_took_effect_is_replayed_as_resolved(self, admin):
        row = record("unknown", purge_after=LONG_BEHIND)
        with pytest.raises(OutcomeUnknown):
            run_once(lambda: "again", scope="user:1", operation="place", key="key")
        self.decide(
            admin, url("resolve", row), outcome="completed", status="201", body='{"order": 7}'
        )

        outcome = run_once(lambda: "again", scope="user:1", operation="place", key="key")
        assert (outcome.result, outcome.replayed) == ({"order": 7}, True)

    @committing
    def test_unknown_outcome_without_effect_lets_the_next_call_run(self, admin):
        row = record("unknown", purge_after=LONG_BEHIND)
        self.decide(admin, url("resolve", row), outcome="released")

        outcome = run_once(lambda: "again", scope="user:1", operation="place", key="key")
        assert (outcome.result, outcome.replayed) == ("again", False)

    @pytest.mark.parametrize(
        "sent",
        [
            {},
            {"outcome": "completed", "body": "{"},
            {"outcome": "completed", "status": "99", "body": "{}"},
            {"outcome": "else"},
        ],
    )
    def test_resolution_that_says_nothing_is_shown_again(self, admin, sent):
        row = record("unknown", purge_after=LONG_BEHIND)
        response = self.decide(admin, url("resolve", row), **sent)

        assert response.context["form"].errors
        assert IdempotencyRecord.objects.get().state == "unknown"

    @committing
    def test_outcome_that_Redis_has_as_well_is_decided_for_both(self, admin, settings, empty_redis):
        settings.IDEMPOTENCY_STORES = {"default": IN_BOTH}

        def call(**options):
            return run_once(lambda: 7, scope="s", operation="o", key="key", **options)

        assert call().result == 7
        self.decide(admin, url("expire", IdempotencyRecord.objects.get()))

        assert call().replayed is False

    def test_store_that_cannot_be_made_or_reached_is_told(
        self, admin, settings, empty_redis, own_redis
    ):
        row = record()
        seen = self.mark(admin, url("expire", row))
        settings.IDEMPOTENCY_STORES = {"default": {"BACKEND": "no.such.Store"}}
        assert said(admin.get(url("expire", row))) == ["The store cannot be reached now."]

        options = {"cache": "own", "record": True}
        settings.IDEMPOTENCY_STORES = {"default": IN_BOTH | {"OPTIONS": options}}
        own_redis.stop()
        response = self.decide(admin, url("expire", row), seen=seen)
        assert said(response)[-1] == "The store cannot be reached now."

    def test_record_that_is_no_longer_its_key_s_is_left_alone(self, admin):
        row = record()
        IdempotencyRecord.objects.update(key="another")
        response = admin.get(url("expire", row))

        assert said(response) == ["The record is in another state. Nothing was done."]

    @pytest.mark.django_db(databases=["default", "other"])
    def test_records_of_each_database_are_found_and_decided_about(self, admin, settings):
        row = record("unknown", "a key", using="other", purge_after=LONG_BEHIND)
        unseen = record(key="elsewhere")
        stores = {"default": {}, "billing": {"OPTIONS": {"using": "other"}}}
        settings.IDEMPOTENCY_STORES = stores
        both = admin.get(reverse(LIST)).context["cl"]
        there = admin.get(reverse(LIST), {"database": "other", "state": "unknown"})
        answer = {"reason": "the bank says no", "outcome": "released"}
        self.decide(admin, url("resolve", row), **answer)

        assert [*both.result_list] == [unseen]
        assert [*there.context["cl"].result_list] == [row]
        assert "?database=default" in there.text
        assert "a key" in admin.get(url("change", row)).text
        row.refresh_from_db(using="other")
        assert row.state == "released"

        settings.IDEMPOTENCY_STORES = {"billing": stores["billing"]}
        assert [*admin.get(reverse(LIST)).context["cl"].result_list] == [row]
        gone = admin.get(url("change", unseen))
        assert said(gone) == [f"There is no record “{unseen.pk}” any more."]

    @pytest.mark.parametrize(
        ("page", "state", "permission"),
        [
            ("release", "in_progress", "release_record"),
            ("resolve", "unknown", "resolve_record"),
            ("expire", "completed", "expire_record"),
        ],
    )
    def test_each_decision_has_a_permission_of_its_own(self, page, state, permission):
        ends_at = timezone.now() if state == "in_progress" else None
        row = record(state, ends_at=ends_at)
        everything = ("release_record", "resolve_record", "expire_record")
        others = [name for name in everything if name != permission]
        may = staff("view_idempotencyrecord", permission)
        may_not = staff("view_idempotencyrecord", *others, name="bob")

        assert may.get(url(page, row)).status_code == 200
        assert url(page, row) in may.get(url("change", row)).text
        assert may_not.get(url(page, row)).status_code == 403
        assert may_not.post(url(page, row), {"reason": "x"}).status_code == 403
        assert url(page, row) not in may_not.get(url("change", row)).text

    def test_decision_needs_a_csrf_token(self, admin):
        row = record()
        page = url("expire", row)
        strict = Client(enforce_csrf_checks=True)
        strict.force_login(User.objects.get())

        assert strict.post(page, {"seen": self.mark(admin, page), "reason": "x"}).status_code == 403

    def test_leases_in_other_zones_are_understood(self, admin, settings):
        settings.USE_TZ = False
        now = timezone.now().replace(tzinfo=None)
        row = record("in_progress", ends_at=now - timedelta(minutes=5))

        assert "over for 5 min" in admin.get(url("change", row)).text
        end_leases()


def test_what_is_kept_for_middleware_is_no_header_to_be_shown():
    headers = [["Content-Type", "text/html"], [NAME, '{"xframe_options_exempt": true}']]

    assert shown(IdempotencyRecord(headers=headers)).headers == headers[:1]
