"""The pages of the admin in a real browser, as a person uses them."""

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from idempotency.locks import get_backend
from idempotency.locks.base import Ask
from idempotency.models import IdempotencyRecord, LockLease
from tests.browsing import find_browser, in_thread, page_of
from tests.conftest import elsewhere
from tests.services import NotStarted, do_without
from tests.test_admin_records import EVIL, log, record
from tests.test_summary import LONG_BEHIND, count

pytestmark = pytest.mark.django_db(transaction=True)
OVERVIEW = "admin:idempotency_statistic_changelist"
LIST = "admin:idempotency_idempotencyrecord_changelist"


@pytest.fixture(autouse=True)
def browser(settings):
    settings.IDEMPOTENCY_LOCKS = {"default": {}}
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "tests.views.strict_policy"]
    try:
        find_browser()
    except NotStarted as error:
        do_without("Chromium", error)


@pytest.fixture
def browse(live_server):
    """Give a function that runs a script with a page, and refuses what the browser complains of."""

    def run(script, *permissions, **options):
        session = logged_in(*permissions)

        def work():
            complaints = []
            with page_of(live_server.url, session, **options) as page:
                page.on("console", lambda line: complaints.append(line.text))
                page.route("**/favicon.ico", lambda route: route.fulfill(body=""))
                page.on("pageerror", lambda error: complaints.append(str(error)))
                script(page)
            return complaints

        assert in_thread(work) == []

    return run


def logged_in(*permissions):
    """Give the session of a superuser, or of somebody who has just some *permissions*."""
    users = get_user_model().objects
    if permissions:
        user = users.create_user("ada", is_staff=True)
        own = Permission.objects.filter(content_type__app_label="idempotency")
        user.user_permissions.set(own.filter(codename__in=permissions))
    else:
        user = users.create_superuser("ada")
    client = Client()
    client.force_login(user)
    return client.cookies["sessionid"].value


def test_record_is_found_and_looked_into(browse):
    row = record(key="order-7")
    record(key="order-8")
    log(row, "reused", differences=["/body/amount"], request_id="r-7")

    def script(page):
        page.goto(reverse(LIST))
        page.locator("#searchbar").fill("order-7")
        page.locator("#searchbar").press("Enter")
        page.wait_for_url("**q=order-7**")
        assert page.locator("#result_list tbody tr").count() == 1
        page.get_by_role("link", name="order-7").click()
        assert page.get_by_role("heading", level=1).last.inner_text() == "order-7"
        assert "request r-7" in page.locator(".idempotency-timeline").inner_text()
        assert "/body/amount" in page.locator(".idempotency-timeline").inner_text()
        assert '"order": 7' in page.locator("pre").inner_text()

    browse(script)


@pytest.mark.parametrize(
    ("state", "page_name", "fill", "ends_as"),
    [
        ("in_progress", "release", {"sure": True}, "released"),
        ("unknown", "resolve", {"outcome": "completed"}, "completed"),
        ("completed", "expire", {}, "released"),
    ],
)
def test_each_decision_is_confirmed_with_a_reason(browse, state, page_name, fill, ends_as):
    now = timezone.now()
    facts = {"ends_at": now + timezone.timedelta(minutes=5)} if state == "in_progress" else {}
    facts |= {"purge_after": LONG_BEHIND} if state == "unknown" else {}
    row = record(state, **facts)

    def script(page):
        page.goto(reverse("admin:idempotency_idempotencyrecord_change", args=[row.pk]))
        page.locator(".idempotency-decisions a").click()
        page.locator(".submit-row [type=submit]").click()
        page.locator(".errorlist").first.wait_for()
        page.get_by_label("Reason").fill("asked by phone")
        if "sure" in fill:
            page.locator("[name=sure]").check()
        if "outcome" in fill:
            page.locator(f"[name=outcome][value={fill['outcome']}]").check()
        page.locator(".submit-row [type=submit]").click()
        page.wait_for_url(f"**/{row.pk}/change/")
        page.locator(".messagelist .success").wait_for()
        assert "asked by phone" in page.locator(".idempotency-timeline").inner_text()

    browse(script)
    assert IdempotencyRecord.objects.get().state == ends_as


def test_numbers_are_brought_up_to_date_while_somebody_looks(browse):
    count("replayed", 5)

    def script(page):
        page.clock.install()
        page.goto(reverse(OVERVIEW))
        assert page.locator("svg[role=img]").is_visible()
        first = page.get_by_text("Duplicates stopped").locator("..")
        assert "5" in first.inner_text()
        elsewhere(lambda: count("replayed", 1_000))
        page.clock.fast_forward(70_000)
        page.get_by_text("1,005").first.wait_for()
        page.get_by_role("button", name="Pause").click()
        assert page.get_by_role("button", name="Resume").is_visible()

    browse(script)


def test_lock_is_released_from_the_page(browse):
    get_backend("default").acquire(Ask("nightly", "host:1:abc", lease=60))

    def script(page):
        page.goto(reverse(OVERVIEW))
        page.get_by_role("link", name="Release").click()
        page.get_by_label("Reason").fill("its host is gone")
        page.get_by_role("button", name="Release the lock").click()
        page.wait_for_url("**/statistic/**")
        page.locator(".messagelist .success").wait_for()

    browse(script)
    assert LockLease.objects.get().ends_at <= timezone.now()


def test_person_without_permissions_sees_no_answer_and_no_button(browse):
    row = record()
    get_backend("default").acquire(Ask("nightly", "host:1:abc", lease=60))

    def script(page):
        page.goto(reverse("admin:idempotency_idempotencyrecord_change", args=[row.pk]))
        assert page.locator(".idempotency-decisions").count() == 0
        assert page.get_by_text("You may not see what was answered.").is_visible()
        page.goto(reverse(OVERVIEW))
        assert page.get_by_text("nightly").first.is_visible()
        assert page.get_by_role("link", name="Release").count() == 0

    browse(script, "view_idempotencyrecord", "view_statistic")


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 420)])
def test_pages_keep_a_strict_policy_and_run_no_script_of_a_key(browse, scheme, width):
    row = record(key=EVIL, scope=EVIL, operation=EVIL, body=EVIL.encode())
    log(row, differences=[EVIL], note=EVIL)
    count("replayed", name=EVIL)

    def script(page):
        pages = [reverse(LIST), reverse(OVERVIEW)]
        pages += [
            reverse(f"admin:idempotency_idempotencyrecord_{name}", args=[row.pk])
            for name in ("change", "expire")
        ]
        for address in pages:
            page.goto(address)
            # Nothing but what scrolls by itself is wider than the window.
            assert page.evaluate("document.documentElement.scrollWidth") <= width

    browse(script, color_scheme=scheme, viewport={"width": width, "height": 900})
