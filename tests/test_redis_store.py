"""What the store in Redis does beyond the contract: lost replies, lost records, two places."""

import json
import sys
import threading
from contextlib import nullcontext

import pytest
from asgiref.sync import sync_to_async
from django.db import DatabaseError, OperationalError, connection, connections, transaction
from django.db.transaction import TransactionManagementError
from django.http import HttpResponse, JsonResponse
from django.test import AsyncClient, TestCase
from django.test.utils import CaptureQueriesContext

from idempotency import (
    InvalidBackend,
    KeyInProgress,
    OutcomeUnknown,
    StaleClaim,
    StoreUnavailable,
    current_claim,
    idempotent,
    idempotent_view,
    lock,
    run_once,
)
from idempotency.models import IdempotencyRecord, LockLease
from idempotency.protocol import arun_once
from idempotency.stores import get_store
from idempotency.stores.base import Answer, Bid, Call, Claim
from tests.conftest import (
    IN_BOTH,
    IN_REDIS,
    KEY,
    REDIS,
    elsewhere,
    end_leases,
    end_retention,
    redis_records,
    run_async,
    wait_until,
)
from tests.models import Effect
from tests.races.test_connections import unconfirmed_commit
from tests.test_http import effect, problem

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("empty_redis")]

CALL = Call("user:1", "POST orders:create", "key", "1:fingerprint")
PLACED = Call("s", "o", "key")
BOTH = pytest.mark.parametrize("kept", [IN_REDIS, IN_BOTH], ids=["Redis", "Redis and database"])


@pytest.fixture
def in_redis(settings):
    settings.IDEMPOTENCY_STORES = {"default": IN_REDIS}
    return get_store()


@pytest.fixture
def in_both(settings):
    settings.IDEMPOTENCY_STORES = {"default": IN_BOTH}
    return get_store()


@pytest.fixture
def kept_in(settings, kept):
    settings.IDEMPOTENCY_STORES = {"default": kept}


def claim(store, token=100, **more):
    return store.claim(CALL, Bid(token, 30.0, retention=60, **more))


def place(name="effect", *, key="key", **options):
    def work():
        return Effect.objects.create(name=name).pk

    return run_once(work, scope="s", operation="o", key=key, **options)


def forget():
    """Lose all records, as an eviction, a flush or a fail-over does."""
    for key in redis_records():
        REDIS.send("DEL", key)


def record():
    (key,) = redis_records()
    words = REDIS.send("HGETALL", key)
    if not isinstance(words, dict):
        words = dict(zip(words[::2], words[1::2], strict=True))
    return {name.decode(): value.decode(errors="replace") for name, value in words.items()}


# What is in Redis.


def test_record_is_one_hash_whose_key_has_a_tag_and_the_prefix_of_the_cache(in_redis):
    claim(in_redis)

    (key,) = redis_records()
    assert key.decode() == f"idempotency:{{{CALL.id.hex}}}:{REDIS.space}"
    assert record()["operation"] == "POST orders:create"


def test_claim_is_kept_for_a_day_beyond_its_lease(in_redis):
    claim(in_redis)

    assert 86_400 + 25 < REDIS.send("TTL", redis_records()[0]) <= 86_400 + 30


def test_outcome_is_forgotten_when_its_retention_is_over(in_redis):
    in_redis.settle(claim(in_redis), "completed", Answer(200), 60)

    assert 55 < REDIS.send("TTL", redis_records()[0]) <= 60


def test_unknown_outcome_is_kept_until_somebody_decides(in_redis):
    claim(in_redis)
    end_leases()
    in_redis.block(CALL, in_redis.look(CALL))

    assert REDIS.send("TTL", redis_records()[0]) == -1


def test_tokens_of_63_bits_are_exact(in_redis):
    highest = 2**63 - 1
    claimed = claim(in_redis, highest)

    assert claimed.token == in_redis.look(CALL).token == highest
    with pytest.raises(StaleClaim):
        in_redis.settle(Claim(CALL, highest - 1, 1, 30.0), "completed", Answer(), 60)


# Lost replies: what had been sent on a connection that died is sent once more.


def sent_twice(monkeypatch, store):
    """Let each script of *store* be executed twice, as if the first reply had been lost."""
    exchange = store.server._exchange

    def twice(message, count):
        exchange(message, count)
        return exchange(message, count)

    monkeypatch.setattr(store.server, "_exchange", twice)


