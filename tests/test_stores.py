"""The contract of every store."""

import pytest
from django.db import connection, connections, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from idempotency import InvalidBackend, StaleClaim, StoreUnavailable
from idempotency.models import IdempotencyRecord
from idempotency.stores import build_store, get_store
from idempotency.stores.base import Answer, Bid, Call, Claim, Seen
from idempotency.stores.dialects import MariaDB, MySQL
from idempotency.stores.recent import Recent
from idempotency.stores.sql import NEVER
from tests.conftest import IN_BOTH, IN_REDIS, end_leases, end_retention

pytestmark = pytest.mark.django_db(transaction=True)

CALL_PARTS = ("user:1", "POST orders:create", "key", "1:fingerprint")
CALL = Call(*CALL_PARTS)
ANSWER = Answer(201, [["Content-Type", "text/plain"]], bytes(range(256)))


STORES = {"database": {}, "Redis": IN_REDIS, "Redis and database": IN_BOTH}
only_database = pytest.mark.parametrize("store", ["database"], indirect=True)


@pytest.fixture(params=STORES)
def store(request, settings):
    if request.param != "database":
        request.getfixturevalue("empty_redis")
    settings.IDEMPOTENCY_STORES = {"default": STORES[request.param]}
    return get_store()


def claim(store, call=CALL, *, token=100, lease=30.0, **more):
    return store.claim(call, Bid(token, lease, retention=60, **more))


def test_first_caller_gets_the_claim(store):
    claimed = claim(store)

    assert claimed == Claim(CALL, 100, 1, 30.0)


def test_second_caller_sees_the_first(store):
    claim(store)

    seen = claim(store, token=200)

    assert isinstance(seen, Seen)
    assert (seen.state, seen.token, seen.attempt) == ("in_progress", 100, 1)
    assert seen.fingerprint == CALL.fingerprint
    assert 28 < seen.lease_left <= 30


def test_try_that_was_interrupted_gets_the_claim_that_was_recorded(store):
    claimed = claim(store)

    assert claim(store, is_unconfirmed=True) == claimed


def test_twin_with_the_same_token_by_chance_gets_no_claim(store):
    claim(store)

    assert isinstance(claim(store), Seen)


def test_completed_call_gives_its_exact_answer(store):
    store.settle(claim(store), "completed", ANSWER, 60)

    seen = claim(store, token=200)

    assert (seen.state, seen.answer, seen.is_expired) == ("completed", ANSWER, False)


def test_answer_without_a_body_differs_from_an_empty_one(store):
    store.settle(claim(store), "completed", Answer(204, [], b""), 60)
    other = Call("user:1", "other", "key")
    store.settle(claim(store, other, token=7), "completed", Answer(200, None, None), 60)

    assert store.look(CALL).answer == Answer(204, [], b"")
    assert store.look(other).answer == Answer(200, None, None)


def test_released_call_may_be_claimed_with_a_greater_token(store):
    store.settle(claim(store, token=10**18), "released", Answer(), 60)

    again = claim(store, token=200)

    assert again.token > 10**18
    assert again.attempt == 2


def test_lease_that_is_over_is_taken_over_with_a_greater_token(store):
    claim(store)
    end_leases()

    taken = claim(store, token=200)

    assert (taken.token, taken.attempt) == (200, 2)


def test_claim_tells_whether_it_was_taken_over(store):
    first = claim(store)
    end_leases()
    second = claim(store, token=200)
    store.settle(second, "released", Answer(), 60)
    third = claim(store, token=300)

    assert [one.taken_over for one in (first, second, third)] == [False, True, False]


def test_record_knows_outline_and_origin_of_whoever_claimed_it_last(store):
    first = Call(*CALL_PARTS, outline='{"/body/n": "1"}', origin="00-1-1-01")
    second = Call(*CALL_PARTS, outline='{"/body/n": "2"}', origin="00-2-2-01")
    store.settle(claim(store, first), "released", Answer(), 60)
    store.settle(claim(store, second, token=200), "completed", ANSWER, 60)

    for seen in (store.look(CALL), claim(store, token=300)):
        assert (seen.outline, seen.origin) == ('{"/body/n": "2"}', "00-2-2-01")


