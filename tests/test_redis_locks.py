"""What Redis adds to the contract of locks: a queue, by its own clock, and time-outs."""

import asyncio
import threading
import time
import uuid

import pytest
from django_redis.pool import ConnectionFactory

from idempotency import StoreUnavailable, lock
from idempotency.locks import get_backend
from idempotency.locks.base import Ask, Busy, Grant
from idempotency.locks.redis import PATIENCE
from tests.test_locks import Elsewhere, is_free

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def locks(settings, own_redis):
    keep_in(settings)


def keep_in(settings, **options):
    """Keep locks in a Redis of this test's own, through an alias with *options*."""
    ConnectionFactory._pools.clear()  # They are known by address alone.
    options = {**settings.CACHES["own"]["OPTIONS"], **options}
    settings.CACHES = {**settings.CACHES, "own": {**settings.CACHES["own"], "OPTIONS": options}}
    redis = "idempotency.locks.redis.RedisLockBackend"
    settings.IDEMPOTENCY_LOCKS = {"default": {"BACKEND": redis, "OPTIONS": {"cache": "own"}}}


@pytest.fixture
def name():
    return f"lock:{uuid.uuid4()}"


def queue_up_and_die(name):
    """Be the first who waits for the lock, and never come back."""
    assert isinstance(get_backend().acquire(Ask(name, "dead:1", 5, queues=True)), Busy)


def test_refused_caller_learns_how_long_it_is_the_turn_of_another(name):
    with lock(name):
        queue_up_and_die(name)

    found = get_backend().acquire(Ask(name, "me", 5))

    assert 0 < found.left <= PATIENCE / 1_000


def test_waiter_that_died_before_the_clock_went_back_blocks_nobody(name):
    backend = get_backend()
    part = backend._part(name)
    with lock(name):
        queue_up_and_die(name)
        in_an_hour = round((time.time() + 3_600) * 1_000)
        backend.server.send("ZADD", part.patient(name), in_an_hour, "dead:1")

    assert is_free("default", name)


def test_waiter_that_lives_on_when_the_clock_went_back_keeps_its_place(name):
    backend = get_backend()
    part, ask = backend._part(name), Ask(name, "me", 5, queues=True)
    with lock(name):
        backend.acquire(ask)
        in_an_hour = round((time.time() + 3_600) * 1_000)
        backend.server.send("ZADD", part.patient(name), in_an_hour, "me")
        backend.server.send("ZADD", part.queue(name), in_an_hour, "me")
        backend.acquire(ask)
        backend.acquire(Ask(name, "you", 5, queues=True))

    assert isinstance(backend.acquire(Ask(name, "you", 5, queues=True)), Busy)
    assert isinstance(backend.acquire(ask), Grant)


def test_caller_waits_in_patience_for_a_redis_with_a_short_time_out(settings, name):
    keep_in(settings, SOCKET_TIMEOUT=0.2)

    with Elsewhere("default", name) as other:
        threading.Timer(0.8, other.may_go.set).start()
        with lock(name, wait=20) as held:
            held.assert_held()


@pytest.mark.parametrize("wait", [0, 0.2])
def test_silent_redis_costs_one_time_out(own_redis, name, wait):
    with lock(name):
        pass

    started_at = time.monotonic()
    with own_redis.paused(), pytest.raises(StoreUnavailable), lock(name, wait=wait):
        pass

    assert time.monotonic() - started_at < 0.9  # SOCKET_TIMEOUT is 0.5.


def executed_twice(monkeypatch, server):
    """Let the next script be executed twice, as if the first reply had been lost."""
    exchange = server._exchange

    def twice(message, count):
        monkeypatch.undo()
        exchange(message, count)
        return exchange(message, count)[0], True

    monkeypatch.setattr(server, "_exchange", twice)


def test_release_whose_reply_was_lost_is_no_loss_of_the_lock(name, monkeypatch):
    with lock(name) as held:
        executed_twice(monkeypatch, get_backend().server)

    assert is_free("default", name)
    assert not held.lost


def test_grant_whose_reply_was_lost_is_given_again_past_those_who_queue(name, monkeypatch):
    with lock("before"):
        pass  # The server knows the scripts after it.
    backend = get_backend()
    exchange = backend.server._exchange

    def twice(message, count):
        monkeypatch.undo()
        exchange(message, count)
        queue_up_and_die(name)
        return exchange(message, count)

    monkeypatch.setattr(backend.server, "_exchange", twice)

    assert isinstance(backend.acquire(Ask(name, "me", 5)), Grant)


def test_loop_that_ends_leaves_no_lock_to_a_try_that_goes_on(name, monkeypatch):
    backend = get_backend()
    acquire, withdraw = type(backend).acquire, type(backend).withdraw
    is_trying, has_withdrawn = threading.Event(), threading.Event()

    def slow(self, ask):
        is_trying.set()
        has_withdrawn.wait(0.5)
        return acquire(self, ask)

    def tell(self, ask):
        withdraw(self, ask)
        has_withdrawn.set()

    async def hold():
        async with lock(name):
            raise AssertionError

    async def leave_a_task_behind():
        task = asyncio.create_task(hold())
        await asyncio.to_thread(is_trying.wait)
        return task

    monkeypatch.setattr(type(backend), "acquire", slow)
    monkeypatch.setattr(type(backend), "withdraw", tell)
    task = asyncio.run(leave_a_task_behind())

    assert task.cancelled()
    assert has_withdrawn.wait(30)
    monkeypatch.undo()
    assert is_free("default", name)
