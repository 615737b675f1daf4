"""What calls, locks and rows announce, and when."""

import threading
from contextlib import contextmanager, suppress
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, connection, transaction
from django.http import HttpResponse, JsonResponse
from django.test import Client, TestCase
from django.utils import timezone

from idempotency import (
    KeyInProgress,
    KeyReused,
    LockReentered,
    LockUnavailable,
    OutcomeUnknown,
    ReplayUnavailable,
    StaleClaim,
    StaleLock,
    StaleObject,
    StoreUnavailable,
    TransitionConflict,
    arun_once,
    idempotent_view,
    lock,
    run_once,
    signals,
)
from idempotency.locks.events import template_of
from idempotency.models import IdempotencyRecord, LockLease
from tests.conftest import elsewhere, end_leases, run_async
from tests.models import Account, Effect, Letter

pytestmark = pytest.mark.django_db(transaction=True)


@contextmanager
def hearing(*wanted):
    """Collect the events of some signals, of all by default."""
    heard = []

    def hear(*, event, **kwargs):
        heard.append(event)

    for signal in wanted or signals.SIGNALS:
        signal.connect(hear)
    try:
        yield heard
    finally:
        for signal in wanted or signals.SIGNALS:
            signal.disconnect(hear)


def call(work=lambda: "done", key="key", fingerprint="", **options):
    return run_once(
        work, scope="user:1", operation="place", key=key, fingerprint=fingerprint, **options
    )


def fail():
    raise ZeroDivisionError


def in_progress():
    def twin():
        with pytest.raises(KeyInProgress):
            call()

    call(lambda: elsewhere(twin))


def lost():
    def work():
        IdempotencyRecord.objects.update(token=1)

    with pytest.raises(StaleClaim):
        call(work, mode="lease")


def unknown():
    with pytest.raises(ZeroDivisionError):
        call(fail, mode="lease", on_error="block")
    with pytest.raises(OutcomeUnknown):
        call()


def unavailable():
    with pytest.raises(ZeroDivisionError):
        call(fail, on_error="store")
    with pytest.raises(ReplayUnavailable):
        call()


def reused():
    call(fingerprint="1")
    with pytest.raises(KeyReused):
        call(fingerprint="2")


def released():
    with pytest.raises(ZeroDivisionError):
        call(fail)


def taken_over():
    with pytest.raises(KeyboardInterrupt):
        call(interrupted, mode="lease")
    IdempotencyRecord.objects.update(state="in_progress")
    end_leases()
    call()