@only_database
@pytest.mark.parametrize("how", ["settle", "block"])
def test_unknown_outcome_lies_behind_all_others_until_it_is_decided(store, how):
    if how == "settle":
        store.settle(claim(store), "unknown", Answer(), 60)
    else:
        claim(store)
        end_leases()
        assert store.block(CALL, store.look(CALL))
    behind = IdempotencyRecord.objects.filter(purge_after__gte=NEVER)
    assert behind.count() == 1

    assert store.decide(CALL, store.look(CALL), "completed", ANSWER)
    assert behind.count() == 0


def test_lease_that_is_over_is_only_seen_if_nobody_wants_to_take_over(store):
    claim(store)
    end_leases()

    seen = claim(store, token=200, take_over=False)

    assert seen.is_abandoned


def test_lease_that_is_over_is_not_taken_over_with_another_input(store):
    claim(store)
    end_leases()

    seen = claim(store, Call(CALL.scope, CALL.operation, CALL.key, "1:other"), token=200)

    assert (seen.token, seen.fingerprint) == (100, CALL.fingerprint)


def test_retention_that_is_over_makes_the_key_new_for_any_input(store):
    store.settle(claim(store), "completed", ANSWER, 60)
    end_retention()

    again = claim(store, Call(CALL.scope, CALL.operation, CALL.key, "1:other"), token=200)

    assert (again.token, again.attempt) == (200, 1)
    assert store.look(CALL).answer == Answer()
    assert store.look(CALL).is_held_by(200)


@only_database
def test_retention_counts_from_completion(store):
    claimed = claim(store)
    IdempotencyRecord.objects.update(created_at=timezone.now() - timezone.timedelta(days=2))

    store.settle(claimed, "completed", ANSWER, 60)

    record = IdempotencyRecord.objects.get()
    assert 59 < (record.expires_at - record.completed_at).total_seconds() < 61
    assert record.purge_after >= record.expires_at


def test_claim_that_was_taken_over_cannot_settle(store):
    first = claim(store)
    end_leases()
    second = claim(store, token=200)

    with pytest.raises(StaleClaim):
        store.settle(first, "completed", ANSWER, 60)

    store.settle(second, "completed", Answer(200), 60)
    assert store.look(CALL).answer == Answer(200)


@pytest.mark.parametrize("state", ["completed", "released", "unknown"])
def test_claim_settles_only_once(store, state):
    claimed = claim(store)
    store.settle(claimed, state, ANSWER, 60)

    with pytest.raises(StaleClaim):
        store.settle(claimed, "completed", Answer(), 60)


def test_renewal_starts_the_lease_anew_and_tells_of_lost_ones(store):
    kept = claim(store)
    other = Call("user:1", "other", "key")
    lost = claim(store, other, token=7)
    short = claim(store, Call("user:1", "short", "key"), token=8, lease=1.0)
    end_leases()
    claim(store, other, token=300)

    assert list(store.renew([kept, lost, short])) == [lost]
    assert 28 < store.look(CALL).lease_left <= 30
    assert 0 < store.look(short.call).lease_left <= 1


@only_database
def test_take_over_loses_against_a_renewal_in_between(store):
    claimed = claim(store)
    end_leases()
    seen = store.look(CALL)
    store.renew([claimed])

    with connections[store.using].cursor() as cursor:
        taken = store._take_over(cursor, CALL, Bid(200, 30, 60), seen)

    assert taken is None
    assert not store.block(CALL, seen)


def test_abandoned_claim_becomes_an_unknown_outcome(store):
    claim(store)
    end_leases()

    assert store.block(CALL, store.look(CALL))
    assert claim(store, token=200).state == "unknown"


