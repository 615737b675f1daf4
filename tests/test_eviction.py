"""A person frees a lock of another process, and its holder learns of it."""

import uuid
from contextlib import suppress
from dataclasses import replace

import pytest

from idempotency import StaleLock, lock
from idempotency.locks import build_backend, get_backend
from idempotency.locks.base import Ask, Grant
from tests.conftest import elsewhere, wait_until
from tests.test_locks import LOCKS, is_free, skip_without_server

pytestmark = pytest.mark.django_db(transaction=True)

LEASE = 2


@pytest.fixture(autouse=True)
def locks(settings):
    settings.IDEMPOTENCY_LOCKS = {"default": {}, **LOCKS}


@pytest.fixture(params=["database", "redis", "zookeeper"])
def alias(request, settings):
    skip_without_server(request, settings)
    return request.param


@pytest.fixture(params=["postgres", "postgres-session"])
def lasting_alias(request, settings):
    skip_without_server(request, settings)
    return request.param


@pytest.fixture
def stranger(alias):
    """The backend as another process has it: with none of the sessions of this one."""
    return build_backend(alias)


@pytest.fixture
def name():
    return f"evicted:{uuid.uuid4()}"


def live(backend, name):
    (found,) = [each for each in backend.live() if each.name == name]
    return found


def test_stranger_frees_a_lock_and_leaving_it_tells_so(alias, stranger, name):
    freed = []

    with pytest.raises(StaleLock), lock(name, backend=alias):
        elsewhere(lambda: freed.append(stranger.evict(live(stranger, name))))

    assert freed == [True]
    assert is_free(alias, name)


def test_holder_learns_of_it_while_it_works(alias, stranger, name):
    told = []

    def on_lost(held):
        told.append((held.name, held.lost))

    with suppress(StaleLock), lock(name, backend=alias, lease=LEASE, on_lost=on_lost):
        elsewhere(lambda: stranger.evict(live(stranger, name)))
        wait_until(lambda: told)

    assert told == [(name, True)]


def test_renewal_is_refused_after_it(alias, stranger, name):
    holder = get_backend(alias)
    grant = holder.acquire(Ask(name, "me", LEASE))
    assert isinstance(grant, Grant)
    stranger.evict(live(stranger, name))

    assert list(holder.renew([grant])) == [grant]
    assert holder.release(grant) is False


def test_second_person_finds_nothing_to_free(alias, stranger, name):
    get_backend(alias).acquire(Ask(name, "me", LEASE))
    seen = live(stranger, name)

    assert [stranger.evict(seen), stranger.evict(seen)] == [True, False]


def test_lock_that_another_took_meanwhile_stays(alias, stranger, name):
    holder = get_backend(alias)
    holder.release(holder.acquire(Ask(name, "me", LEASE)))
    grant = holder.acquire(Ask(name, "you", LEASE))
    seen = live(stranger, name)

    assert stranger.evict(replace(seen, owner="me")) is False
    assert live(stranger, name).owner == "you"
    assert holder.release(grant)


def test_session_of_another_process_is_not_ended(lasting_alias, name):
    stranger = build_backend(lasting_alias)

    with lock(name, backend=lasting_alias) as held:
        assert not stranger.supports_eviction
        assert stranger.evict(live(stranger, name)) is False
        held.assert_held()
        assert not is_free(lasting_alias, name)
