"""The contract of every lock backend, and of what is built on them once."""

import asyncio
import json
import threading
import time
import uuid
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from contextvars import Context
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core.exceptions import SynchronousOnlyOperation
from django.db import connection, connections, transaction
from django.db.backends.signals import connection_created
from django.http import HttpResponse
from django.test import RequestFactory, TestCase

from idempotency import (
    InvalidBackend,
    LockReentered,
    LockUnavailable,
    StaleLock,
    StoreUnavailable,
    cache_lock,
    lock,
)
from idempotency.backends import LONGEST
from idempotency.locks import current_lock, get_backend
from idempotency.locks.base import Ask, Busy, Grant
from idempotency.locks.names import namer_for
from idempotency.models import LockLease
from tests.conftest import elsewhere, run_async
from tests.models import Effect

pytestmark = pytest.mark.django_db(transaction=True)

LOCKS = {
    "database": {"BACKEND": "idempotency.locks.database.DatabaseLockBackend"},
    "postgres": {"BACKEND": "idempotency.locks.postgres.AdvisoryLockBackend"},
    "postgres-session": {
        "BACKEND": "idempotency.locks.postgres.AdvisoryLockBackend",
        "OPTIONS": {"level": "session"},
    },
    "redis": {
        "BACKEND": "idempotency.locks.redis.RedisLockBackend",
        "OPTIONS": {"cache": "locks"},
    },
    "zookeeper": {"BACKEND": "idempotency.locks.zookeeper.ZooKeeperLockBackend"},
}


@pytest.fixture(autouse=True)
def locks(settings):
    settings.IDEMPOTENCY_LOCKS = {"default": {}, **LOCKS}


@pytest.fixture(params=sorted(LOCKS))
def alias(request, settings):
    skip_without_server(request, settings)
    return request.param


def skip_without_server(request, settings):
    """Skip what *request* wants to test, unless there is a server for it."""
    alias = request.param
    if alias == "redis" and not settings.REDIS_URL:
        pytest.skip("no Redis")
    if alias == "zookeeper":
        request.getfixturevalue("zookeeper_locks")
    if alias.startswith("postgres") and connection.vendor != "postgresql":
        pytest.skip("advisory locks are PostgreSQL's")


@pytest.fixture
def backend(alias):
    return get_backend(alias)


@pytest.fixture
def name():
    """A name that no other test has, as some locks outlive a test."""
    return f"lock:{uuid.uuid4()}"


def apart(function):
    """Run *function* as if it were somebody else's: in a context that holds nothing."""
    return Context().run(function)


def is_free(alias, name):
    """Tell whether somebody else could have the lock."""
    try:
        apart(lambda: take_and_leave(alias, name))
    except LockUnavailable:
        return False
    return True


def take_and_leave(alias, name, **options):
    with lock(name, backend=alias, **options) as held:
        return held


class Elsewhere:
    """Holds a lock in another thread, until it is told to let go."""

    def __init__(self, alias, name, **options):
        self.alias, self.name, self.options = alias, name, options
        self.has_it, self.may_go = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=elsewhere, args=(self.hold,))

    def hold(self):
        with lock(self.name, backend=self.alias, **self.options):
            self.has_it.set()
            assert self.may_go.wait(30)

    def __enter__(self):
        self.thread.start()
        assert self.has_it.wait(30)
        return self

    def __exit__(self, *error):
        self.let_go()

    def let_go(self):
        self.may_go.set()
        self.thread.join(30)


def test_lock_is_held_inside_and_free_after(alias, name):
    with lock(name, backend=alias) as held:
        inside = is_free(alias, name)
        held.assert_held()

    assert not inside
    assert is_free(alias, name)
    assert not held.lost


@pytest.mark.parametrize("wait", [0, 0.15])
def test_body_does_not_run_while_another_has_the_lock(alias, name, wait):
    ran = []
    with Elsewhere(alias, name):
        started_at = time.monotonic()
        with pytest.raises(LockUnavailable) as caught, lock(name, backend=alias, wait=wait):
            ran.append(1)
        took = time.monotonic() - started_at

    assert ran == []
    assert wait <= took < wait + 2
    assert caught.value.retry_after >= 1