def interrupted():
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("scenario", "outcomes"),
    [
        (call, ["executed"]),
        (lambda: [call(), call(), call()], ["executed", "replayed", "replayed"]),
        (in_progress, ["in_progress", "executed"]),
        (reused, ["executed", "reused"]),
        (released, ["released"]),
        (unavailable, ["executed", "unavailable"]),
        (unknown, ["blocked", "unknown"]),
        (lost, ["lost"]),
        (taken_over, ["released", "taken_over", "executed"]),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_each_call_announces_once_what_came_of_it(scenario, outcomes):
    if scenario is in_progress and connection.vendor == "sqlite":
        pytest.skip("no other writer while one works")

    with hearing() as heard:
        scenario()

    assert [event.outcome for event in heard] == outcomes
    assert {event.operation for event in heard} == {"place"}
    assert all(event.seconds > 0 for event in heard if event.outcome != "taken_over")


def test_error_after_the_commit_does_not_undo_what_was_executed():
    with hearing() as heard, pytest.raises(ZeroDivisionError):
        call(lambda: transaction.on_commit(fail))

    assert [event.outcome for event in heard] == ["executed"]


def test_error_after_the_commit_does_not_undo_what_was_executed_under_a_lease():
    with hearing() as heard, pytest.raises(ZeroDivisionError):
        call(lambda: transaction.on_commit(fail), mode="lease")

    assert [event.outcome for event in heard] == ["executed"]


def test_call_in_a_transaction_is_announced_when_that_is_committed():
    with hearing() as heard, transaction.atomic():
        call()
        before = list(heard)

    assert before == []
    assert [event.outcome for event in heard] == ["executed"]


def test_call_in_a_transaction_that_is_rolled_back_was_none():
    with hearing() as heard, suppress(ZeroDivisionError), transaction.atomic():
        call()
        fail()

    assert heard == []


def test_error_that_is_kept_is_announced_with_the_transaction_around():
    def work():
        fail()

    with hearing() as heard, transaction.atomic():
        with pytest.raises(ZeroDivisionError):
            call(work, on_error="store")
        before = list(heard)

    assert before == []
    assert [event.outcome for event in heard] == ["executed"]


def test_commit_that_fails_leaves_nothing_executed():
    with hearing() as heard, pytest.raises(IntegrityError):
        call(lambda: Letter.objects.create(twin_id=7).pk)  # Found out at the commit.

    assert [event.outcome for event in heard] == ["released"]
    assert call().replayed is False


class TestInATestOfDjango(TestCase):
    """A transaction that is never committed is around it, and none of the caller's own."""

    def test_call_is_announced_at_once_and_without_a_hook(self):
        with hearing() as heard, self.captureOnCommitCallbacks() as callbacks:
            call()

        assert [event.outcome for event in heard] == ["executed"]
        assert callbacks == []


def test_store_that_is_away_is_announced_for_refused_and_unprotected_calls(store_away):
    store_away()

    with hearing() as heard:
        with pytest.raises(StoreUnavailable):
            call()
        call(on_store_error="run")
        with pytest.raises(ZeroDivisionError):
            call(fail, on_store_error="run")

    assert [event.outcome for event in heard] == ["store_error", "unprotected", "unprotected"]


def test_coroutines_announce_what_came_of_them():
    async def work():
        return "done"

    async def twice():
        for _ in range(2):
            await arun_once(work, scope="s", operation="o", key="key")

    with hearing() as heard:
        run_async(twice())

    assert [event.outcome for event in heard] == ["executed", "replayed"]


def test_coroutine_that_fails_announces_it():
    async def work():
        fail()

    with hearing() as heard, pytest.raises(ZeroDivisionError):
        run_async(arun_once(work, scope="s", operation="o", key="key"))

    assert [event.outcome for event in heard] == ["released"]


def test_what_receivers_raise_changes_nothing(caplog):
    def broken(**kwargs):
        fail()

    signals.record_completed.connect(broken)
    try:
        outcome = call()
    finally:
        signals.record_completed.disconnect(broken)

    assert outcome.result == "done"
    assert "ZeroDivisionError" in caplog.text


def test_receiver_that_cannot_be_called_from_a_loop_changes_nothing(caplog):
    async def unsuitable(**kwargs):
        pass

    async def work():
        return "done"

    signals.record_completed.connect(unsuitable)
    try:
        outcome = run_async(arun_once(work, scope="s", operation="o", key="key"))
    finally:
        signals.record_completed.disconnect(unsuitable)

    assert outcome.result == "done"
    assert "is it synchronous?" in caplog.text


def test_take_over_that_is_rolled_back_with_its_caller_is_not_announced():
    call()
    over = {"state": "in_progress", "ends_at": timezone.now() - timedelta(hours=1)}
    IdempotencyRecord.objects.update(**over)
    with hearing() as heard:
        with suppress(ZeroDivisionError), transaction.atomic():
            call()
            fail()
        with transaction.atomic():
            call()
            assert heard == []

    assert [event.outcome for event in heard] == ["taken_over", "executed"]


class TestRequests:
    def send(self, view, served, *bodies, key="0198c5a2-7c1e-7b53-9d3c-2f1f0f6f3a11", **headers):
        client = Client(raise_request_exception=False)
        client.force_login(User.objects.get_or_create(username="ada")[0])
        served(view)
        for body in bodies:
            given = {"Idempotency-Key": key, "X-Request-ID": "r-1", **headers}
            client.post("/served/", body, content_type="application/json", headers=given)

    def test_event_has_status_request_and_where_a_reused_key_differs(self, served):
        view = idempotent_view(lambda request: JsonResponse({}, status=201))
        with hearing() as heard:
            self.send(view, served, {"n": 1, "m": 1}, {"n": 1, "m": 1}, {"n": 2, "m": 1})

        facts = [(event.outcome, event.status, event.differences) for event in heard]
        assert facts == [
            ("executed", 201, None),
            ("replayed", 201, None),
            ("reused", 422, ("/body/n",)),
        ]
        assert {event.request_id for event in heard} == {"r-1"}
        assert len({event.record_id for event in heard}) == 1

    def test_asynchronous_view_tells_its_status(self, served):
        async def view(request):
            return HttpResponse(status=202)

        with hearing() as heard:
            self.send(idempotent_view(view), served, {})

        assert [(event.outcome, event.status) for event in heard] == [("executed", 202)]

    @pytest.mark.parametrize("status", [409, 503])
    def test_answer_that_is_not_kept_is_released(self, served, status):
        view = idempotent_view(lambda request: HttpResponse(status=status))
        with hearing() as heard:
            self.send(view, served, {})

        assert [(event.outcome, event.status) for event in heard] == [("released", status)]

    def test_request_that_cannot_be_protected_is_refused(self, served):
        view = idempotent_view(lambda request: HttpResponse())
        with hearing() as heard:
            self.send(view, served, {}, key="")
            self.send(view, served, "{", **{"X-Request-ID": "a\u00e9" * 40})

        facts = [(event.outcome, event.status, event.request_id) for event in heard]
        assert facts == [("refused", 400, "r-1"), ("refused", 400, "")]
        assert {event.operation for event in heard} == {"POST served"}

    def test_body_that_was_not_kept_is_unavailable(self, served, settings):
        settings.IDEMPOTENCY_MAX_BODY = 3
        view = idempotent_view(lambda request: HttpResponse("long", headers={"Location": "/x"}))
        with hearing() as heard:
            self.send(view, served, {}, {})

        assert [(event.outcome, event.status) for event in heard] == [
            ("executed", 200),
            ("unavailable", 303),
        ]

    def test_form_and_query_differ_by_their_names(self, served):
        served(idempotent_view(lambda request: HttpResponse()))
        client = Client()
        headers = {"Idempotency-Key": "0198c5a2-7c1e-7b53-9d3c-2f1f0f6f3a11"}
        with hearing(signals.duplicate_found) as heard:
            client.post("/served/?dry=1", {"a": 1, "b": [1, 2]}, headers=headers)
            client.post("/served/?dry=2", {"a": 1, "b": [1, 3]}, headers=headers)

        assert [event.differences for event in heard] == [("/body/b", "/query/dry")]

    def test_long_body_has_no_outline(self, served):
        view = idempotent_view(lambda request: HttpResponse())
        with hearing(signals.duplicate_found) as heard:
            self.send(view, served, {"n": "1" * 70_000}, {"n": "2" * 70_000})

        assert [event.differences for event in heard] == [None]


class TestLocks:
    def test_lock_is_announced_from_its_taking_to_its_release(self):
        with hearing() as heard, lock("nightly"):
            pass

        facts = [(event.outcome, event.template, event.backend) for event in heard]
        assert facts == [("taken", "nightly", "default"), ("released", "nightly", "default")]

    def test_template_of_a_function_is_its_own(self):
        @lock("order:{order_id}:items")
        def work(order_id):
            pass

        with hearing() as heard:
            work(7)

        assert [(event.name, event.template) for event in heard] == [
            ("order:7:items", "order:{order_id}:items")
        ] * 2

    def test_whoever_is_turned_away_waits_or_is_mistaken_says_so(self):
        waiting = threading.Event()
        done = threading.Event()

        def hold():
            with lock("one"):
                waiting.set()
                done.wait(30)

        holder = threading.Thread(target=elsewhere, args=[hold])
        holder.start()
        waiting.wait(30)
        with hearing(signals.lock_taken, signals.lock_refused) as heard:
            with pytest.raises(LockUnavailable), lock("one"):
                pass
            done.set()
            with lock("one", wait=30), pytest.raises(LockReentered), lock("one"):
                pass
        holder.join(30)

        assert heard[0].outcome == "turned_away"
        assert [event.outcome for event in heard[1:]] in (["waited"], ["taken"])

    def test_lock_that_cannot_be_asked_for_is_an_error_of_its_store(self, monkeypatch):
        monkeypatch.setitem(LockLease._meta.__dict__, "db_table", Effect._meta.db_table)
        with hearing() as heard, pytest.raises(StoreUnavailable), lock("one"):
            pass

        assert [event.outcome for event in heard] == ["store_error"]

    def test_lost_lock_is_announced_when_it_is_left(self):
        with hearing(signals.lock_lost) as heard, pytest.raises(StaleLock), lock("one"):
            LockLease.objects.update(owner="another", token=2**62)

        assert [event.outcome for event in heard] == ["lost"]

    @pytest.mark.parametrize(
        ("name", "template"),
        [
            ("nightly", "nightly"),
            ("order:42", "order:…"),
            ("user:ada:items", "user:…"),
            ("order42", "order…"),
            ("stock/2026-11-26/all", "stock/…"),
            ("7f3a", "…"),
            ("order-1b4e28ba-2fa1-11d2-883f-0016d3cca427", "order-…"),
            ("invoice ada@example.com", "invoice …"),
            ("cart-ada", "cart-…"),
            ("ä" * 41, "ä" * 40 + "…"),
            ("", ""),
        ],
    )
    def test_literal_name_is_told_without_what_differs(self, name, template):
        assert template_of(name) == template


class TestRows:
    def test_stale_saves_and_deletions_are_announced(self):
        account = Account.objects.create()
        old = Account.objects.get(pk=account.pk)
        account.save()
        with hearing() as heard:
            with pytest.raises(StaleObject):
                old.save()
            with pytest.raises(StaleObject):
                old.delete()

        assert [(event.name, event.outcome) for event in heard] == [("tests.account", "stale")] * 2

    def test_each_stale_object_of_a_bulk_is_announced(self):
        account = Account.objects.create()
        old = [Account.objects.get(pk=account.pk) for _ in range(2)]
        account.save()
        with hearing() as heard:
            Account.objects.bulk_update([account, *old], ["balance"])

        assert [(event.name, event.outcome) for event in heard] == [("tests.account", "stale")] * 2

    def test_refusal_of_something_within_a_transition_is_announced_once(self):
        account, letter = Account.objects.create(), Letter.objects.create()
        old, sent = Account.objects.get(pk=account.pk), Letter.objects.create()
        account.save()
        sent.send()
        with hearing(*signals.OF_ROW.values()) as heard:
            with pytest.raises(StaleObject):
                letter.read(lambda _: old.save())
            with pytest.raises(TransitionConflict):
                letter.read(lambda _: sent.weigh())

        assert [(event.name, event.outcome) for event in heard] == [
            ("tests.account", "stale"),
            ("tests.letter.weigh", "conflict"),
        ]

    def test_transitions_are_announced_when_they_are_committed(self):
        letter = Letter.objects.create()
        other, third = (Letter.objects.get(pk=letter.pk) for _ in range(2))
        with hearing(*signals.OF_ROW.values()) as heard:
            letter.read()
            other.read()
            with pytest.raises(TransitionConflict):
                third.send()
            with suppress(ZeroDivisionError), transaction.atomic():
                letter.lose()
                fail()

        assert [(event.name, event.outcome) for event in heard] == [
            ("tests.letter.read", "moved"),
            ("tests.letter.read", "repeated"),
            ("tests.letter.send", "conflict"),
        ]
