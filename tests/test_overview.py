"""The page "Locks and duplicates": it shows what was counted, and frees only what was seen."""

import json
import re
import uuid
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import django
import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import connection
from django.template.loader import render_to_string
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import translation

import idempotency
from idempotency import words
from idempotency.admin import overview, pages, tables
from idempotency.admin.chart import FLOOR, LEFT, TOP, WIDTH, chart_of, nice_step
from idempotency.admin.counters import leading, others
from idempotency.admin.eviction import read_seen, seen_lock
from idempotency.exceptions import StoreUnavailable
from idempotency.locks.aliases import get_backend
from idempotency.locks.base import Ask, Grant, LiveLock
from idempotency.locks.database import DatabaseLockBackend
from idempotency.models import LockLease, Statistic
from idempotency.statistics.figures import (
    DUPLICATES,
    WINDOWS,
    Bar,
    CallerFigures,
    HeldLocks,
    KeyFigures,
    LockFigures,
    OperationFigures,
    RowFigures,
    RowLock,
    RowLocks,
    Stuck,
    Summary,
)
from tests.test_summary import LONG_BEHIND, count, log, record

pytestmark = pytest.mark.django_db(databases=["default", "other"])
in_the_open = pytest.mark.django_db(databases=["default", "other"], transaction=True)

User = get_user_model()
PAGE = "/admin/idempotency/statistic/"
RELEASE = f"{PAGE}release/"
UNTIL = datetime(2026, 11, 26, 12, 30, tzinfo=UTC)
EVIL = "<script>alert('x')</script>"
RECORD = uuid.UUID(int=1 << 127 | 7)
STYLES = Path(idempotency.__file__).parent / "static/idempotency/overview.css"


@pytest.fixture(autouse=True)
def one_backend(settings):
    settings.IDEMPOTENCY_LOCKS = {"default": {}}


@pytest.fixture
def boss(client):
    client.force_login(User.objects.create_superuser("boss"))
    return client


def clerk(*permissions):
    user = User.objects.create_user("clerk", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


def summary(window="24h", counts=(), **figures):
    """Give a summary whose last bars have *counts*."""
    window = WINDOWS[window]
    number = window.length // window.step
    first = UNTIL.replace(minute=0) - timedelta(seconds=window.step * (number - 1))
    bars = [Bar(first + timedelta(seconds=window.step * place), {}) for place in range(number)]
    for bar, each in zip(bars[number - len(counts) :], counts, strict=True):
        bar.counts.update(each)
    names = ("operations", "callers", "keys", "locks", "rows", "stuck")
    empty = {name: [] for name in names}
    zero = {"calls": {}, "taken_over": 0, "duplicates": 0, "saved": 0.0}
    return Summary(window=window, until=UNTIL, bars=bars, **{**zero, **empty, **figures})


def everything(name):
    """Give a summary, locks and row locks in which all that has a name has this one."""
    return (
        summary(
            counts=[{"replayed": 3}],
            calls={"executed": 9, "replayed": 3},
            duplicates=3,
            saved=9.0,
            operations=[OperationFigures(name, {"executed": 9, "replayed": 3}, 3, 0.25, 0.75)],
            callers=[CallerFigures(name, 3)],
            keys=[KeyFigures(RECORD, name, name, 3, UNTIL)],
            locks=[LockFigures(name, {"taken": 4, "lost": 1}, 0.002, 75.0, None, None)],
            rows=[RowFigures(name, {"stale": 2, "conflict": 6})],
            stuck=[Stuck(RECORD, "unknown", name, name, UNTIL - timedelta(hours=30))],
        ),
        [
            HeldLocks("default", [LiveLock(name, name, 17, 75.0, None, 2)]),
            HeldLocks(f"b {name}", [], name),
        ],
        [
            RowLocks("default", [RowLock("default", 41, [39, 40], name, 3.0, name)]),
            RowLocks(f"d {name}", [], name),
        ],
    )


def no_page(*args):
    return ""


def unnamed(record_id):
    return tables.code(record_id.hex[:12])


def rendered(summary, held=(), blocked=(), record_cell=unnamed, release_url=no_page):
    context = overview.summary_context(summary, record_cell)
    context |= overview.now_context(held, blocked, release_url)
    return render_to_string("admin/idempotency/overview_parts.html", context)


def cells(html, name):
    """Give the texts of the cells of a table, row by row."""
    table = re.search(rf'id="idempotency-table-{name}".*?</table>', html, re.S)[0]
    return [
        [re.sub(r"<.*?>", "", cell).strip() for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.S)]
        for row in re.findall(r"<tr>.*?</tr>", table, re.S)
    ]