def test_waiting_caller_gets_the_lock_when_it_is_freed(alias, name):
    with Elsewhere(alias, name) as other:
        threading.Timer(0.1, other.may_go.set).start()
        with lock(name, backend=alias, wait=20) as held:
            assert not held.lost


def test_caller_that_gave_up_leaves_nothing_behind(alias, backend, name):
    with Elsewhere(alias, name):
        with pytest.raises(LockUnavailable), lock(name, backend=alias, wait=0.05):
            pass
        waiters = [one.waiters for one in backend.live() if one.name == name]

    assert waiters == [0]
    assert is_free(alias, name)


def test_every_later_holder_has_a_greater_token(alias, name):
    tokens = [take_and_leave(alias, name).token for _ in range(20)]

    assert tokens == sorted(set(tokens))


@pytest.mark.skipif("connection.vendor == 'sqlite'", reason="its clock is that of the machine")
def test_tokens_in_the_database_do_not_depend_on_the_clocks_of_hosts(name, monkeypatch):
    first = take_and_leave("database", name)
    LockLease.objects.filter(name=name).delete()  # As purging does, a day later.
    monkeypatch.setattr(time, "time_ns", lambda: 0)

    assert take_and_leave("database", name).token > first.token


def test_error_of_the_body_frees_the_lock_and_comes_through(alias, name):
    with pytest.raises(KeyError), lock(name, backend=alias):
        raise KeyError

    assert is_free(alias, name)


def test_owner_that_asks_again_has_the_lock(backend, name):
    ask = Ask(name, "me", 30)
    first = backend.acquire(ask)

    again = backend.acquire(ask)

    assert isinstance(again, Grant)
    assert isinstance(backend.acquire(Ask(name, "you", 30)), Busy)
    assert backend.release(again)
    assert not backend.release(first) or first == again


def test_withdrawal_frees_a_lock_whose_grant_never_arrived(backend, name):
    ask = Ask(name, "me", 30)
    backend.acquire(ask)

    backend.withdraw(ask)

    assert isinstance(backend.acquire(Ask(name, "you", 30)), Grant)
    backend.withdraw(Ask(name, "you", 30))


def test_only_the_holder_can_release(backend, name):
    held = backend.acquire(Ask(name, "me", 30))

    freed = backend.release(Grant(name, "you", held.token, 30))

    assert not freed
    assert isinstance(backend.acquire(Ask(name, "you", 30)), Busy)
    assert backend.release(held)


def test_repeated_release_leaves_the_next_holder_alone(backend, name):
    held = backend.acquire(Ask(name, "me", 30))
    backend.release(held)
    backend.acquire(Ask(name, "you", 30))

    assert not backend.release(held)
    assert isinstance(backend.acquire(Ask(name, "me", 30)), Busy)
    backend.withdraw(Ask(name, "you", 30))


def losing_answers(monkeypatch, backend, method):
    """Let *method* take effect and its answer be lost, once."""
    whole = getattr(type(backend), method)

    def lose(self, *args):
        monkeypatch.undo()
        whole(self, *args)
        raise StoreUnavailable

    monkeypatch.setattr(type(backend), method, lose)


def test_release_whose_answer_was_lost_may_be_repeated(alias, backend, name, monkeypatch):
    if alias.startswith("postgres"):
        pytest.skip("its connection ends with the answer, and the lock with that")

    with lock(name, backend=alias) as held:
        losing_answers(monkeypatch, backend, "release")
        with pytest.raises(StoreUnavailable):
            held.release()

        assert held.release()

    assert is_free(alias, name)


def test_block_whose_lock_was_freed_without_an_answer_ends_well(alias, backend, name, monkeypatch):
    with lock(name, backend=alias) as held:
        losing_answers(monkeypatch, backend, "release")
        with suppress(StoreUnavailable):
            held.release()

    assert is_free(alias, name)


def test_lock_that_was_lost_is_asked_for_anew(alias, backend, name):
    def outlive():
        one = lock(name, backend=alias, lease=30)
        with one as held:
            backend.release(Grant(name, held.owner, held.token, 30))
            held.lose()
            with lock(name, backend=alias) as newer:
                told.append((newer.token > held.token, current_lock() is newer))

    told = []
    with pytest.raises(StaleLock):
        outlive()

    assert told == [(True, True)]