@BOTH
def test_repeated_steps_are_known_by_their_mark(kept_in, monkeypatch):
    store = get_store()
    sent_twice(monkeypatch, store)

    claimed = claim(store)
    assert claimed == Claim(CALL, 100, 1, 30.0)
    assert store.renew([claimed]) == []
    store.settle(claimed, "released", Answer(), 60)
    again = claim(store, 200)
    assert (again.token, again.attempt) == (200, 2)
    end_leases()
    assert store.block(CALL, store.look(CALL))


@BOTH
def test_repeated_completion_is_one(kept_in, monkeypatch):
    sent_twice(monkeypatch, get_store())

    assert (place().replayed, place().replayed) == (False, True)
    assert Effect.objects.count() == 1


# Lost records.


def test_claim_that_redis_lost_is_completed_even_so(in_redis):
    claimed = claim(in_redis)
    forget()

    in_redis.settle(claimed, "completed", Answer(201, [], b"x"), 60)

    assert in_redis.look(CALL).answer == Answer(201, [], b"x")


def test_claim_that_redis_lost_is_renewed_even_so(in_redis):
    claimed = claim(in_redis)
    forget()

    assert in_redis.renew([claimed]) == []
    assert in_redis.look(CALL).is_held_by(100)
    assert in_redis.look(CALL).fingerprint == CALL.fingerprint
    assert REDIS.send("TTL", redis_records()[0]) > 86_400


def test_claim_that_redis_lost_needs_no_release(in_redis):
    claimed = claim(in_redis)
    forget()

    in_redis.settle(claimed, "released", Answer(), 60)

    assert redis_records() == []


def test_claim_that_redis_lost_and_gave_again_is_stale(in_redis):
    claimed = claim(in_redis)
    forget()
    claim(in_redis, 200)

    assert in_redis.renew([claimed]) == [claimed]
    with pytest.raises(StaleClaim):
        in_redis.settle(claimed, "completed", Answer(), 60)


# The database behind it.


def test_outcome_is_in_the_database_as_well(in_both):
    assert place().replayed is False

    kept = IdempotencyRecord.objects.get()
    assert (kept.state, kept.attempts, kept.key) == ("completed", 1, "key")
    assert record()["state"] == "completed"


def test_outcome_that_redis_lost_is_replayed_and_written_there_again(in_both):
    first = place()
    forget()

    again = place()

    assert (again.result, again.replayed) == (first.result, True)
    assert record()["state"] == "completed"
    assert record()["token"] == f"{IdempotencyRecord.objects.get().token:019}"
    assert Effect.objects.count() == 1


def test_outcome_that_redis_lost_is_kept_no_longer_than_its_retention(in_both):
    place(retention=60)
    forget()

    assert place(retention=9_000).replayed
    (key,) = redis_records()
    assert 50 < REDIS.send("TTL", key) <= 60


def test_outcome_that_redis_lost_is_not_given_to_another_input(in_both):
    place(fingerprint="1:a")
    forget()

    assert problem_of(lambda: place(fingerprint="1:b")) == "KeyReused"


def problem_of(call):
    try:
        call()
    except Exception as error:
        return type(error).__name__


def test_outcome_whose_retention_is_over_in_both_places_is_made_anew(in_both):
    place(retention=60)
    end_retention()

    assert place("second").replayed is False
    assert IdempotencyRecord.objects.count() == 1
    assert Effect.objects.count() == 2


@pytest.mark.skipif("connection.vendor == 'sqlite'", reason="no other writer while one works")
def test_twin_that_redis_let_in_by_mistake_is_rolled_back(in_both):
    def work():
        Effect.objects.create(name="late")
        forget()
        twin = threading.Thread(target=lambda: (place("first"), connections.close_all()))
        twin.start()
        twin.join()
        return "late"

    with pytest.raises(StaleClaim):
        run_once(work, scope="s", operation="o", key="key")

    assert [each.name for each in Effect.objects.all()] == ["first"]
    assert place().replayed is True


def test_worker_that_died_between_commit_and_redis_is_replayed(in_both, monkeypatch):
    monkeypatch.setattr(in_both.hashes, "end", lambda end: None)
    first = place()
    monkeypatch.undo()
    with pytest.raises(KeyInProgress):
        place()
    end_leases()

    again = place()

    assert (again.result, again.replayed) == (first.result, True)