class Outline(HTMLParser):
    """The elements of a page, with their attributes."""

    def __init__(self, html):
        super().__init__()
        self.elements = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def all(self, *tags):
        return [attrs for tag, attrs in self.elements if tag in tags]


# Words


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, words.NOTHING),
        (-1.0, "0 ms"),
        (0, "0 ms"),
        (0.0032, "3.2 ms"),
        (0.001, "1.0 ms"),
        (0.32, "320 ms"),
        (0.9996, "1.0 s"),
        (4.46, "4.5 s"),
        (12.4, "12 s"),
        (60, "1 min"),
        (75, "1 min 15 s"),
        (3_599.6, "1 h"),
        (12_000, "3 h 20 min"),
        (timedelta(days=2, hours=4), "2 d 4 h"),
        (86_400 * 1_234.0, "1,234 d"),
    ],
)
def test_durations_have_two_units_at_most(seconds, said):
    assert words.duration(seconds) == said


def test_numbers_are_written_as_the_reader_writes_them():
    with translation.override("de"):
        assert (words.count(1_234_567), words.duration(4.5)) == ("1.234.567", "4,5 s")


def test_counts_agree_with_their_noun():
    assert (words.times(1), words.times(1_200)) == ("1 duplicate", "1,200 duplicates")


def test_every_outcome_of_a_call_has_words():
    assert set(words.OUTCOMES) == set(words.MEANINGS) >= set(DUPLICATES)


# The numbers


def test_leading_numbers_say_what_it_was_good_for():
    found = {
        one.label: (one.value, one.about)
        for one in leading(
            summary(calls={"executed": 900, "replayed": 1_100}, duplicates=1_100, saved=75.0)
        )
    }

    assert found["Duplicates stopped"] == (
        "1,100",
        "effects that did not take place twice: 55.0 % of the calls",
    )
    assert found["Calls"][0] == "2,000"
    assert found["Time saved"][0] == "1 min 15 s"
    assert found["Taken over"][0] == "0"


def test_without_calls_there_is_no_share():
    assert leading(summary())[0].about == "effects that did not take place twice"


def test_outcomes_that_did_not_happen_are_left_out_but_for_the_usual_ones():
    found = {one.label: one.alarms for one in others(summary(calls={"blocked": 1, "lost": 2}))}

    assert found == {
        "Still in progress": False,
        "Reused": False,
        "Refused": False,
        "Failed, effect unknown": True,
        "Lost": False,
        "Store errors": False,
    }


def test_alarms_are_said_and_not_only_coloured():
    html = rendered(summary(calls={"store_error": 3}))

    assert re.search(r"Store errors</dt><dd.*?>3 <span.*?>look at this</span>", html)
    assert "look at this" not in rendered(summary(calls={"store_error": 0}))


# The chart


@pytest.mark.parametrize(
    ("highest", "step"), [(0, 1), (1, 1), (5, 1), (6, 2), (11, 5), (26, 10), (999, 200)]
)
def test_steps_of_the_axis_are_round(highest, step):
    assert nice_step(highest) == step


def test_bars_stand_on_each_other_and_within_the_chart():
    chart = chart_of(summary(counts=[{"replayed": 30, "reused": 10}, {}, {"unknown": 7}]))

    column = chart.columns[-3]
    replayed, reused = column.boxes
    assert replayed.y + replayed.height == FLOOR
    assert reused.y + reused.height == pytest.approx(replayed.y)
    assert replayed.height == pytest.approx(3 * reused.height, abs=0.2)
    assert [len(one.boxes) for one in chart.columns[-3:]] == [2, 0, 1]
    boxes = [box for one in chart.columns for box in one.boxes]
    assert all(LEFT < box.x < box.x + box.width < WIDTH and box.y >= TOP for box in boxes)
    assert [(line.at, line.text) for line in chart.lines][::4] == [(FLOOR, "0"), (TOP, "40")]