def test_lock_that_was_let_go_early_does_not_hide_the_next_one(alias, name):
    first = lock(name, backend=alias)
    held = first.__enter__()
    held.release()

    with lock(name, backend=alias) as newer:
        with suppress(StaleLock):
            first.__exit__(None, None, None)

        with lock(name, backend=alias, reentrant=True) as again:
            assert again is newer


def test_lease_that_nobody_renews_ends(alias, name):
    def outlive():
        with lock(name, backend=alias, lease=0.5, renew=False) as held:
            newer = apart(lambda: take_and_leave(alias, name, wait=20))
            told.append((held.lost, held.remaining, newer.token > held.token))
            held.assert_held()

    told = []
    with pytest.raises(StaleLock, match="no longer held"):
        outlive()

    assert told == [(True, 0, True)]


@pytest.mark.parametrize("alias", ["database", "redis"], indirect=True)
def test_longest_lease_is_kept(alias, name):
    with lock(name, backend=alias, lease=LONGEST) as held:
        assert not is_free(alias, name)
        assert held.remaining > LONGEST - 60


def test_leaving_a_lock_that_was_lost_tells_so(alias, name):
    def outlive():
        with lock(name, backend=alias, lease=0.5, renew=False):
            apart(lambda: take_and_leave(alias, name, wait=20))

    with pytest.raises(StaleLock, match="before its work was done"):
        outlive()


def test_holder_that_was_told_of_the_loss_is_told_so_at_the_end_whoever_has_it_now(alias, name):
    told = threading.Event()

    def outlive():
        with lock(name, backend=alias, on_lost=lambda held: told.set()) as held:
            held.lose()
            assert told.wait(20)

    with pytest.raises(StaleLock, match="before its work was done"):
        outlive()

    take_and_leave(alias, name)


def test_error_of_the_body_is_not_masked_by_the_loss_of_the_lock(alias, name):
    def outlive():
        with lock(name, backend=alias, lease=0.5, renew=False):
            apart(lambda: take_and_leave(alias, name, wait=20))
            raise KeyError

    with pytest.raises(KeyError):
        outlive()


@pytest.mark.parametrize("is_inside", [False, True])
def test_lock_that_is_not_migrated_tells_so(name, not_migrated, is_inside, caplog):
    with (
        pytest.raises(InvalidBackend, match="no table no_idempotency_locklease: run"),
        transaction.atomic() if is_inside else nullcontext(),
        lock(name, wait=1),
    ):
        pass

    assert caplog.messages == []


def test_late_release_leaves_the_next_holder_alone(alias, name):
    def outlive():
        with lock(name, backend=alias, lease=0.5, renew=False):
            newer.append(apart(lock(name, backend=alias, wait=20).__enter__))

    newer = []
    with pytest.raises(StaleLock):
        outlive()

    assert not is_free(alias, name)
    assert newer[0].release()


def test_lease_is_renewed_while_the_body_runs(alias, name):
    with lock(name, backend=alias, lease=1.0) as held:
        for _ in range(16):  # To beyond the end of the lease.
            time.sleep(0.1)
            assert not is_free(alias, name)

        assert held.remaining > 0


def test_holder_is_told_that_it_lost_the_lock(alias, backend, name):
    told, lost = threading.Event(), []

    def on_lost(held):
        lost.append(held)
        told.set()

    def lose():
        with lock(name, backend=alias, lease=1.0, on_lost=on_lost) as held:
            backend.release(Grant(name, held.owner, held.token, 1.0))
            assert told.wait(20)

    with pytest.raises(StaleLock):
        lose()

    assert [held.remaining for held in lost] == [0]


def test_failing_callback_stops_no_other_renewal(alias, backend, name, caplog):
    def fail(held):
        raise KeyError("of the callback")

    def lose(other):
        with lock(name, backend=alias, lease=1.0, on_lost=fail) as held:
            backend.release(Grant(name, held.owner, held.token, 1.0))
            time.sleep(1.6)  # To beyond the end of the lease.
            assert not other.lost

    with lock(f"{name}:other", backend=alias, lease=1.0) as other, pytest.raises(StaleLock):
        lose(other)

    assert "failed in the background" in caplog.text