@pytest.mark.parametrize("on_crash", ["retry", "block"])
def test_crash_after_the_commit_is_no_unknown_outcome(in_both, monkeypatch, on_crash):
    monkeypatch.setattr(in_both.hashes, "end", lambda end: None)
    first = place(on_crash=on_crash)
    monkeypatch.undo()
    end_leases()

    assert place(on_crash=on_crash).result == first.result


def test_crash_before_the_commit_is_an_unknown_outcome_if_so_asked(in_both):
    claimed = in_both.claim(Call("s", "o", "key"), Bid(1, 30.0, 60))
    end_leases()
    assert isinstance(claimed, Claim)

    for _ in range(2):
        with pytest.raises(OutcomeUnknown):
            place(on_crash="block")
        forget()
    assert IdempotencyRecord.objects.get().state == "unknown"


def become_unknown(store):
    store.settle(store.claim(PLACED, Bid(100, 30.0, 60)), "unknown", Answer(), 60)


@BOTH
def test_person_lets_an_unknown_outcome_run_again(kept_in):
    store = get_store()
    become_unknown(store)
    seen = store.look(PLACED)

    assert store.decide(PLACED, seen, "released", Answer())
    assert not store.decide(PLACED, seen, "completed", Answer())

    assert not place().replayed
    assert Effect.objects.count() == 1


@BOTH
def test_person_completes_an_unknown_outcome(kept_in):
    store = get_store()
    become_unknown(store)

    assert store.decide(PLACED, store.look(PLACED), "completed", Answer(body=b'"made"'))

    outcome = place()
    assert (outcome.result, outcome.replayed) == ("made", True)


@pytest.mark.parametrize("is_in_redis", [True, False])
def test_what_a_person_decides_in_the_table_holds_in_redis(in_both, is_in_redis):
    become_unknown(in_both)
    record_of = IdempotencyRecord.objects.filter(state="unknown")
    if not is_in_redis:
        forget()
    with pytest.raises(OutcomeUnknown):
        place()

    assert record_of.update(state="released") == 1

    assert not place().replayed
    assert Effect.objects.count() == 1


def test_unknown_outcome_that_only_redis_has_is_written_to_the_database(in_both):
    become_unknown(in_both)
    IdempotencyRecord.objects.all().delete()

    with pytest.raises(OutcomeUnknown):
        place()

    kept = IdempotencyRecord.objects.get()
    assert (kept.state, kept.token, kept.key) == ("unknown", 100, "key")


def test_redis_that_is_away_after_the_commit_does_not_hide_the_result(in_both, monkeypatch, caplog):
    def away(end):
        raise StoreUnavailable

    monkeypatch.setattr(in_both.hashes, "end", away)
    first = place()
    monkeypatch.undo()

    assert first.replayed is False
    assert "Redis does not know it" in caplog.text
    end_leases()
    assert place().result == first.result


@pytest.mark.parametrize("protect", [idempotent_view, lock("served", backend="own")])
def test_what_a_redis_refuses_with_is_logged(settings, served, own_redis, protect, caplog):
    settings.IDEMPOTENCY_STORES = {"default": IN_REDIS | {"OPTIONS": {"cache": "own"}}}
    locks = {"BACKEND": "idempotency.locks.redis.RedisLockBackend", "OPTIONS": {"cache": "own"}}
    settings.IDEMPOTENCY_LOCKS = {"default": {}, "own": locks}
    send = served(protect(effect))
    own_redis.tell("CONFIG", "SET", "requirepass", "secret")

    response = send()

    assert response.status_code == 503
    (told,) = [message for message in caplog.messages if "Answered 503" in message]
    assert "Cause: AuthenticationError: " in told
    assert KEY not in caplog.text
    assert not Effect.objects.exists()


def test_database_that_is_away_refuses_and_frees_the_key(in_both, monkeypatch):
    monkeypatch.setitem(IdempotencyRecord._meta.__dict__, "db_table", LockLease._meta.db_table)
    in_both.completions._dialects.clear()
    with pytest.raises(StoreUnavailable):
        place()
    monkeypatch.undo()
    in_both.completions._dialects.clear()

    assert record()["state"] == "released"
    assert place().replayed is False