def test_what_is_rare_can_be_seen_beside_what_is_not():
    chart = chart_of(summary(counts=[{"replayed": 100_000, "unknown": 1}]))

    assert chart.columns[-1].boxes[1].height == 2


def test_only_outcomes_that_there_are_have_a_place_in_the_legend():
    chart = chart_of(summary(counts=[{"reused": 1_000}, {"replayed": 2, "reused": 200}]))

    assert [(one.kind, one.total) for one in chart.series] == [
        ("replayed", "2"),
        ("reused", "1,200"),
    ]


def test_chart_is_told_in_words():
    chart = chart_of(summary(counts=[{"replayed": 5, "reused": 1}, {"replayed": 1}]))

    assert chart.description == (
        "7 duplicates: Replayed 6, Reused 1."
        " The most in one bar, 6, from Nov. 26, 2026, 11 a.m. on."
    )
    assert chart.columns[-1].title == ("Nov. 26, 2026, noon\n1 duplicate\nReplayed: 1")


@pytest.mark.parametrize(
    ("window", "zone", "first"),
    [
        ("1h", "UTC", "11:10 a.m."),
        ("24h", "UTC", "4 p.m."),
        ("24h", "Asia/Kolkata", "8:30 p.m."),
        ("7d", "UTC", "November 20"),
        ("30d", "America/New_York", "October 29"),
    ],
)
def test_places_below_the_bars_are_round_in_the_readers_time(settings, window, zone, first):
    settings.TIME_ZONE = zone
    places = chart_of(summary(window)).places

    assert places[0].text == first
    assert len({place.text for place in places}) == len(places) >= 5


def test_chart_knows_times_without_zones():
    shown = summary(counts=[{"replayed": 1}])
    naive = [Bar(bar.starts_at.replace(tzinfo=None), bar.counts) for bar in shown.bars]
    shown = Summary(**{name: getattr(shown, name) for name in Summary.__slots__} | {"bars": naive})

    assert chart_of(shown).columns[-1].title.startswith("Nov. 26, 2026, noon")


def test_each_outcome_has_a_pattern_and_a_colour_of_its_own():
    html = rendered(summary(counts=[dict.fromkeys(DUPLICATES, 9)], calls={"replayed": 9}))
    patterns = re.findall(r"<pattern id=\"idempotency-pattern-(\w+)\".*?>(.*?)</pattern>", html)

    assert [name for name, _ in patterns] == list(DUPLICATES)
    assert len({drawn for _, drawn in patterns}) == len(DUPLICATES)
    for outcome in DUPLICATES:
        assert f'fill="url(#idempotency-pattern-{outcome})"' in html
        assert f".idempotency-{outcome} {{ fill: " in STYLES.read_text()


def test_chart_is_drawn_with_points_whatever_the_language():
    with translation.override("de"):
        html = rendered(summary("7d", counts=[{"replayed": 1_234}], calls={"replayed": 1_234}))

    drawn = re.search(r"<svg class=\"idempotency-chart\".*?</svg>", html, re.S)[0]
    assert not re.search(r' (?:x|y|width|height|x1|y1)="[^"]*[^-\d."][^"]*"', drawn)
    assert "1.234" in drawn


def test_table_has_the_numbers_of_the_chart():
    html = rendered(summary(counts=[{"replayed": 5, "reused": 1}, {}, {"replayed": 2}]))

    assert cells(html, "bars") == [
        ["From", "Replayed", "Reused", "All"],
        ["11/26/2026 10 a.m.", "5", "1", "6"],
        ["11/26/2026 noon", "2", "0", "2"],
    ]


# The tables


