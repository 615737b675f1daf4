"""The page "Locks and duplicates": the numbers of the summary, for those who may see them."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.core import signing
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import translation

from idempotency import StaleLock, lock
from idempotency.admin import eviction, words
from idempotency.admin.chart import chart_of
from idempotency.locks.base import LiveLock
from idempotency.models import LockLease
from idempotency.statistics.figures import DUPLICATES, Bar
from tests.conftest import elsewhere
from tests.test_admin_records import EVIL, said, staff
from tests.test_summary import LONG_BEHIND, count, log, record

pytestmark = pytest.mark.django_db(databases=["default", "other"], transaction=True)
PAGE = "admin:idempotency_statistic_changelist"
RELEASE = "admin:idempotency_statistic_release"
User = get_user_model()


@pytest.fixture(autouse=True)
def locks(settings):
    settings.IDEMPOTENCY_LOCKS = {"default": {}}


@pytest.fixture
def admin():
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    return client


def page(client, **query):
    response = client.get(reverse(PAGE), query)
    assert response.status_code == 200
    return response


def texts(html):
    """Give the words of a page, without its marks."""
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


class TestPage:
    def test_numbers_are_those_of_the_summary(self, admin):
        count("executed", 40, each=0.25)
        count("replayed", 1_234)
        count("lost", 2)
        count("taken_over", 3)
        count("turned_away", 3, kind="lock", name="order:…", each=0.5)
        count("stale", 2, kind="row", name="orders.order")
        log(scope="user:7")
        stuck = record("unknown", purge_after=LONG_BEHIND)
        with lock("nightly"):
            text = page(admin).text

        for shown in (
            "Duplicates stopped 1,234",
            "Calls 1,276",
            "Work saved 5 min 8 s",
            "Lost 2",
            "Taken over 3",
            "user:7",
            "order:…",
            "orders.order",
            "nightly",
        ):
            assert shown in texts(text)
        assert reverse("admin:idempotency_idempotencyrecord_change", args=[stuck.pk]) in text

    def test_page_without_anything_says_what_it_will_show(self, admin):
        text = page(admin).text

        assert "As soon as a key, a lock or a transition is repeated, it shows here." in text
        assert "<svg viewBox" not in text
        assert "None in “default”." in text

    @pytest.mark.parametrize("window", ["1h", "24h", "7d", "30d"])
    def test_window_can_be_chosen(self, admin, window):
        count("replayed", 5, ago=7_200)
        response = page(admin, window=window)

        assert f'<a href="?window={window}" aria-current="page">' in response.text
        assert response.context["summary"].duplicates == (0 if window == "1h" else 5)

    def test_unknown_window_is_the_usual_one(self, admin):
        assert page(admin, window="9y").context["summary"].window.name == "24h"

    def test_programs_get_the_same_numbers(self, admin):
        count("replayed", 5)
        found = page(admin, format="json").json()

        assert (found["duplicates"], found["window"]["name"]) == (5, "24h")
        assert found["held_locks"][0]["alias"] == "default"

    def test_part_is_the_page_without_its_frame(self, admin):
        count("replayed", 5)
        text = page(admin, format="part").text

        assert "<html" not in text
        assert "Duplicates stopped 5" in texts(text)

    def test_it_has_an_entry_of_its_own(self, admin):
        text = admin.get(reverse("admin:index")).text

        assert f'<a href="{reverse(PAGE)}"' in text
        assert "Locks and duplicates" in text

    @pytest.mark.parametrize(
        ("permissions", "status"), [(["view_statistic"], 200), (["view_locklease"], 403), ([], 403)]
    )
    def test_only_those_see_it_who_may(self, permissions, status):
        client = staff(*permissions)

        for query in ({}, {"format": "json"}, {"format": "part"}):
            assert client.get(reverse(PAGE), query).status_code == status

    def test_it_says_that_nothing_is_counted(self, admin, settings):
        settings.IDEMPOTENCY_STATISTICS = False

        assert "nothing is counted" in page(admin).text

    def test_names_of_whatever_kind_are_only_text(self, admin):
        for kind in ("call", "lock", "row"):
            for outcome in ("replayed", "taken", "stale"):
                count(outcome, name=EVIL, kind=kind)
        log(scope=EVIL, operation=EVIL)
        row = record("unknown", purge_after=LONG_BEHIND)
        type(row).objects.update(operation=EVIL, scope=EVIL)
        with lock(EVIL):
            text = page(admin).text

        assert "<script>alert" not in text
        assert "<img src=x" not in text
        assert "&lt;script&gt;" in text

    def test_backend_that_is_away_is_named(self, admin, settings, own_redis):
        backend = "idempotency.locks.redis.RedisLockBackend"
        settings.IDEMPOTENCY_LOCKS = {"default": {"BACKEND": backend, "OPTIONS": {"cache": "own"}}}
        own_redis.stop()

        assert "The locks in “default” are not known" in page(admin).text

    def test_few_statements_are_sent(self, admin, django_assert_max_num_queries):
        for number in range(20):
            log(number=number)
            count("replayed", name=f"{number}")
        with django_assert_max_num_queries(16):
            page(admin)

    def test_nothing_inline_that_a_strict_policy_would_forbid(self, admin):
        count("replayed", 5)
        with lock("nightly"):
            text = page(admin, format="part").text + page(admin).text.split('id="content-main"')[1]

        own = text.split('<div id="footer"')[0]
        assert " style=" not in own
        assert not re.search(r"\son\w+=", own)
        assert not re.search(r"<script(?![^>]*\ssrc=)", own)

    def test_language_of_the_reader_is_used(self, admin):
        count("replayed", 1_234_567)
        with translation.override("de"):
            text = page(admin, format="part").text

        assert "1.234.567" in text or "1,234,567" in text
        assert 'viewBox="0 0 960 240"' in text


class TestRelease:
    def link(self, client):
        found = re.search(r'class="idempotency-release" href="([^"]+)"', page(client).text)
        return found and found[1].replace("&amp;", "&")

    def test_lock_is_released_with_a_reason(self, admin):
        def release():
            address = self.link(admin)
            shown = admin.get(address)
            assert "nightly" in shown.text
            sent = {"lock": shown.context["seen"], "reason": "its host is gone"}
            answer = admin.post(reverse(RELEASE), sent)
            assert said(answer) == ["“nightly” is free. Whoever held it finds it lost."]

        with pytest.raises(StaleLock), lock("nightly"):
            elsewhere(release)
        entry = LogEntry.objects.get()
        assert "its host is gone" in entry.change_message
        assert entry.object_repr == "nightly"

    def test_lock_of_another_holder_by_now_stays(self, admin):
        with lock("nightly"):
            seen = self.link(admin).partition("lock=")[2]
        with lock("nightly"):
            answer = admin.post(reverse(RELEASE), {"lock": seen, "reason": "x"})

        assert "has another holder by now, or none. Nothing was done." in said(answer)[-1]
        assert not LogEntry.objects.exists()

    def test_reason_is_asked_for(self, admin):
        with lock("nightly"):
            seen = self.link(admin).partition("lock=")[2]
            answer = admin.post(reverse(RELEASE), {"lock": seen})

        assert answer.status_code == 200
        assert answer.context["form"].errors

    @pytest.mark.parametrize("forge", [str, lambda: "forged", lambda: signing.dumps(["default"])])
    def test_lock_that_was_not_shown_is_not_released(self, admin, forge):
        answer = admin.post(reverse(RELEASE), {"lock": forge(), "reason": "x"})

        assert said(answer) == ["That page is too old: look again."]

    def test_backend_that_is_away_is_told(self, admin, monkeypatch):
        lost = LiveLock("nightly", "me", 1, None, None)
        seen = eviction.seen_lock("default", lost)
        monkeypatch.setitem(LockLease._meta.__dict__, "db_table", "no_table")
        answer = admin.post(reverse(RELEASE), {"lock": seen, "reason": "x"})

        assert said(answer) == ["“nightly” cannot be reached now."]

    def test_it_has_a_permission_of_its_own(self):
        may = staff("view_statistic", "release_lock")
        may_not = staff("view_statistic", name="bob")
        with lock("nightly"):
            address = self.link(may)
            assert self.link(may_not) is None
        assert may_not.get(address).status_code == 403
        assert may_not.post(address, {"reason": "x"}).status_code == 403

    @pytest.mark.skipif(connection.vendor != "postgresql", reason="locks of PostgreSQL")
    def test_lock_that_nobody_else_can_free_has_no_button(self, admin, settings):
        backend = "idempotency.locks.postgres.AdvisoryLockBackend"
        settings.IDEMPOTENCY_LOCKS = {"default": {"BACKEND": backend}}
        with lock("nightly"):
            assert "nightly" in page(admin).text
            assert self.link(admin) is None


class TestChart:
    def bars(self, *counts):
        start = datetime(2026, 11, 26, 9, tzinfo=UTC)
        return [Bar(start + timedelta(hours=n), each) for n, each in enumerate(counts)]

    def test_boxes_stand_on_each_other_up_to_the_highest(self):
        chart = chart_of(self.bars({"replayed": 6, "reused": 4}, {}, {"unknown": 5}), days=False)

        first, empty, last = chart.columns
        low, high = first.boxes
        assert (low.kind, high.kind) == ("replayed", "reused")
        assert low.y == pytest.approx(high.y + high.height, abs=0.02)
        assert low.y + low.height == pytest.approx(chart.bottom, abs=0.02)
        assert high.y == pytest.approx(chart.top, abs=0.02)
        assert empty.boxes == []
        assert last.boxes[0].height == pytest.approx((low.height + high.height) / 2, abs=0.03)

    @pytest.mark.parametrize(
        ("highest", "lines"),
        [
            (0, ["0", "1"]),
            (1, ["0", "1"]),
            (7, ["0", "2", "4", "6", "8"]),
            (99, ["0", "20", "40", "60", "80", "100"]),
            (1_234, ["0", "500", "1,000", "1,500"]),
        ],
    )
    def test_axis_has_round_numbers(self, highest, lines):
        chart = chart_of(self.bars({"replayed": highest}), days=False)

        assert [line.text for line in chart.lines] == lines

    def test_table_and_legend_say_the_same_as_the_bars(self):
        chart = chart_of(self.bars({"replayed": 6, "reused": 4}, {}, {"replayed": 5}), days=True)

        assert [(kind, total) for kind, _, total in chart.kinds] == [
            ("replayed", "11"),
            ("reused", "4"),
        ]
        assert [row.counts for row in chart.rows] == [["6", "4"], ["5", "0"]]
        assert chart.total == 15
        assert "Replayed: 6" in chart.columns[0].title

    def test_many_bars_have_few_labels(self):
        assert len(chart_of(self.bars(*[{}] * 84), days=True).places) <= 7


class TestWords:
    @pytest.mark.parametrize(
        ("seconds", "shown"),
        [
            (None, "\u2013"),
            (0, "0 ms"),
            (-1, "0 ms"),
            (0.0042, "4.2 ms"),
            (0.32, "320 ms"),
            (4.5, "4.5 s"),
            (59.4, "59 s"),
            (305, "5 min 5 s"),
            (12_000, "3 h 20 min"),
            (90_000, "1 d 1 h"),
            (timedelta(hours=1), "1 h"),
        ],
    )
    def test_durations_are_short(self, seconds, shown):
        assert words.duration(seconds) == shown

    def test_every_outcome_has_words_and_a_meaning(self):
        from idempotency.signals import OF_CALL

        assert OF_CALL.keys() <= words.OUTCOMES.keys()
        assert OF_CALL.keys() <= words.MEANINGS.keys()
        assert set(DUPLICATES) <= words.OUTCOMES.keys()
        assert words.outcome("something new") == "something new"

    @pytest.mark.parametrize(
        ("key", "shown"),
        [
            ("short", "short"),
            ("k" * 22, "k" * 22),
            ("0198c5a2-7c1e-7b53-9d3c", "0198c5a2-7…b53-9d3c"),
        ],
    )
    def test_long_key_is_shown_by_both_its_ends(self, key, shown):
        assert words.shortened(key) == shown