def test_database_that_is_not_migrated_refuses_and_frees_the_key(in_both, not_migrated, settings):
    in_both.completions._dialects.clear()
    settings.IDEMPOTENCY_STORES = {"default": IN_BOTH}

    with pytest.raises(InvalidBackend, match="has no table no_idempotency_idempotencyrecord"):
        place()

    assert record()["state"] == "released"
    assert Effect.objects.count() == 0


def test_unknown_outcome_is_not_told_while_the_database_is_away(in_both, monkeypatch):
    in_both.settle(in_both.claim(Call("s", "o", "key"), Bid(1, 30, 60)), "unknown", Answer(), 60)
    monkeypatch.setitem(IdempotencyRecord._meta.__dict__, "db_table", LockLease._meta.db_table)
    in_both.completions._dialects.clear()
    with pytest.raises(StoreUnavailable):
        place()
    monkeypatch.undo()
    in_both.completions._dialects.clear()

    with pytest.raises(OutcomeUnknown):
        place()


def test_record_of_a_store_in_the_database_stands_in_the_way_as_there(settings, in_both):
    settings.IDEMPOTENCY_STORES = {"default": IN_BOTH, "old": {}}
    get_store("old").claim(Call("s", "o", "key"), Bid(7, 30.0, 60))

    with pytest.raises(KeyInProgress):
        place()
    end_leases()

    assert place().replayed is False
    assert IdempotencyRecord.objects.get().state == "completed"


def test_abandoned_record_of_a_store_in_the_database_is_blocked_as_there(settings, in_both):
    settings.IDEMPOTENCY_STORES = {"default": IN_BOTH, "old": {}}
    get_store("old").claim(Call("s", "o", "key"), Bid(7, 30.0, 60))
    end_leases()

    for _ in range(2):
        with pytest.raises(OutcomeUnknown):
            place(on_crash="block")
    assert not Effect.objects.exists()


def test_interruption_of_the_look_frees_the_key(in_both, monkeypatch):
    def interrupt(call):
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(in_both.completions, "look_first", interrupt)
    with pytest.raises(KeyboardInterrupt):
        place()

    assert record()["state"] == "released"


def test_failure_of_the_work_rolls_back_and_releases(in_both):
    def fail():
        Effect.objects.create(name="undone")
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - its own.
        run_once(fail, scope="s", operation="o", key="key")

    assert not Effect.objects.exists()
    assert not IdempotencyRecord.objects.exists()
    assert record()["state"] == "released"
    assert place().replayed is False


def test_commit_that_fails_releases(in_both):
    def work():
        def refuse():
            del connection.commit
            raise OperationalError("no")

        connection.commit = refuse

    with pytest.raises(OperationalError):
        run_once(work, scope="s", operation="o", key="key")

    assert record()["state"] == "released"


@pytest.mark.parametrize("on_error", ["store", "block"])
def test_error_may_be_kept_in_both_places(in_both, on_error):
    def fail():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        run_once(fail, scope="s", operation="o", key="key", on_error=on_error)
    if on_error == "store":
        forget()

    expected = {"store": "ReplayUnavailable", "block": "OutcomeUnknown"}[on_error]
    assert problem_of(lambda: place(on_error=on_error)) == expected


def test_asynchronous_work_is_recorded_after_its_effects(in_both):
    async def work():
        return (await Effect.objects.acreate(name="async")).pk

    async def place_twice():
        first = await arun_once(work, scope="s", operation="o", key="key")
        await sync_to_async(forget)()
        return first, await arun_once(work, scope="s", operation="o", key="key")

    first, again = run_async(place_twice())

    assert (first.result, again.result, again.replayed) == (again.result, first.result, True)


def test_completion_without_a_transaction_is_refused_if_another_was_first(settings, in_both):
    settings.IDEMPOTENCY_STORES = {"default": IN_BOTH, "old": {}}
    mine, old = claim(in_both), get_store("old")
    old.settle(claim(old, 7), "completed", Answer(200), 60)

    with pytest.raises(StaleClaim):
        in_both.settle(mine, "completed", Answer(201), 60)

    assert in_both.look(CALL).answer == Answer(200)


# Transactions around it.


@BOTH
def test_open_transaction_is_refused(kept_in):
    with (
        transaction.atomic(),
        pytest.raises(transaction.TransactionManagementError, match="may still roll back"),
    ):
        place()

    assert redis_records() == []


@pytest.mark.django_db
@BOTH
def test_transaction_of_a_test_case_is_none(kept_in):
    class Case(TestCase):
        def test(self):
            assert [place().replayed, place().replayed] == [False, True]

    result = Case("test").run()

    assert [*result.errors, *result.failures] == []