def test_tables_show_what_was_counted():
    html = rendered(*everything("pay"))

    assert cells(html, "operations")[1] == ["pay", "12", "3", "250 ms", "750 ms"]
    assert cells(html, "callers")[1] == ["pay", "3"]
    assert cells(html, "keys")[1] == ["800000000000", "pay", "pay", "11/26/2026 12:30 p.m.", "3"]
    assert cells(html, "locks")[1][:5] == ["pay", "4", "0", "0", "1"]
    assert cells(html, "locks")[1][5:] == ["2.0 ms", "1 min 15 s", words.NOTHING, words.NOTHING]
    assert cells(html, "rows")[1] == ["pay", "2", "0", "6"]
    assert cells(html, "stuck")[1] == ["800000000000", "pay", "pay", "Outcome unknown", "1 d 6 h"]
    assert cells(html, "held-default")[1] == ["pay", "pay", "1 min 15 s", words.NOTHING, "17", "2"]
    assert cells(html, "rows-default")[1] == ["pay", "pay", "41", "39, 40", "3.0 s"]


def test_what_cannot_be_known_is_said_with_its_reason():
    html = rendered(*everything("no answer within 2 s"))

    assert "What is held here is not known: no answer within 2 s" in html
    assert "Who waits is not known: no answer within 2 s" in html


def test_nothing_is_said_in_words():
    html = rendered(summary(), [HeldLocks("default", [])], [RowLocks("default", [])])

    for text in (
        "No call with a key was counted in this time.",
        "this page shows",
        "No claim is stuck",
        "No duplicate came in this time.",
        "Nobody holds a lock here.",
        "No session waits for another one&#x27;s lock.",
        "No operation has been called",
        "No lock has been asked for",
    ):
        assert text in html
    assert "SQLite does not tell" in rendered(summary())


def test_it_is_said_that_nothing_is_counted(settings):
    assert "IDEMPOTENCY_STATISTICS" not in rendered(summary())
    settings.IDEMPOTENCY_STATISTICS = False

    assert "Nothing is counted now, as IDEMPOTENCY_STATISTICS is False." in rendered(summary())


def test_names_are_no_markup():
    html = rendered(*everything(EVIL), release_url=lambda alias, lock: "?lock=1")

    assert "<script" not in html
    assert html.count("&lt;script&gt;") > 15
    assert "Release the lock &lt;script&gt;" in html


def test_nothing_in_the_page_needs_a_looser_content_security_policy(boss):
    found = Outline(boss.get(PAGE).text + rendered(*everything("pay")))

    assert not [attrs for _, attrs in found.elements if "style" in attrs]
    assert not [name for _, attrs in found.elements for name in attrs if name.startswith("on")]
    assert not found.all("style")
    assert all("src" in attrs for attrs in found.all("script"))
    assert {"/static/idempotency/overview.js"} < {attrs["src"] for attrs in found.all("script")}


def test_tables_can_be_understood_by_ear(boss):
    html = rendered(*everything("pay"), release_url=lambda alias, lock: "?lock=1")
    found = Outline(html)
    ids = [attrs["id"] for _, attrs in found.elements if "id" in attrs]

    assert len(ids) == len(set(ids))
    assert all(attrs.get("scope") in ("col", "row") for attrs in found.all("th"))
    assert len(found.all("caption")) == len(found.all("table"))
    labels = {attrs["aria-labelledby"] for attrs in found.all("section")}
    assert labels <= set(ids)
    assert 'aria-label="Release the lock pay"' in html
    page = boss.get(PAGE).text
    content = page[page.index('id="content"') :]
    assert re.findall(r"<h(\d)", content)[:2] == ["1", "2"]
    assert set(re.findall(r"<h(\d)", content)) == {"1", "2"}


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize(("theme", "background"), [(0, "#ffffff"), (1, "#121212"), (1, "#16181d")])
def test_bars_can_be_told_from_the_background(theme, background):
    text = STYLES.read_text()
    for outcome in DUPLICATES:
        name = f"--idempotency-{outcome.replace('_', '-')}"
        colours = re.findall(rf"{name}: (#\w+);", text)

        assert len(colours) == 3
        assert colours[1] == colours[2]
        colour = colours[theme]
        full = colour if len(colour) == 7 else "#" + "".join(c * 2 for c in colour[1:])
        assert contrast(full, background) >= 3


