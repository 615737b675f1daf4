"""What Redis adds to the contract of locks: a queue, by its own clock, and time-outs."""

import time
import uuid

import pytest
from django_redis.pool import ConnectionFactory

from idempotency import lock
from idempotency.locks import get_backend
from idempotency.locks.base import Ask, Busy, Grant
from idempotency.locks.redis import PATIENCE
from tests.test_locks import is_free

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


def runs_of_scripts(own_redis):
    return int(own_redis.tell("INFO", "commandstats")["cmdstat_evalsha"]["calls"])


def test_those_behind_a_dead_waiter_ask_seldom(own_redis, name):
    with lock(name):
        queue_up_and_die(name)
    before = runs_of_scripts(own_redis)

    with lock(name, wait=20):
        asked = runs_of_scripts(own_redis) - before

    assert asked < 20


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