def test_live_locks_are_listed_with_who_holds_them(alias, backend, name):
    with lock(name, backend=alias) as held:
        (live,) = [one for one in backend.live() if one.name == name]

    assert (live.owner, live.token) == (held.owner, held.token)
    assert live.held_for is None or 0 <= live.held_for < 20
    assert live.left is None or 20 < live.left <= 30
    assert [one for one in backend.live() if one.name == name] == []


@pytest.mark.parametrize(
    "name",
    ["a/b", "..", ".", "ä€😀", "%", "a b", "{a}x}", "x" * 255, "x" * 256, "x" * 10_000, "'", "A"],
)
@pytest.mark.filterwarnings("ignore:The lock:RuntimeWarning")
def test_any_text_is_a_name(alias, name):
    with lock(name, backend=alias):
        assert not is_free(alias, name)
        assert is_free(alias, name + "x")
        assert is_free(alias, name.lower() + " ")


def test_names_that_are_too_long_stay_apart(alias):
    with lock("x" * 300 + "a", backend=alias):
        assert is_free(alias, "x" * 300 + "b")


def test_no_name_is_that_of_a_longer_one():
    namer = namer_for("order:{a}", lambda a: None)

    cut = namer("x" * 300)

    assert len(cut) == 255
    assert namer(cut.removeprefix("order:")) != cut


@pytest.mark.parametrize(
    "equal",
    [("1.0", "1.00", "1"), ("100", "1E+2"), ("0", "-0.0"), ("-1.50", "-1.5"), ("1E+999", "10E998")],
)
def test_equal_numbers_name_one_lock(equal):
    namer = namer_for("o:{a}", lambda a: None)

    assert len({namer(Decimal(text)) for text in equal}) == 1
    assert namer(Decimal(7)) == namer(7)


def test_numbers_that_differ_late_name_two_locks():
    namer = namer_for("o:{a}", lambda a: None)

    assert namer(Decimal("1." + "0" * 60 + "1")) != namer(Decimal(1))