def test_words_that_stand_in_for_the_admins_colours_can_be_read():
    text = STYLES.read_text()
    for block, background in ((text[: text.index("html")], "#ffffff"), (text, "#16181d")):
        for name in ("fg", "loud", "quiet", "link", "error"):
            *_, colour = re.findall(rf"--idempotency-{name}: var\(.*?, (#\w+)\)", block)
            full = colour if len(colour) == 7 else "#" + "".join(c * 2 for c in colour[1:])

            assert contrast(full, background) >= 4.5, name


# The page


def test_page_is_in_the_list_of_the_app_and_marks_where_one_is(boss):
    page = boss.get("/admin/").text

    assert f'href="{PAGE}"' in page
    assert f"{PAGE}add/" not in page
    page = boss.get(PAGE)
    assert page.status_code == 200
    assert re.search(rf'href="{PAGE}".*?aria-current="page"', page.text)


def test_page_shows_what_was_counted(boss):
    count("executed", 40, each=0.25)
    count("replayed", 1_234)
    log(scope="user:7")
    page = boss.get(PAGE)

    assert "1,234" in page.text
    assert "user:7" in page.text
    assert 'data-window="24h"' in page.text


@pytest.mark.parametrize(
    ("asked", "shown", "seldom"),
    [("1h", "1h", 10), ("24h", "24h", 60), ("7d", "7d", 60), ("30d", "30d", 60), ("x", "24h", 60)],
)
def test_window_can_be_chosen(boss, asked, shown, seldom):
    page = boss.get(f"{PAGE}?window={asked}").text

    current = re.findall(r'<a href="\?window=(\w+)" aria-current="page">', page)
    assert current == [shown]
    assert re.findall(r'<a href="\?window=(\w+)"', page) == list(WINDOWS)
    assert f'data-window="{shown}" data-every="10" data-seldom="{seldom}"' in page


def test_page_can_be_used_without_scripts(boss):
    page = boss.get(f"{PAGE}?window=7d").text

    assert '<a class="idempotency-button" href="?window=7d">Reload</a>' in page
    assert re.search(r'<button type="button"[^>]* id="idempotency-pause"[^>]* hidden>', page)
    assert 'role="status" aria-live="polite"' in page


def test_part_is_what_the_page_renews(boss):
    count("replayed", 5)
    part = boss.get(f"{PAGE}?format=part").text
    page = boss.get(PAGE).text

    assert part.strip().startswith('<div class="idempotency-parts" id="idempotency-parts"')
    assert "<html" not in part
    ids = re.findall(r'class="idempotency-part" id="([\w-]+)"', part)
    assert ids == re.findall(r'class="idempotency-part" id="([\w-]+)"', page)
    assert len(ids) == 7


def test_what_holds_now_is_renewed_without_counting(boss):
    with CaptureQueriesContext(
        connection,
    ) as sent:
        part = boss.get(f"{PAGE}?format=now").text

    ids = re.findall(r'class="idempotency-part" id="([\w-]+)"', part)
    assert ids == ["idempotency-held", "idempotency-blocked"]
    assert not [one for one in sent.captured_queries if Statistic._meta.db_table in one["sql"]]


def test_programs_get_the_same_numbers(boss):
    count("replayed", 5)
    answer = boss.get(f"{PAGE}?format=json&window=1h")

    assert answer["Content-Type"] == "application/json"
    found = json.loads(answer.content)
    assert (found["duplicates"], found["window"]["name"]) == (5, "1h")
    assert found["held_locks"] == [{"alias": "default", "locks": [], "failure": ""}]


@pytest.mark.parametrize("query", ["", "?format=json", "?format=part", "?format=now"])
def test_nobody_sees_it_without_permission(query):
    client = clerk("view_transitionlog", "release_lock")

    assert client.get(PAGE + query).status_code == 403
    assert PAGE not in client.get("/admin/").text