@BOTH
def test_mode_atomic_is_refused(kept_in):
    with pytest.raises(InvalidBackend, match="needs a store in the database"):
        place(mode="atomic")


# Views.


@BOTH
@pytest.mark.parametrize("requests", ["plain", "atomic"])
def test_view_takes_effect_once(request, kept_in, served, requests):
    if requests == "atomic":
        request.getfixturevalue("atomic_requests")
    send = served(idempotent_view(effect))

    first, again = send(), send()

    assert (first.status_code, again.status_code) == (201, 201)
    assert again["Idempotent-Replayed"] == "true"
    assert first.content == again.content
    assert problem(send(body=b'{"a": 2}')) == "key-reused"
    assert Effect.objects.count() == 1


@BOTH
def test_answer_that_frees_the_key_keeps_its_effects(kept_in, served):
    @idempotent_view
    def view(request):
        effect(request)
        return HttpResponse(status=409)

    send = served(view)

    assert [send().status_code, send().status_code] == [409, 409]
    assert Effect.objects.count() == 2


@BOTH
def test_asynchronous_view_takes_effect_once(kept_in, served):
    @idempotent_view
    async def view(request):
        made = await Effect.objects.acreate(name="async")
        return JsonResponse({"effect": made.pk})

    served(view)

    async def post():
        client = AsyncClient()
        more = {"content_type": "application/json", "headers": {"Idempotency-Key": KEY}}
        return [await client.post("/served/", b"{}", **more) for _ in range(2)]

    first, again = run_async(post())

    assert first.content == again.content
    assert again["Idempotent-Replayed"] == "true"


@BOTH
def test_function_takes_effect_once(kept_in):
    @idempotent(key=lambda number: f"message-{number}")
    def consume(number):
        return Effect.objects.create(name=str(number)).pk

    assert consume(1) == consume(1)
    assert Effect.objects.count() == 1


@BOTH
def test_effect_that_was_rolled_back_is_never_replayed(kept_in, served, atomic_requests):
    @idempotent_view
    def view(request):
        effect(request)
        transaction.set_rollback(True)
        return HttpResponse("done")

    send = served(view)

    assert [send().content, "Idempotent-Replayed" in send()] == [b"done", False]
    assert not Effect.objects.exists()


@BOTH
@pytest.mark.parametrize("is_told", [True, False])
def test_broken_transaction_is_never_replayed(kept_in, served, atomic_requests, is_told):
    if not is_told and connection.vendor != "postgresql":
        pytest.skip("an error breaks no transaction here")
    block = transaction.atomic(savepoint=False) if is_told else nullcontext()

    @idempotent_view
    def view(request):
        effect(request)
        try:
            with connection.cursor() as cursor, block:
                cursor.execute("SELECT * FROM no_such_table")
        except DatabaseError:
            return HttpResponse("done")

    send = served(view)

    answers = [send(), send()]
    assert not any("Idempotent-Replayed" in answer for answer in answers)
    assert is_told or [answer.status_code for answer in answers] == [500, 500]
    assert not Effect.objects.exists()


@BOTH
@pytest.mark.parametrize("on_error", ["store", "block"])
def test_transaction_that_cannot_begin_frees_the_key(
    kept_in, served, atomic_requests, monkeypatch, on_error
):
    def fail(*args, **kwargs):
        monkeypatch.undo()
        monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
        raise OperationalError("the database is away")

    send = served(idempotent_view(on_error=on_error)(effect))
    connection.ensure_connection()
    monkeypatch.setattr(connection, "set_autocommit", fail)
    first = send()

    assert first.status_code in (201, 503)
    assert send().status_code == 201
    assert Effect.objects.count() == 1


@pytest.mark.parametrize(("on_error", "status"), [("store", 201), ("block", 409)])
def test_commit_that_is_given_up_for_an_unreachable_store_is_no_answer(
    in_redis, served, atomic_requests, monkeypatch, on_error, status
):
    def away(claims):
        monkeypatch.setattr(in_redis, "renew", lambda claims: [])
        raise StoreUnavailable

    @idempotent_view(on_error=on_error)
    def view(request):
        current_claim()._holding.ends_at = 0  # As after a pause of the process.
        return effect(request)

    monkeypatch.setattr(in_redis, "renew", away)
    send = served(view)

    assert [send().status_code, send().status_code] == [503, status]
    assert Effect.objects.count() == (status == 201)


