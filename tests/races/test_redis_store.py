"""What the store in Redis promises, kept by real processes and servers of their own."""

import os
import signal
import time
from contextlib import contextmanager

import pytest
from django.db import OperationalError, connection
from django.test import Client
from django.urls import path

from idempotency import (
    KeyInProgress,
    StaleClaim,
    StoreUnavailable,
    current_claim,
    idempotent_view,
    run_once,
)
from idempotency.stores import get_store
from idempotency.testing import race
from idempotency.testing.children import Child, Failure
from idempotency.testing.moments import visited
from tests.conftest import IN_BOTH, IN_REDIS, REDIS, elsewhere, end_leases, pause, redis_records
from tests.models import Effect
from tests.races.test_guarantees import LEVELS, isolate, key_of
from tests.test_http import effect

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("empty_redis")]

BOTH = pytest.mark.parametrize(
    "kept", [IN_REDIS, IN_BOTH], ids=["Redis", "Redis and database"], indirect=True
)
one_writer = pytest.mark.skipif(
    connection.vendor == "sqlite", reason="no other writer while one works"
)


@pytest.fixture
def kept(request):
    return getattr(request, "param", IN_BOTH)


@pytest.fixture(autouse=True)
def store(kept, settings):
    settings.IDEMPOTENCY_STORES = {"default": kept}


@pytest.fixture
def own(settings, own_redis, store):
    """Have the store in a server of the test's own."""
    kept = settings.IDEMPOTENCY_STORES["default"]
    settings.IDEMPOTENCY_STORES = {
        "default": kept | {"OPTIONS": {**kept["OPTIONS"], "cache": "own"}}
    }
    return own_redis


def place(number=0, work=lambda: None, **options):
    def run():
        made = Effect.objects.create(name=key_of(number))
        work()
        return made.pk

    return run_once(run, scope="s", operation="o", key=key_of(number), **options)


def effects_of(number=0):
    return Effect.objects.filter(name=key_of(number)).count()


def forget():
    for key in redis_records():
        REDIS.send("DEL", key)


@BOTH
def test_8_processes_with_8_duplicates_of_40_keys_make_40_effects(kept):
    def client(process):
        told = set()
        for number in range(40):
            try:
                place(number)
            except KeyInProgress:
                told.add("in progress")
        return told

    finishes = race(client, processes=8)

    assert [finish.error for finish in finishes] == [None] * 8
    assert {effects_of(number) for number in range(40)} == {1}


@pytest.mark.parametrize("level", [None, *LEVELS[connection.vendor]])
def test_twins_that_redis_lets_in_again_and_again_make_one_effect_each(level):
    def client(process):
        if level is not None:
            isolate(level)
        for number in range(40):
            if process == 0:
                forget()
            try:
                place(number)
            except (KeyInProgress, StaleClaim, StoreUnavailable, OperationalError):
                continue

    finishes = race(client, processes=6)

    assert [finish.error for finish in finishes] == [None] * 6
    forget()
    for number in range(40):
        place(number)
    assert {effects_of(number) for number in range(40)} == {1}


# Death at each step.


@contextmanager
def visited_scripts(visit):
    """Call *visit* before and after each message to Redis."""
    server = get_store().server
    exchange = server._exchange

    def visited_exchange(message, count):
        visit("before", "Redis")
        replies = exchange(message, count)
        visit("after", "Redis")
        return replies

    server._exchange = visited_exchange
    yield


def die_at(number, report):
    passed = 0

    def visit(when, what):
        nonlocal passed
        if passed == number:
            report(f"{when} {what}")
            os.kill(os.getpid(), signal.SIGKILL)
        passed += 1

    with visited(visit, ["default"]), visited_scripts(visit):
        place(number)


def deaths():
    """Let process after process die one moment later than the last; give each one's moment."""
    for number in range(100):
        reports, ended_by = Child(lambda report, n=number: die_at(n, report)).join()
        assert not any(isinstance(each, Failure) for each in reports), reports[-1]
        if not ended_by:
            return
        yield number, reports[-1]


@pytest.mark.parametrize("loss", ["nothing", "everything"])
def test_process_that_dies_at_any_step_leaves_one_effect_after_the_retry(loss):
    moments = []
    for number, moment in deaths():
        left = effects_of(number)
        end_leases()
        if loss == "everything":
            forget()

        replayed = place(number).replayed

        assert effects_of(number) == 1, moment
        assert replayed is bool(left), moment
        assert place(number).replayed
        moments.append(moment)

    assert moments.count("before Redis") == moments.count("after Redis") == 2
    assert "after COMMIT" in moments


@BOTH
def test_process_that_is_killed_frees_its_key_when_its_lease_is_over(kept):
    started_at = time.monotonic()
    Child(lambda report: place(work=lambda: os.kill(os.getpid(), signal.SIGKILL), lease=1.0)).join()
    with pytest.raises(KeyInProgress) as caught:
        place()

    outcome = run_once(
        lambda: current_claim().attempt, scope="s", operation="o", key=key_of(0), wait=20
    )

    assert caught.value.retry_after == 1
    assert (outcome.result, outcome.replayed) == (2, False)
    assert 0.9 <= time.monotonic() - started_at < 10