def test_permission_to_view_is_enough():
    assert clerk("view_statistic").get(PAGE).status_code == 200


def test_rows_cannot_be_edited(boss):
    count("replayed")
    pk = Statistic.objects.get().pk

    model_admin = admin.site.get_model_admin(Statistic)
    request = RequestFactory().get(PAGE)
    request.user = User.objects.get()
    assert set(model_admin.get_model_perms(request).items()) == {
        ("add", False),
        ("change", False),
        ("delete", False),
        ("view", True),
    }
    for page in ("add/", f"{pk}/change/", f"{pk}/delete/"):
        assert boss.get(PAGE + page).status_code == 404


def test_few_statements_are_sent_however_much_there_is(boss):
    count("replayed")
    with CaptureQueriesContext(connection) as little:
        boss.get(PAGE)
    for number in range(1, 25):
        count("replayed", 5, name=f"place {number}", ago=60 * number)
        count("taken", kind="lock", name=f"lock {number}")
        count("stale", kind="row", name=f"row {number}")
        log(number=number, scope=f"user:{number}")
        record("unknown", number, purge_after=LONG_BEHIND)
    with CaptureQueriesContext(connection) as much:
        boss.get(PAGE)

    assert len(much) <= len(little) + 2  # The log entries, and the records, that are named.
    assert len(much) <= 15


def test_keys_and_stuck_claims_lead_to_their_records(boss):
    log(number=4)
    log(number=6)
    for number in (4, 5):
        record("unknown", number, purge_after=LONG_BEHIND)
    page = boss.get(PAGE).text

    for number in (4, 5):
        pk = uuid.UUID(int=1 << 127 | number)
        assert (
            f'<a href="/admin/idempotency/idempotencyrecord/{pk}/change/">key {number}</a>' in page
        )
    gone = uuid.UUID(int=1 << 127 | 6).hex[:12]
    assert {row[0] for row in cells(page, "keys")[1:]} == {"key 4", gone}


def test_records_are_not_linked_for_those_who_may_not_see_them():
    log(number=4)
    page = clerk("view_statistic").get(PAGE).text

    assert cells(page, "keys")[1][0] == uuid.UUID(int=1 << 127 | 4).hex[:12]
    assert "/idempotencyrecord/" not in page


@pytest.mark.parametrize("is_list", [True, False])
def test_breadcrumbs_are_as_the_version_of_django_has_them(boss, monkeypatch, is_list):
    monkeypatch.setattr(overview, "breadcrumbs_are_a_list", lambda: is_list)
    page = boss.get(PAGE).text

    assert ('<ol class="breadcrumbs">' in page) is is_list
    assert re.search(r"(<li aria-current=\"page\">|&rsaquo; )Locks and duplicates", page)
    assert pages.breadcrumbs_are_a_list() is (django.VERSION >= (6, 1))


# Releasing a lock


def taken(name="nightly", owner="somebody"):
    return get_backend("default").acquire(Ask(name, owner, 30.0))


def live(grant):
    return LiveLock(grant.name, grant.owner, grant.token, None, None)


def confirm(client, lock, alias="default", reason="its server is gone"):
    return client.post(RELEASE, {"lock": seen_lock(alias, lock), "reason": reason}, follow=True)


def said(page):
    return [str(message) for message in page.context["messages"]]


@in_the_open
def test_lock_leads_to_the_page_that_releases_it(boss):
    grant = taken()
    page = boss.get(PAGE).text

    (address,) = re.findall(r'href="(/[^"]*release/\?lock=[^"]*)"', page)
    shown = boss.get(address).text
    assert "nightly" in shown
    assert "somebody" in shown
    assert str(grant.token) in shown
    assert "does not stop its holder" in shown
    assert LockLease.objects.get().owner == "somebody"