def test_one_lock_object_serves_many_threads(alias, name):
    shared = lock(name, backend=alias, wait=20)
    inside, most = [], []

    def work():
        for _ in range(5):
            with shared:
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=elsewhere, args=(work,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert most == [1] * 20


def test_lock_may_be_released_by_another_thread(alias, name):
    held = lock(name, backend=alias).__enter__()

    elsewhere(lambda: held.release())

    assert is_free(alias, name)
    assert not held.lost
    with pytest.raises(StaleLock):
        held.assert_held()


# Re-entry


def test_code_that_has_the_lock_does_not_wait_for_itself(alias, name):
    with lock(name, backend=alias):
        with pytest.raises(LockReentered, match="reentrant=True"):
            take_and_leave(alias, name, wait=100)
        assert not is_free(alias, name)


@pytest.mark.parametrize("kind", ["database", "redis"])
def test_code_does_not_wait_for_itself_through_another_alias(settings, name, kind):
    settings.IDEMPOTENCY_LOCKS = {"default": LOCKS[kind], "reports": {**LOCKS[kind], "LEASE": 600}}

    with lock(name), pytest.raises(LockReentered):
        take_and_leave("reports", name, wait=100)

    assert is_free("reports", name)


def test_reentry_is_counted_where_it_is_asked_for(alias, name):
    with lock(name, backend=alias, reentrant=True) as held:
        with (
            pytest.raises(KeyError),
            lock(name, backend=alias, reentrant=True) as again,
            lock(name, backend=alias, reentrant=True),
        ):
            raise KeyError
        assert again is held
        assert not is_free(alias, name)

    assert is_free(alias, name)


def test_tasks_of_one_loop_do_not_enter_the_lock_that_their_parent_holds(alias, name):
    async def inner():
        async with lock(name, backend=alias, wait=100):
            raise AssertionError

    async def outer():
        async with lock(name, backend=alias):
            with pytest.raises(LockReentered):
                await asyncio.create_task(inner())

    run_async(outer())


def test_distinct_names_never_interact(alias):
    for number in range(100):
        with lock(f"one:{number}", backend=alias), lock(f"two:{number}", backend=alias):
            pass


# Transactions


def test_lock_is_freed_after_the_commit(alias, name):
    with transaction.atomic():
        with lock(name, backend=alias):
            pass
        inside = [] if connection.vendor == "sqlite" else [is_free_elsewhere(alias, name)]

    assert inside in ([], [False])
    assert is_free(alias, name)


def is_free_elsewhere(alias, name):
    found = []
    elsewhere(lambda: found.append(is_free(alias, name)))
    return found == [True]


@pytest.mark.parametrize("is_nested", [False, True])
def test_lock_is_freed_after_a_rollback(alias, name, is_nested):
    def roll_back():
        with transaction.atomic(), lock(name, backend=alias):
            raise KeyError

    if is_nested:
        with transaction.atomic(), pytest.raises(KeyError):
            roll_back()
    else:
        with pytest.raises(KeyError):
            roll_back()

    with lock(name, backend=alias, wait=20):
        pass
    apart(lambda: take_and_leave(alias, name, wait=20))


def test_lock_may_be_taken_again_before_the_commit(alias, name):
    with transaction.atomic():
        with lock(name, backend=alias) as first:
            pass
        with lock(name, backend=alias) as second:
            pass

    assert second is first
    apart(lambda: take_and_leave(alias, name, wait=20))


def test_loss_of_the_lock_rolls_the_transaction_back(alias, backend, name):
    if connection.vendor == "sqlite" and alias == "database":
        pytest.skip("nobody else can write meanwhile")
    if alias == "postgres":
        pytest.skip("the lock is not lost before the transaction is")

    def outlive():
        with transaction.atomic():
            Effect.objects.create(name="late")
            with lock(name, backend=alias, lease=0.5, renew=False):
                apart(lambda: elsewhere(lambda: take_and_leave(alias, name, wait=20)))

    with pytest.raises(StaleLock):
        outlive()

    assert not Effect.objects.exists()


class TestInsideATestCase(TestCase):
    """Django's TestCase never commits, and yet code under test must meet free locks."""

    def test_lock_is_freed_at_once(self):
        with transaction.atomic(), lock("in a test"):
            pass

        assert is_free("default", "in a test")


@pytest.mark.skipif("connection.vendor != 'sqlite'", reason="others have many writers")
@pytest.mark.parametrize("wait", [0, 0.2])
def test_one_try_does_not_wait_for_all_that_another_writes(name, wait):
    def write():
        with transaction.atomic():
            Effect.objects.create(name="long")
            writing.set()
            assert may_end.wait(60)

    writing, may_end = threading.Event(), threading.Event()
    thread = threading.Thread(target=elsewhere, args=(write,))
    thread.start()
    assert writing.wait(30)
    before = busy_timeout()

    started_at = time.monotonic()
    with pytest.raises(LockUnavailable):
        take_and_leave("database", name, wait=wait)
    took = time.monotonic() - started_at
    may_end.set()
    thread.join(30)

    assert took < 3
    assert busy_timeout() == before > 3_000


def busy_timeout():
    with connection.cursor() as cursor:
        return cursor.execute("PRAGMA busy_timeout").fetchone()[0]


@pytest.mark.skipif("connection.vendor == 'sqlite'", reason="a transaction excludes all others")
def test_waiting_within_a_transaction_takes_one_connection_more(name):
    opened = []

    def note(**kwargs):
        opened.append(1)

    with Elsewhere("database", name), transaction.atomic():
        Effect.objects.count()
        connection_created.connect(note)
        with pytest.raises(LockUnavailable):
            take_and_leave("database", name, wait=1)
        connection_created.disconnect(note)

    assert len(opened) == 1
    assert get_backend("database")._kept == {}


@pytest.mark.skipif("connection.vendor == 'sqlite'", reason="a transaction excludes all others")
def test_coroutine_that_waits_in_vain_within_a_transaction_keeps_no_connection(name):
    async def wait():
        async with lock(name, backend="database", wait=0.2):
            raise AssertionError

    with Elsewhere("database", name), transaction.atomic(), pytest.raises(LockUnavailable):
        async_to_sync(wait)()

    assert get_backend("database")._kept == {}


@pytest.mark.skipif("connection.vendor == 'sqlite'", reason="a transaction excludes all others")
def test_lock_that_was_waited_for_within_a_transaction_keeps_no_connection(name):
    with Elsewhere("database", name) as other, transaction.atomic():
        threading.Timer(0.1, other.may_go.set).start()
        with lock(name, backend="database", wait=20):
            assert get_backend("database")._kept == {}


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="only there Django has a pool")
def test_lock_within_a_transaction_needs_no_connection_of_the_pool(name):
    pool = {"min_size": 1, "max_size": 1, "timeout": 5}
    pooled = connection.copy()
    pooled.settings_dict["OPTIONS"]["pool"] = pool
    before, connections["default"] = connections["default"], pooled
    try:
        with transaction.atomic(), lock(name, backend="database"):
            Effect.objects.create(name="pooled")
    finally:
        pooled.close()
        pooled.close_pool()
        connections["default"] = before

    assert Effect.objects.filter(name="pooled").exists()


