"""Leases in time: renewed while their owner lives, lost when it does not."""

import asyncio
import math
import os
import signal
import threading
import time

import pytest
from asgiref.sync import sync_to_async
from django.db import connection, connections
from django.utils import timezone

from idempotency import KeyInProgress, StaleClaim, StoreUnavailable, current_claim, run_once
from idempotency.models import IdempotencyRecord
from idempotency.protocol import arun_once
from idempotency.renewal import Renewal, renewal
from idempotency.stores import get_store
from idempotency.testing.children import Child
from idempotency.uptime import uptime
from tests.conftest import end_leases, run_async, wait_until
from tests.models import Effect

pytestmark = pytest.mark.django_db(transaction=True)
one_writer = pytest.mark.skipif(
    connection.vendor == "sqlite", reason="no other writer while one works"
)


def place(work, key="key", **options):
    return run_once(work, scope="s", operation="o", key=key, mode="lease", **options)


@one_writer
def test_process_that_is_paused_beyond_its_lease_neither_completes_nor_leaves_effects():
    def outlive(report):
        def work():
            Effect.objects.create(name="late")
            report("stopping")
            os.kill(os.getpid(), signal.SIGSTOP)
            return "late"

        try:
            place(work, lease=0.5)
        except StaleClaim:
            report("stale")

    child = Child(outlive)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
    end_leases()
    newer = place(lambda: Effect.objects.create(name="newer").pk)
    os.kill(child.pid, signal.SIGCONT)
    reports, _ = child.join()

    assert reports == ["stopping", "stale"]
    assert [effect.name for effect in Effect.objects.all()] == ["newer"]
    assert place(lambda: "third").result == newer.result


def test_process_that_is_killed_frees_its_key_when_its_lease_is_over():
    def die(report):
        place(lambda: os.kill(os.getpid(), signal.SIGKILL), lease=1.0)

    started_at = time.monotonic()
    Child(die).join()
    with pytest.raises(KeyInProgress) as caught:
        place(lambda: "early")
    assert caught.value.retry_after == 1

    outcome = place(lambda: current_claim().attempt, wait=20)

    assert (outcome.result, outcome.replayed) == (2, False)
    assert 0.9 <= time.monotonic() - started_at < 5


def renews_for(store, worker):
    """Whether *worker* attends to claims of *store*, and not to what other tests have left."""
    return any(holding.renewer is store for holding in list(worker.holdings))


@one_writer
def test_many_leases_are_kept_by_one_thread_while_their_owners_are_busy():
    release = threading.Event()
    claims = 60
    failures = []

    def hold(number):
        def work():
            while number % 20 == 0 and not release.is_set():
                sum(range(2_000))  # Holds the interpreter's lock, as a busy view does.
            return release.wait(60)

        try:
            assert place(work, key=f"key-{number}", lease=2.0).replayed is False
        except BaseException as error:
            failures.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=hold, args=(number,)) for number in range(claims)]
    for thread in threads:
        thread.start()
    wait_until(lambda: IdempotencyRecord.objects.filter(state="in_progress").count() == claims, 60)
    refused = 0
    ends_at = time.monotonic() + 3.5
    while time.monotonic() < ends_at:
        for number in range(0, claims, 7):
            with pytest.raises(KeyInProgress):
                place(lambda: "twice", key=f"key-{number}")
            refused += 1
    renewers = [worker for worker in renewal.workers if renews_for(get_store(), worker)]
    release.set()
    for thread in threads:
        thread.join(60)

    assert [worker.thread.name for worker in renewers] == ["idempotency-renewal"]
    assert failures == []
    assert refused >= claims / 7
    assert set(IdempotencyRecord.objects.values_list("attempts", "state")) == {(1, "completed")}


@one_writer
def test_work_learns_that_its_claim_was_lost():
    seen = []

    def watched():
        thread = threading.Thread(target=take_away)
        thread.start()
        thread.join()
        wait_until(lambda: current_claim().lost)
        seen.append(current_claim().lost)

    def take_away():
        IdempotencyRecord.objects.update(token=1)
        connections.close_all()

    with pytest.raises(StaleClaim):
        place(watched, lease=0.6)

    assert seen == [True]


def test_coroutine_keeps_its_lease_until_its_end_is_written():
    lease, told = 0.5, []

    def keep_the_thread_busy():
        over = uptime() + 2 * lease
        wait_until(lambda: uptime() > over)
        with pytest.raises(KeyInProgress):
            place(lambda: "twice")
        told.append("in progress")

    async def work():
        busy = asyncio.ensure_future(sync_to_async(keep_the_thread_busy)())
        await asyncio.sleep(0)  # Now it is before the end of this in the queue of that thread.
        return busy

    async def run():
        busy = []

        async def remember():
            busy.append(await work())

        await arun_once(remember, scope="s", operation="o", key="key", lease=lease)
        await busy[0]

    run_async(run())

    assert told == ["in progress"]


@one_writer
def test_renewal_goes_on_after_the_store_was_away(monkeypatch, caplog):
    store = get_store()
    renew, tries = store.renew, []

    def away_once(claims):
        tries.append(len(claims))
        if len(tries) == 1:
            raise StoreUnavailable
        return renew(claims)

    monkeypatch.setattr(store, "renew", away_once)

    outcome = place(lambda: wait_until(lambda: len(tries) > 3), lease=0.9)

    assert outcome.replayed is False
    assert caplog.messages.count("Leases could not be renewed.") == 1


@one_writer
def test_lease_that_cannot_be_renewed_until_it_is_over_counts_as_lost(monkeypatch):
    def away(claims):
        raise StoreUnavailable

    monkeypatch.setattr(get_store(), "renew", away)

    outcome = place(lambda: wait_until(lambda: current_claim().lost), lease=0.6)

    assert outcome.replayed is False  # Nobody else wanted it.


@one_writer
def test_claim_that_hangs_is_not_renewed_for_ever(monkeypatch, caplog):
    monkeypatch.setattr("idempotency.renewal.holdings.MOST_LEASES", 1)

    def hang():
        wait_until(lambda: IdempotencyRecord.objects.get().ends_at < timezone.now())

    assert place(hang, lease=0.6).replayed is False
    assert "is now left to end" in caplog.text


def test_thread_ends_when_there_is_nothing_left_to_renew(monkeypatch):
    monkeypatch.setattr("idempotency.renewal.workers.IDLE", 0.05)
    own = Renewal()

    with own.holding(get_store(), None, 30):
        (worker,) = own.workers
        wait_until(lambda: worker.thread)
        thread = worker.thread

    wait_until(lambda: not thread.is_alive())
    assert own.workers == []
    with own.holding(get_store(), None, 30):
        wait_until(lambda: own.workers[0].thread.is_alive())


def test_child_of_a_fork_renews_nothing_of_its_parent():
    def look(report):
        report((len(renewal.holdings), renewal.workers))
        # No database is asked: SQLite may take a lock along that a thread of the parent held.
        with renewal.holding(get_store(), None, 30):
            wait_until(lambda: renewal.workers[0].thread)
            report(renewal.workers[0].thread.name)

    with renewal.holding(get_store(), None, 30):
        # A thread that begins may hold the lock of whoever measures the coverage.
        wait_until(lambda: any(worker._wakes_at < math.inf for worker in renewal.workers))
        reports, _ = Child(look).join()

    assert reports == [(0, []), "idempotency-renewal"]