@in_the_open
def test_confirmed_lock_is_free_and_the_reason_kept(boss):
    grant = taken()
    page = confirm(boss, live(grant))

    assert said(page) == ["“nightly” was released. Whoever held it finds it lost."]
    assert LockLease.objects.get().owner == ""
    entry = LogEntry.objects.get()
    assert entry.change_message == (
        f"Released from somebody, token {grant.token}: its server is gone"
    )
    assert (entry.object_repr, str(entry.content_type)) == ("nightly", "Idempotency | lock")
    assert entry.user.username == "boss"
    assert entry.get_admin_url() is None


@pytest.mark.parametrize("owner", ["another", None])
@in_the_open
def test_lock_with_another_holder_stays_with_it(boss, owner):
    grant = taken()
    assert get_backend("default").release(grant)
    if owner:
        taken(owner=owner)
    page = confirm(boss, live(grant))

    assert said(page) == ["“nightly” has another holder by now, or none: nothing was done."]
    assert LockLease.objects.get().owner == (owner or "")
    assert not LogEntry.objects.exists()


@in_the_open
def test_release_needs_a_reason(boss):
    grant = taken()
    page = confirm(boss, live(grant), reason=" ")

    assert "This field is required." in page.text
    assert "<title>Error: Release this lock?" in page.text
    assert LockLease.objects.get().owner == "somebody"


@pytest.mark.parametrize("permission", ["view_statistic", "release_lock"])
@in_the_open
def test_release_needs_two_permissions(permission):
    grant = taken()
    client = clerk(permission)

    assert confirm(client, live(grant)).status_code == 403
    assert client.get(f"{RELEASE}?lock={seen_lock('default', live(grant))}").status_code == 403
    assert LockLease.objects.get().owner == "somebody"


@in_the_open
def test_those_who_may_not_release_have_no_button():
    taken()
    page = clerk("view_statistic").get(PAGE).text

    assert "nightly" in page
    assert "release/" not in page
    assert "Action" not in page


@in_the_open
def test_both_permissions_are_enough():
    grant = taken()
    confirm(clerk("view_statistic", "release_lock"), live(grant))

    assert LockLease.objects.get().owner == ""


@pytest.mark.parametrize("seen", ["", "x", "WyJhIl0:x"])
def test_only_what_was_shown_can_be_released(boss, seen):
    page = boss.post(RELEASE, {"lock": seen, "reason": "x"}, follow=True)

    assert said(page) == ["That page cannot be read any more, and nothing was done. Look again."]


def test_backend_that_is_no_longer_set_releases_nothing():
    assert read_seen(seen_lock("gone", LiveLock("a", "b", 1, None, None))) is None


class Lasting(DatabaseLockBackend):
    """Locks of which only their holder can let go."""

    supports_eviction = False


class Silent(DatabaseLockBackend):
    """Locks on a server that answers nothing."""

    def release(self, grant: Grant) -> bool:
        raise StoreUnavailable("The server is away.")


@in_the_open
def test_backend_that_cannot_release_is_not_asked_to(boss, settings):
    settings.IDEMPOTENCY_LOCKS = {"default": {"BACKEND": "tests.test_overview.Lasting"}}
    grant = taken()
    page = confirm(boss, live(grant))

    assert said(page) == ["That page cannot be read any more, and nothing was done. Look again."]
    assert LockLease.objects.get().owner == "somebody"
    request = RequestFactory().get(PAGE)
    request.user = User.objects.get()
    model_admin = admin.site.get_model_admin(Statistic)
    assert model_admin.release_urls(request)("default", live(grant)) == ""


@in_the_open
def test_release_that_nobody_can_tell_is_told_as_that(boss, settings):
    settings.IDEMPOTENCY_LOCKS = {"default": {"BACKEND": "tests.test_overview.Silent"}}
    page = confirm(boss, live(taken()))

    (message,) = said(page)
    assert message == (
        "Nobody can tell whether “nightly” was released. Look again. The server is away."
    )
    assert not LogEntry.objects.exists()


def test_release_page_shows_names_as_they_are(boss):
    lock = LiveLock(EVIL, EVIL, 1_234_567, None, None)
    page = boss.get(RELEASE, {"lock": seen_lock("default", lock)}).text

    assert EVIL not in page
    assert page.count("&lt;script&gt;") == 2
    assert "1234567" in page