@only_database
def test_claim_in_an_open_transaction_never_waits_for_a_twin_and_is_undone_with_it(store):
    other = connections[store.using].copy()
    with transaction.atomic():
        assert isinstance(claim(store, lease=None), Claim)
        if connection.vendor != "sqlite":  # There, a twin waits to begin at all.
            connections[store.using], mine = other, connections[store.using]
            try:
                assert claim(store, token=200) is None
            finally:
                connections[store.using] = mine
                other.close()
        transaction.set_rollback(True)

    assert store.look(CALL) is None


def test_lease_in_an_open_transaction_is_refused(store):
    with (
        transaction.atomic(),
        pytest.raises(transaction.TransactionManagementError, match="Leave the `atomic` block"),
    ):
        claim(store)

    assert store.look(CALL) is None


@only_database
def test_store_that_cannot_be_reached_says_so(store, settings, monkeypatch):
    monkeypatch.setitem(connections[store.using].settings_dict, "NAME", "/nowhere/at/all")
    connections[store.using].close()
    if connection.vendor == "mysql":
        monkeypatch.setitem(connections[store.using].settings_dict, "HOST", "127.0.0.2")

    with pytest.raises(StoreUnavailable) as caught:
        claim(store)

    assert caught.value.retry_after == 1
    connections[store.using].close()


@pytest.mark.parametrize(
    "options",
    [{"LEASE": 0}, {"LEASE": -1}, {"RETENTION": "1d"}, {"LEASE": True}, {"BACKEND": "no.Such"}],
)
def test_store_with_wrong_settings_is_refused(settings, options):
    settings.IDEMPOTENCY_STORES = {"default": options}

    with pytest.raises(InvalidBackend, match="IDEMPOTENCY_STORES"):
        build_store("default")


def test_store_that_is_not_configured_is_refused():
    with pytest.raises(InvalidBackend, match="'other'"):
        get_store("other")


def test_store_of_another_database_keeps_its_records_there(settings):
    settings.IDEMPOTENCY_STORES = {"default": {}, "second": {"OPTIONS": {"using": "other"}}}

    claim(get_store("second"))

    assert IdempotencyRecord.objects.using("other").count() == 1
    assert not IdempotencyRecord.objects.exists()


test_store_of_another_database_keeps_its_records_there = pytest.mark.django_db(
    transaction=True, databases=["default", "other"]
)(test_store_of_another_database_keeps_its_records_there)


@only_database
@pytest.mark.skipif("connection.vendor != 'mysql'", reason="only where MySQL's words are known")
def test_words_for_mysql_claim_like_those_for_mariadb(store, monkeypatch):
    class Words(MySQL):
        share_nowait = MariaDB.share_nowait

    monkeypatch.setattr("idempotency.stores.dialects.MariaDB", Words)

    assert isinstance(claim(store), Claim)
    assert claim(store, token=200).token == 100


@only_database
@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="a plan of PostgreSQL")
def test_claim_is_one_statement_on_postgresql(store):
    with CaptureQueriesContext(connection) as queries:
        claim(store)
        claim(store, token=200)

    assert len(queries) == 2


def test_recent_things_are_remembered_and_older_ones_forgotten():
    recent = Recent(2)

    for thing in (1, 2, 2, 3):
        recent.add(thing)

    assert [thing in recent for thing in (1, 2, 3)] == [False, True, True]


@only_database
def test_call_that_was_completed_here_is_looked_up_before_a_claim(store):
    other = Call("user:1", "other", "key")
    store.settle(claim(store), "completed", ANSWER, 60)

    assert store.peek(CALL).answer == ANSWER
    assert store.peek(other) is None
    with transaction.atomic():
        assert (store.peek(CALL) is None) == (connection.vendor != "sqlite")


@only_database
def test_hint_of_a_completed_call_is_only_a_hint(store):
    store.settle(claim(store), "completed", ANSWER, 60)
    IdempotencyRecord.objects.all().delete()

    assert store.peek(CALL) is None
    assert isinstance(claim(store, token=200), Claim)