# Functions


def test_function_holds_the_lock_that_its_arguments_name(alias, name):
    @lock(name + ":{order_id}", backend=alias)
    def pay(order_id, *, amount=1):
        """Pay."""
        return is_free(alias, f"{name}:7"), is_free(alias, f"{name}:8"), current_lock().name

    assert pay(7) == (False, True, f"{name}:7")
    assert pay(order_id=7) == (False, True, f"{name}:7")
    assert current_lock() is None
    assert pay.__doc__ == "Pay."
    assert is_free(alias, f"{name}:7")


@pytest.mark.parametrize(
    ("on_locked", "result"), [("skip", None), (lambda error: type(error), LockUnavailable)]
)
def test_function_may_be_skipped_or_replaced(alias, name, on_locked, result):
    @lock(name, backend=alias, on_locked=on_locked)
    def work():
        raise AssertionError

    with Elsewhere(alias, name):
        assert work() is result


def test_reentry_is_never_skipped(alias, name):
    @lock(name, backend=alias, on_locked="skip")
    def work():
        work()

    with pytest.raises(LockReentered):
        work()


def test_block_cannot_be_skipped():
    with pytest.raises(TypeError, match="Catch LockUnavailable"), lock("a", on_locked="skip"):
        pass


class Color(Enum):
    RED = "red"


class Thing:
    pk = 5
    tags = ("x", "y")

    @lock("thing:{self.pk}")
    def touch(self):
        return current_lock().name


@pytest.mark.parametrize(
    ("template", "call", "expected"),
    [
        ("o:{a}", {"a": 1}, "o:1"),
        ("o:{a}:{b}", {"a": "x:y", "b": "z"}, "o:x%3Ay:z"),
        ("o:{a.pk}", {"a": Thing()}, "o:5"),
        ("o:{a.tags[1]}", {"a": Thing()}, "o:y"),
        ("o:{a[k]}", {"a": {"k": "v"}}, "o:v"),
        ("o:{a}", {"a": Color.RED}, "o:red"),
        ("o:{a}", {"a": uuid.UUID(int=1)}, f"o:{uuid.UUID(int=1)}"),
        ("o:{b}", {"a": 1}, "o:2"),
        ("{{a}}", {"a": 1}, "{a}"),
        (lambda a, b=2: f"f:{a}", {"a": 3}, "f:3"),
    ],
)
def test_template_is_filled_with_arguments(template, call, expected):
    assert namer_for(template, lambda a, b=2: None)(**call) == expected


def test_path_may_have_any_names():
    made = {"items": [{"keys": 7}]}

    assert namer_for("o:{a[items][0][keys]}", lambda a: None)(made) == "o:7"
    for path in ("a.items[0]", "a.keys.pk", "a.get.id"):
        namer_for(f"o:{{{path}}}", lambda a: None)


def test_template_may_use_what_a_function_takes_by_name():
    namer = namer_for("o:{order_id}", lambda request, **kwargs: None)

    assert namer(None, order_id=4) == "o:4"
    with pytest.raises(TypeError, match="order_id"):
        namer(None)


def test_method_names_its_lock_by_self():
    assert Thing().touch() == "thing:5"