@BOTH
def test_callback_that_fails_after_the_commit_undoes_nothing(
    kept_in, served, atomic_requests, caplog
):
    @idempotent_view
    def view(request):
        transaction.on_commit(lambda: 1 / 0)
        return effect(request)

    send = served(view)
    send()

    assert send()["Idempotent-Replayed"] == "true"
    assert Effect.objects.count() == 1


@pytest.mark.skipif("connection.vendor == 'sqlite'", reason="a file has no connection to lose")
@pytest.mark.parametrize(
    ("kept", "on_crash", "told", "effects"),
    [
        (IN_REDIS, "retry", [503, 201], 2),  # At least once.
        (IN_REDIS, "block", [503, 409], 1),  # At most once.
        (IN_BOTH, "retry", [201, 409], 1),
    ],
)
def test_commit_that_nobody_confirms_is_as_its_page_says(
    kept_in, served, atomic_requests, on_crash, told, effects
):
    send = served(idempotent_view(on_crash=on_crash)(effect))

    with unconfirmed_commit(committed=True):
        first = send()
    again = send()

    assert [first.status_code, again.status_code] == told
    assert Effect.objects.count() == effects
    end_leases()
    if effects == 1 and on_crash == "retry":
        assert send()["Idempotent-Replayed"] == "true"


@BOTH
@pytest.mark.parametrize("is_taken_over", [True, False])
def test_view_that_outlived_its_lease_commits_only_if_nobody_took_over(
    kept_in, served, atomic_requests, is_taken_over
):
    def take_over(call):
        for key in redis_records():
            REDIS.send("HSET", key, "ends_at", 1_000)
        assert isinstance(get_store().claim(call, Bid(2**62, 30.0, 60)), Claim)

    def view(request):
        current_claim()._holding.ends_at = 0  # As after a pause of the process.
        if is_taken_over:
            call = current_claim()._claim.call
            elsewhere(lambda: take_over(call))
        return effect(request)

    response = served(idempotent_view(view))()

    assert response.status_code == (409 if is_taken_over else 201)
    assert Effect.objects.count() == (not is_taken_over)


@BOTH
def test_unprotected_run_has_the_transaction_of_its_request(
    kept_in, served, atomic_requests, own_redis, settings
):
    options = {**get_store().options, "cache": "own"}
    settings.IDEMPOTENCY_STORES = {"default": IN_REDIS | {"OPTIONS": options}}
    own_redis.stop()

    @idempotent_view(on_store_error="run")
    def view(request):
        return JsonResponse({"is_atomic": connection.in_atomic_block})

    assert json.loads(served(view)().content) == {"is_atomic": True}
    own_redis.start()


# What it costs, on a server that nobody else asks anything.


@pytest.fixture
def counted(request, settings, own_redis):
    """Give a function that tells of a call how many scripts and statements it sent."""
    options = request.param["OPTIONS"] | {"cache": "own"}
    settings.IDEMPOTENCY_STORES = {"default": request.param | {"OPTIONS": options}}

    def scripts_run():
        stats = own_redis.tell("INFO", "commandstats")
        return stats.get("cmdstat_evalsha", {"calls": 0})["calls"]

    def count(call):
        """Give the scripts that *call* sends, and its statements besides BEGIN and COMMIT."""
        before = scripts_run()
        with CaptureQueriesContext(connection) as queries:
            call()
        sent = [each["sql"] for each in queries if not each["sql"].startswith(("BEGIN", "COMMIT"))]
        return scripts_run() - before, len(sent)

    place(key="any")  # The server knows the scripts after it.
    return count


@pytest.mark.parametrize("counted", [IN_REDIS], indirect=True)
def test_first_call_costs_two_round_trips_and_a_replay_one(counted):
    assert counted(place) == (2, 1)
    assert counted(place) == (1, 0)


@pytest.mark.parametrize("counted", [IN_BOTH], indirect=True)
def test_database_behind_it_adds_a_look_and_an_insert(counted):
    assert counted(place) == (2, 3)
    assert counted(place) == (1, 0)


# A Redis that is full, hangs, or comes back older than it was