# Pauses beyond the lease.


def stopped(function):
    """Run *function* in a child until it stops itself; give the child."""
    child = Child(function)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
    return child


def stop():
    os.kill(os.getpid(), signal.SIGSTOP)


@one_writer
def test_process_that_is_paused_beyond_its_lease_leaves_no_effect():
    def outlive(report):
        try:
            place(work=stop, lease=0.5)
        except StaleClaim:
            report("stale")

    child = stopped(outlive)
    end_leases()
    newer = place()
    child_goes_on(child)

    assert effects_of() == 1
    assert place().result == newer.result


def child_goes_on(child):
    os.kill(child.pid, signal.SIGCONT)
    reports, _ = child.join()
    assert reports == ["stale"]


@BOTH
@one_writer
def test_view_that_is_paused_beyond_its_lease_rolls_back(kept, settings, atomic_requests):
    def view(request):
        response = effect(request)
        if request.headers.get("X-Stop"):
            stop()
        return response

    settings.ROOT_URLCONF = (path("served/", idempotent_view(lease=0.5, wait=20)(view)),)

    def post(**headers):
        client = Client(raise_request_exception=False)
        headers["Idempotency-Key"] = key_of(0)
        return client.post("/served/", headers=headers)

    def outlive(report):
        report("stale" if post(**{"X-Stop": "1"}).status_code >= 400 else "late")

    child = stopped(outlive)
    newer = post()
    child_goes_on(child)

    assert newer.status_code == 201
    assert post().content == newer.content
    assert Effect.objects.count() == 1


# A server that goes away.


@BOTH
@one_writer
@pytest.mark.parametrize("way", ["restart", "flush"])
def test_redis_that_forgets_while_a_view_runs_is_told_its_outcome(kept, own, way):
    def lose():
        if way == "flush":
            own.tell("FLUSHALL")
        else:
            own.stop()
            own.start()

    first = place(work=lose)

    assert (place().result, effects_of()) == (first.result, 1)


@BOTH
def test_redis_that_is_away_refuses_at_once_and_recovers_without_help(kept, own):
    place(1)
    own.stop()
    started_at = time.monotonic()
    for _ in range(3):
        with pytest.raises(StoreUnavailable) as caught:
            place()
    assert time.monotonic() - started_at < 1
    assert caught.value.retry_after == 1
    assert effects_of() == 0

    own.start()

    assert (place().replayed, place().replayed) == (False, True)


@BOTH
@pytest.mark.parametrize("way", ["SIGSTOP", "CLIENT PAUSE"])
def test_redis_that_hangs_costs_each_request_one_time_out(kept, own, served, way):
    send = served(idempotent_view(effect))
    if way == "CLIENT PAUSE":
        own.tell("CLIENT", "PAUSE", "2500")
    else:
        pause(own.pid)
    taken = []
    for number in range(3):
        started_at = time.monotonic()
        response = send(key_of(number))
        taken.append(time.monotonic() - started_at)

        assert (response.status_code, response["Retry-After"]) == (503, "1")
    if way == "SIGSTOP":
        os.kill(own.pid, signal.SIGCONT)

    assert max(taken) < 0.9
    assert not Effect.objects.exists()
    deadline = time.monotonic() + 20
    while send(key_of(7)).status_code != 201:
        assert time.monotonic() < deadline


@BOTH
def test_redis_that_hangs_at_the_end_of_a_view_does_not_hide_its_answer(kept, own, served, caplog):
    def view(request):
        pause(own.pid)
        return effect(request)

    send = served(idempotent_view(view))
    started_at = time.monotonic()
    try:
        response = send()
    finally:
        os.kill(own.pid, signal.SIGCONT)

    assert response.status_code == 201
    assert time.monotonic() - started_at < 3
    assert caplog.records


@BOTH
@one_writer
def test_end_of_a_call_is_told_to_a_redis_that_comes_back(kept, own):
    first = place(work=own.stop, lease=2.0)
    own.start()
    deadline = time.monotonic() + 20
    while kept is IN_REDIS and not own.tell("KEYS", "idempotency:*"):
        assert time.monotonic() < deadline  # The database knows it at once.

    again = place()

    assert (again.result, again.replayed, effects_of()) == (first.result, True, 1)


def fill(own, key):
    """Write until Redis has thrown *key* away."""
    for number in range(100_000):
        own.tell("SET", f"filler-{number}", "x" * 4_000)
        if not own.tell("EXISTS", key):
            return
    raise AssertionError("It was kept.")


@BOTH
@one_writer
def test_redis_that_evicts_a_running_claim(kept, own):
    own.tell("CONFIG", "SET", "maxmemory", "3mb", "maxmemory-policy", "allkeys-lru")

    def evict():
        (key,) = own.tell("KEYS", "idempotency:*")
        fill(own, key)
        elsewhere(place)

    with pytest.raises(StaleClaim):
        place(work=evict)

    # The page on guarantees says so.
    assert effects_of() == (2 if kept is IN_REDIS else 1)
    assert place().replayed