@pytest.mark.parametrize("value", [None, object(), Thing(), 1.5, ["a"], Decimal("NaN")])
def test_argument_that_identifies_nothing_is_refused(value):
    with pytest.raises(TypeError, match="identifies"):
        namer_for("o:{a}", lambda a: None)(value)


@pytest.mark.parametrize(
    ("template", "error"),
    [
        ("o:{missing}", TypeError),
        ("o:{missing.pk}", TypeError),
        ("o:{}", ValueError),
        ("o:{0}", ValueError),
        ("o:{a!r}", ValueError),
        ("o:{a:>5}", ValueError),
        ("o:{a", ValueError),
        ("o:{a.}", ValueError),
        ("o:{a[}", ValueError),
        ("", ValueError),
    ],
)
def test_template_that_cannot_be_filled_is_refused_when_decorating(template, error):
    with pytest.raises(error):
        lock(template)(lambda a: None)


def test_equal_moments_and_odd_text_have_one_name_each():
    namer = namer_for("at:{a}", lambda a: None)
    moment = datetime(2026, 1, 1, 12, tzinfo=UTC)

    assert namer(moment.astimezone(timezone(timedelta(hours=1)))) == namer(moment)
    assert namer("\ud800") == "at:%ED%A0%80"


def test_block_with_a_template_for_a_name_is_warned_about():
    with pytest.warns(RuntimeWarning, match="f before the string"), lock("order:{order_id}"):
        pass


def generator():
    yield


async def async_generator():
    yield


@pytest.mark.parametrize("function", [generator, async_generator, Thing, 5])
def test_what_would_run_after_its_call_is_refused(function):
    with pytest.raises(TypeError):
        lock("a")(function)


@pytest.mark.parametrize(
    "options",
    [
        {"wait": -1},
        {"wait": None},
        {"wait": True},
        {"wait": float("inf")},
        {"wait": float("nan")},
        {"wait": 10**400},
        {"lease": 0},
        {"lease": -1},
        {"lease": "5"},
        {"lease": float("nan")},
        {"lease": float("inf")},
        {"lease": 1e10},
        {"lease": 10**400},
        {"on_locked": "wait"},
        {"on_lost": 5},
        {"on_lost": asyncio.sleep},
    ],
)
def test_option_that_means_nothing_is_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        lock("a", **options)


@pytest.mark.parametrize("name", ["", "a\nb", "a\0b", "\ud800"])
def test_name_that_no_backend_can_keep_is_refused(name):
    with pytest.raises(ValueError, match="name of a lock"), lock(name):
        pass


@pytest.mark.parametrize("name", [None, 5, b"a"])
def test_name_of_another_kind_is_refused(name):
    with pytest.raises(TypeError, match="name"):
        lock(name)


def test_unknown_alias_is_told():
    with pytest.raises(InvalidBackend, match="nowhere"), lock("a", backend="nowhere"):
        pass


# Asynchronous code


def test_asynchronous_block_holds_the_lock(alias, name):
    async def work():
        async with lock(name, backend=alias) as held:
            held.assert_held()
            inside = await sync_to_async(is_free)(alias, name)
        return inside, await sync_to_async(is_free)(alias, name)

    assert run_async(work()) == (False, True)


def test_coroutine_function_holds_the_lock(alias, name):
    @lock(name + ":{a}", backend=alias)
    async def work(a):
        return current_lock().name

    assert run_async(work(1)) == f"{name}:1"
    assert is_free(alias, f"{name}:1")


def test_asynchronous_caller_is_refused_or_waits(alias, name):
    async def wait(seconds):
        async with lock(name, backend=alias, wait=seconds):
            return True

    with Elsewhere(alias, name) as other:
        with pytest.raises(LockUnavailable):
            run_async(wait(0))
        with pytest.raises(LockUnavailable):
            run_async(wait(0.1))
        threading.Timer(0.1, other.may_go.set).start()
        assert run_async(wait(20))