@pytest.fixture
def kept_by_own(request, settings, own_redis):
    """Keep records in a Redis of this test's own, and give its store."""
    options = request.param["OPTIONS"] | {"cache": "own"}
    settings.IDEMPOTENCY_STORES = {"default": request.param | {"OPTIONS": options}}
    return get_store()


in_own_redis = pytest.mark.parametrize(
    "kept_by_own", [IN_REDIS, IN_BOTH], ids=["Redis", "Redis and database"], indirect=True
)


@in_own_redis
def test_full_redis_takes_no_claim_but_keeps_and_ends_those_it_has(kept_by_own, own_redis):
    claimed = claim(kept_by_own)
    own_redis.tell("CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "1")

    assert kept_by_own.renew([claimed]) == []
    with pytest.raises(StoreUnavailable):
        kept_by_own.claim(Call("s", "o", "other", ""), Bid(7, 30.0, retention=60))
    kept_by_own.settle(claimed, "completed", Answer(200), 60)
    assert kept_by_own.look(CALL).state == "completed"


@in_own_redis
def test_full_redis_blocks_an_abandoned_claim(kept_by_own, own_redis):
    kept_by_own.claim(CALL, Bid(7, 0.001, retention=60))
    wait_until(lambda: kept_by_own.look(CALL).is_abandoned)
    own_redis.tell("CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "1")

    assert kept_by_own.block(CALL, kept_by_own.look(CALL))
    assert kept_by_own.look(CALL).state == "unknown"


@in_own_redis
def test_claim_outlives_an_older_record_that_a_fail_over_brings_back(kept_by_own, own_redis):
    kept_by_own.settle(claim(kept_by_own, 7), "released", Answer(), 60)
    (key,) = own_redis.tell("KEYS", "idempotency:*")
    older = own_redis.tell("DUMP", key)
    claimed = claim(kept_by_own, 8)
    own_redis.tell("RESTORE", key, 60_000, older, "REPLACE")

    assert kept_by_own.renew([claimed]) == []
    assert kept_by_own.look(CALL).token == 8
    own_redis.tell("RESTORE", key, 60_000, older, "REPLACE")
    kept_by_own.settle(claimed, "completed", Answer(200), 60)
    assert kept_by_own.look(CALL).state == "completed"


@in_own_redis
def test_claim_that_was_carried_out_for_one_who_had_gone_is_freed(kept_by_own, own_redis):
    with own_redis.paused(), pytest.raises(StoreUnavailable):
        place(lease=1)

    assert not Effect.objects.exists()
    # Not at the end of its lease, but as soon as it is asked for again.
    wait_until(lambda: (seen := kept_by_own.look(PLACED)) is None or seen.is_free)
    assert not place(on_crash="block").replayed


@in_own_redis
def test_claim_that_comes_after_it_was_freed_is_none(kept_by_own, own_redis, monkeypatch):
    sent = []

    def lose(script, keys, words):
        sent.append((script, keys, words))
        monkeypatch.undo()
        raise StoreUnavailable

    monkeypatch.setattr(kept_by_own.server, "run", lose)
    with pytest.raises(StoreUnavailable):
        place()
    wait_until(lambda: own_redis.tell("KEYS", "idempotency:*"))

    (late,) = sent
    assert kept_by_own.server.run(*late)[0] == b"behind"
    assert not place().replayed


@BOTH
def test_transaction_by_hand_is_refused(kept_in):
    transaction.set_autocommit(False)
    try:
        with pytest.raises(TransactionManagementError, match="atomic"):
            place()
        transaction.rollback()
    finally:
        transaction.set_autocommit(True)

    assert not place().replayed
    assert Effect.objects.count() == 1


@pytest.mark.parametrize("on_error", ["store", "block"])
def test_error_before_the_work_frees_the_key_whatever_errors_mean(in_both, monkeypatch, on_error):
    def fail(*args, **kwargs):
        monkeypatch.undo()
        raise OperationalError("the database is away")

    connection.ensure_connection()
    monkeypatch.setattr(connection, "set_autocommit", fail)
    with pytest.raises((StoreUnavailable, OperationalError)):
        place(on_error=on_error)

    assert not place(on_error=on_error).replayed
    assert Effect.objects.count() == 1


@pytest.mark.parametrize("option", ["lease", "retention"])
def test_duration_that_no_clock_can_count_is_refused(in_redis, option):
    with pytest.raises(ValueError, match=f"{option} is a number of seconds"):
        place(**{option: sys.maxsize})