@pytest.mark.parametrize("alias", ["redis"], indirect=True)
def test_threads_that_wait_for_a_lock_do_not_keep_its_holder_from_freeing_it(alias, name):
    def wait():
        with lock(name, backend=alias, wait=20):
            return True

    async def work():
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        async with lock(name, backend=alias):
            waiting = loop.run_in_executor(None, lambda: apart(wait))
            while not any(live.waiters for live in get_backend(alias).live()):
                await asyncio.sleep(0.01)
        return await waiting

    started_at = time.monotonic()
    assert run_async(work())
    assert time.monotonic() - started_at < 10


def test_synchronous_block_does_not_block_a_loop():
    async def work():
        with lock("a"):
            pass

    with pytest.raises(SynchronousOnlyOperation):
        run_async(work())


@pytest.mark.parametrize("while_it_releases", [False, True])
def test_task_that_is_cancelled_frees_the_lock(alias, name, while_it_releases):
    async def work():
        reached = asyncio.Event()

        async def hold():
            async with lock(name, backend=alias):
                reached.set()
                await asyncio.sleep(60)

        task = asyncio.create_task(hold())
        await reached.wait()
        task.cancel()
        if while_it_releases:
            await asyncio.sleep(0)
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_async(work())

    assert is_free(alias, name)


def test_task_that_is_cancelled_while_it_takes_the_lock_leaves_nothing(alias, name):
    async def work():
        async def hold():
            async with lock(name, backend=alias, wait=60):
                raise AssertionError

        task = asyncio.create_task(hold())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_async(work())

    assert is_free(alias, name)


def test_task_that_is_cancelled_while_it_waits_leaves_its_place(alias, backend, name):
    async def work():
        async def hold():
            async with lock(name, backend=alias, wait=60):
                raise AssertionError

        task = asyncio.create_task(hold())
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with Elsewhere(alias, name):
        run_async(work())
        waiters = [one.waiters for one in backend.live() if one.name == name]

    assert waiters == [0]
    assert is_free(alias, name)


# Views


@pytest.mark.parametrize("is_method", [False, True])
def test_view_without_its_lock_answers_409(alias, name, is_method):
    @lock(name, backend=alias)
    def view(*args):
        raise AssertionError

    request = RequestFactory().post("/")
    with Elsewhere(alias, name):
        response = view(None, request) if is_method else view(request)

    problem = json.loads(response.content)
    assert response.status_code == 409
    assert problem["type"].endswith("locked")
    assert problem["retry"]["same_key"] is True
    assert int(response["Retry-After"]) >= 1


def test_view_may_say_what_it_answers_instead(alias, name):
    @lock(name, backend=alias, on_locked=lambda error: HttpResponse(status=202))
    def view(request):
        raise AssertionError

    with Elsewhere(alias, name):
        assert view(RequestFactory().post("/")).status_code == 202


def test_error_of_the_view_itself_is_not_answered(name):
    @lock(name)
    def view(request):
        raise LockUnavailable

    with pytest.raises(LockUnavailable):
        view(RequestFactory().post("/"))


# Where it is kept


def test_cache_lock_takes_the_alias_cache(settings):
    settings.IDEMPOTENCY_LOCKS = {"default": {}, "cache": LOCKS["database"]}

    with cache_lock("a"):
        assert not is_free("default", "a")


def test_cache_lock_needs_no_settings_but_a_cache_in_redis(settings):
    settings.IDEMPOTENCY_LOCKS = {"default": {}}
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}

    with pytest.raises(InvalidBackend, match="django-redis"), cache_lock("a"):
        pass


def test_no_warning_is_left(alias, name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        take_and_leave(alias, name)


class TestEviction:
    def live(self, backend, name):
        return next(each for each in backend.live() if each.name == name)

    def test_person_frees_a_lock_and_its_holder_learns_of_it(self, alias, backend, name):
        if not backend.supports_eviction:
            pytest.skip("only its server could end the session")
        left = threading.Event()

        def take_it_away():
            assert backend.evict(self.live(backend, name))
            left.set()

        with pytest.raises(StaleLock), lock(name, backend=alias):
            elsewhere(take_it_away)

        assert left.is_set()
        assert is_free(alias, name)

    def test_lock_that_has_another_holder_by_now_stays(self, alias, backend, name):
        with lock(name, backend=alias):
            seen = self.live(backend, name)
        with Elsewhere(alias, name):
            assert backend.evict(seen) is False
            assert not is_free(alias, name)
