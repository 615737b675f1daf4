"""Locks in ZooKeeper when the connection, the session, the server or their process goes."""

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from contextlib import contextmanager, suppress

import pytest

from idempotency import StaleLock, StoreUnavailable, lock
from idempotency.exceptions import InvalidBackend
from idempotency.locks import build_backend, get_backend
from idempotency.locks.base import Ask, Busy, Grant
from idempotency.locks.zookeeper.nodes import folder_of, in_line, name_of
from idempotency.locks.zookeeper.processes import OnePerProcess, end_all
from idempotency.testing.children import Child
from tests.conftest import elsewhere, paused
from tests.services import NotStarted, do_without, free_port, run_folder, zookeeper

BACKEND = "idempotency.locks.zookeeper.ZooKeeperLockBackend"
ROOT = "/idempotency/locks"
LEASE = 2


@pytest.fixture(scope="module")
def own_server():
    """A ZooKeeper of ours, which tests may stop and start."""
    with run_folder() as folder:
        server = Server(folder)
        try:
            server.start()
        except NotStarted as error:
            do_without("ZooKeeper", error)
        yield server
        end_all()
        server.stop()


class Server:
    def __init__(self, folder):
        self.folder, self.port = folder, free_port()

    def start(self):
        self.running = zookeeper(self.folder, self.port)
        self.process = self.running.__enter__().process

    def stop(self):
        self.running.__exit__(None, None, None)

    def paused(self):
        return paused(self.process.pid)


@pytest.fixture(autouse=True)
def described(settings, own_server):
    options = {"hosts": f"127.0.0.1:{own_server.port}", "timeout": 1}
    described = {"BACKEND": BACKEND, "LEASE": LEASE, "OPTIONS": options}
    settings.IDEMPOTENCY_LOCKS = {"default": described, "other": described}
    return described


@pytest.fixture
def backend():
    return get_backend()


@pytest.fixture
def other():
    """As if it were another process: with a session of its own."""
    return get_backend("other")


@pytest.fixture
def name():
    return f"lock:{uuid.uuid4()}"


def session_of(backend):
    return backend._tenures.get().session


def line(backend, name):
    """Give the nodes that are there now, of whomever."""
    session = session_of(backend)
    session.connect()
    (nodes,) = session.ask(session.client.get_children_async(folder_of(ROOT, name)))
    return [] if isinstance(nodes, Exception) else nodes


def wait_until(is_true, seconds=20.0):
    deadline = time.monotonic() + seconds
    while True:
        with suppress(StoreUnavailable):
            if is_true():
                return
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


# The session


def test_lease_is_the_time_out_that_zookeeper_agreed_to(described, backend, name):
    described["LEASE"] = 1_000  # More than 20 ticks, the longest by default.

    grant = build_backend("default").acquire(Ask(name, "me", 1_000))

    assert grant.lease == 2.0
    assert backend.acquire(Ask(f"{name}:short", "me", 0.5)).lease == 0.5


def test_all_locks_of_a_process_share_a_session(backend):
    with lock("a"):
        session = session_of(backend).client.client_id
        with lock("b"):
            elsewhere(lambda: lock("c").__enter__().release())

    assert session_of(backend).client.client_id == session


def test_stopped_client_is_replaced(backend, name):
    with lock(name):
        pass
    session_of(backend).client.stop()
    started_at = time.monotonic()

    with lock(name, wait=1):
        pass

    assert time.monotonic() - started_at < 5


def test_session_of_replaced_settings_is_closed(settings, other, name):
    with lock(name):
        client = session_of(get_backend()).client
    settings.IDEMPOTENCY_LOCKS = {**settings.IDEMPOTENCY_LOCKS}

    wait_until(lambda: not client.connected)


def test_absent_server_is_told_in_time(settings, name):
    options = {"hosts": f"127.0.0.1:{free_port()}", "timeout": 0.3}
    settings.IDEMPOTENCY_LOCKS = {"default": {"BACKEND": BACKEND, "OPTIONS": options}}

    for wait in (0, 10):
        started_at = time.monotonic()
        with pytest.raises(StoreUnavailable), lock(name, wait=wait):
            raise AssertionError
        assert time.monotonic() - started_at < 3
    with pytest.raises(StoreUnavailable):
        get_backend().live()


HOLD = """
import sys
from django.conf import settings

options = {"hosts": sys.argv[2]}
settings.configure(IDEMPOTENCY_LOCKS={"default": {"BACKEND": sys.argv[1], "OPTIONS": options}})

from idempotency.locks import get_backend
from idempotency.locks.base import Ask

print(get_backend().acquire(Ask(sys.argv[3], "me", 60)).token)
"""


def test_end_of_a_process_ends_its_session(own_server, other, name):
    program = [sys.executable, "-W", "error", "-c", HOLD, BACKEND, f"127.0.0.1:{own_server.port}"]

    run = subprocess.run([*program, name], capture_output=True, text=True, timeout=60)

    assert line(other, name) == []
    assert run.stderr == ""
    assert int(run.stdout) > 0


# Loss


@contextmanager
def until_lost(name, **options):
    """Hold the lock in a block that is told at its end that it was lost."""
    entered = lock(name, **options)
    yield entered.__enter__()
    with pytest.raises(StaleLock, match="before its work was done"):
        entered.__exit__(None, None, None)


@pytest.mark.parametrize("renew", [True, False])
def test_suspended_connection_loses_the_lock_at_once_and_for_good(
    own_server, backend, other, name, renew
):
    heard = threading.Event()
    with until_lost(name, renew=renew, on_lost=lambda held: heard.set()) as held:
        with own_server.paused():
            wait_until(lambda: held.lost, LEASE)
            wait_until(lambda: held._holding.is_refused)  # The clock alone would also end it.
            assert heard.wait(5)
            with pytest.raises(StaleLock):
                held.assert_held()
        wait_until(lambda: session_of(backend).is_connected)
        assert held.lost

    wait_until(lambda: line(other, name) == [])
    with lock(name):
        pass


def test_expired_session_loses_the_lock_to_another(backend, other, name):
    from kazoo.client import KazooClient

    hosts = backend.options["hosts"]
    with until_lost(name) as held:
        same = KazooClient(hosts, client_id=session_of(backend).client.client_id)
        same.start()
        same.stop()  # It closes the session of both.
        same.close()
        wait_until(lambda: held.lost)
        newer = other.acquire(Ask(name, "other", LEASE))
        assert newer.token > held.token

    assert other.renew([newer]) == []
    assert other.release(newer)
    with lock(name) as again:
        assert again.token > newer.token


def test_server_that_restarts_loses_locks_and_gives_new_ones(own_server, backend, other, name):
    with until_lost(name) as held:
        own_server.stop()
        wait_until(lambda: held.lost)
        with pytest.raises(StoreUnavailable):
            backend.renew([Grant(name, held.owner, held.token, LEASE)])
        own_server.start()
        wait_until(lambda: session_of(backend).is_connected)

    wait_until(lambda: is_free(other, name))
    with lock(name) as again:
        assert again.token > held.token


def is_free(backend, name):
    ask = Ask(name, uuid.uuid4().hex, LEASE)
    found = backend.acquire(ask)
    backend.withdraw(ask)
    return isinstance(found, Grant)


def test_node_that_another_removed_is_a_lost_lock(backend, other, name):
    heard = threading.Event()
    with until_lost(name, on_lost=lambda held: heard.set()) as held:
        session = session_of(other)
        session.connect()
        session.remove(f"{folder_of(ROOT, name)}/{line(other, name)[0]}")
        assert heard.wait(20)
        assert held.lost


def test_lock_that_nobody_renews_is_given_up_by_its_living_holder(backend, other, name):
    grant = backend.acquire(Ask(name, "me", 0.3))

    wait_until(lambda: line(other, name) == [], 1.5)

    assert backend.renew([grant]) == [grant]
    assert not backend.release(grant)


def test_killed_holder_frees_its_lock_within_its_session(other, name):
    def die(report):
        with lock(name):
            report(time.monotonic())
            os.kill(os.getpid(), signal.SIGKILL)

    (died_at,), _ = Child(die).join()
    with lock(name, backend="other", wait=20):
        took = time.monotonic() - died_at

    assert took < LEASE + 0.5


def test_child_of_a_fork_has_a_session_of_its_own(backend, name):
    def take(report):
        with lock(f"{name}:child"):
            report(session_of(get_backend()).client.client_id)
        report(is_free(get_backend(), name))

    with lock(name) as held:
        (session, free), _ = Child(take).join()
        wait_until(lambda: session_of(backend).is_connected)
        held.assert_held()
        assert session != session_of(backend).client.client_id

    assert not free


def test_owner_that_asks_again_after_a_loss_gets_a_newer_grant(own_server, backend, name):
    ask = Ask(name, "me", LEASE)
    lost = backend.acquire(ask)
    with own_server.paused():
        wait_until(lambda: not session_of(backend).is_connected)
    wait_until(lambda: session_of(backend).is_connected)
    got = []

    wait_until(lambda: isinstance(backend.acquire(ask), Grant))
    got.append(backend.acquire(ask))

    assert got[0].token > lost.token
    assert backend.release(got[0])


def test_loss_of_what_is_not_held_is_told_at_once(settings, backend, name):
    told = []
    unknown = Grant(name, "me", 1, LEASE)

    build_backend("default").watch(unknown, lambda: told.append("never connected"))
    backend.acquire(Ask(name, "other", LEASE))
    backend.watch(unknown, lambda: told.append("not held"))

    assert told == ["never connected", "not held"]


def test_grant_from_before_a_break_counts_for_nothing(backend, name):
    ask = Ask(name, "me", LEASE)
    grant = backend.acquire(ask)
    tenures = backend._tenures.get()
    place = tenures.find(name, "me")

    with pytest.raises(StoreUnavailable):
        tenures.hold(place, grant, tenures.session.breaks - 1)


# What must not stay


def test_failed_try_leaves_no_node(backend, other, name):
    held = other.acquire(Ask(name, "other", LEASE))

    assert isinstance(backend.acquire(Ask(name, "me", LEASE)), Busy)

    assert len(line(other, name)) == 1
    assert other.release(held)
    assert line(other, name) == []


def test_try_whose_connection_is_away_leaves_no_ownerless_lock(own_server, backend, other, name):
    """A node that ZooKeeper makes after its caller has given up must go away."""
    backend.acquire(Ask("another", "me", LEASE))
    session = session_of(backend)
    with own_server.paused():
        for wait in (5, 0):
            with pytest.raises(StoreUnavailable), lock(name, wait=wait):
                raise AssertionError
    wait_until(lambda: session.is_connected or session.is_over)

    wait_until(lambda: is_free(other, name))
    wait_until(lambda: line(other, name) == [])


def test_waiter_that_leaves_while_the_connection_is_away_leaves_no_node(
    own_server, backend, other, name
):
    held = other.acquire(Ask(name, "other", 60))
    ask = Ask(name, "me", LEASE, queues=True)
    assert isinstance(backend.acquire(ask), Busy)
    wait_until(lambda: len(line(other, name)) == 2)

    with own_server.paused():
        wait_until(lambda: not session_of(backend).is_connected)
        with pytest.raises(StoreUnavailable):
            backend.withdraw(ask)
    wait_until(lambda: session_of(other).is_connected)

    wait_until(lambda: not any("me," in node for node in line(other, name)))
    other.release(held)


def test_waiter_that_never_comes_back_loses_its_place(backend, other, name, monkeypatch):
    monkeypatch.setattr("idempotency.locks.zookeeper.tenures.PATIENCE", 0.2)
    held = other.acquire(Ask(name, "other", LEASE))

    assert isinstance(backend.acquire(Ask(name, "gone", LEASE, queues=True)), Busy)

    wait_until(lambda: len(line(other, name)) == 1)
    other.release(held)


def test_waiter_whose_node_was_removed_stands_in_line_anew(backend, other, name):
    held = other.acquire(Ask(name, "other", LEASE))
    ask = Ask(name, "me", LEASE, queues=True)
    backend.acquire(ask)
    session = session_of(other)
    session.remove(backend._tenures.get().find(name, "me").path)
    other.release(held)

    wait_until(lambda: isinstance(backend.acquire(ask), Grant))

    backend.withdraw(ask)


def test_watch_that_zookeeper_did_not_hear_of_keeps_nobody_waiting(own_server, backend, name):
    backend.acquire(Ask(name, "me", LEASE))
    session = session_of(backend)

    with own_server.paused(), pytest.raises(StoreUnavailable):
        session.watch(folder_of(ROOT, name))

    assert session._watched == {}


def test_folder_that_always_goes_is_not_made_for_ever(backend, name, monkeypatch):
    monkeypatch.setattr("idempotency.locks.zookeeper.backend.TRIES", 0)

    with pytest.raises(StoreUnavailable), lock(name, wait=1):
        raise AssertionError


def test_all_who_wait_for_one_node_share_a_watch(backend, name):
    backend.acquire(Ask(name, "me", LEASE))
    path = backend._tenures.get().find(name, "me").path
    session = session_of(backend)

    assert session.watch(path) is session.watch(path)
    assert not session.watch(path).is_set()
    assert session.watch(f"{path}0").is_set()


def test_node_that_never_came_to_be_is_no_work_for_long(backend, name):
    backend.acquire(Ask(name, "me", LEASE))
    tenures = backend._tenures.get()

    tenures.abandon(f"{ROOT}/no-such-folder/me,0123abcd,")

    wait_until(lambda: tenures._strays == set())


def test_what_was_never_made_needs_no_end():
    never = OnePerProcess(lambda: pytest.fail("made"))

    never.end()
    never.await_end(0)
    never.leave()

    assert never.existing() is None


def test_folders_of_free_locks_do_not_stay(backend, name):
    for number in range(20):
        with lock(f"{name}:{number}"):
            pass
    session = session_of(backend)

    (folders,) = session.ask(session.client.get_children_async(ROOT))

    assert not [folder for folder in folders if name in folder]


def test_lock_is_taken_and_left_in_turn_by_many_threads(name):
    """Each may take the folder away at the moment when another makes its node."""
    errors = []

    def work():
        try:
            for _ in range(25):
                with lock(name, wait=60):
                    pass
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=elsewhere, args=(work,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert errors == []


def test_those_who_wait_get_the_lock_in_the_order_of_their_arrival(backend, other, name):
    first = backend.acquire(Ask(name, "first", LEASE))
    asks = [Ask(name, f"waiter {number}", LEASE, queues=True) for number in range(3)]
    for ask in asks:
        assert isinstance(other.acquire(ask), Busy)
    backend.release(first)

    got = []
    for _ in asks:
        wait_until(lambda: any(isinstance(other.acquire(ask), Grant) for ask in asks[len(got) :]))
        (grant,) = [f for ask in asks[len(got) :] if isinstance(f := other.acquire(ask), Grant)]
        got.append(grant.owner)
        other.release(grant)
        other.withdraw(asks[len(got) - 1])

    assert got == [ask.owner for ask in asks]


def test_waiter_is_woken_up_by_the_one_before(backend, other, name):
    held = other.acquire(Ask(name, "other", LEASE))
    ask = Ask(name, "me", LEASE, queues=True)
    busy = backend.acquire(ask)
    backend.pause(Ask(name, "somebody else", LEASE), busy, 0)

    threading.Timer(0.1, other.release, [held]).start()
    started_at = time.monotonic()
    backend.pause(ask, busy, 20)

    assert time.monotonic() - started_at < 10
    assert isinstance(backend.acquire(ask), Grant)
    backend.withdraw(ask)


def test_waiters_are_counted(backend, other, name):
    with lock(name) as held:
        other.acquire(Ask(name, "waiter", LEASE, queues=True))
        (live,) = [one for one in other.live() if one.name == name]

    assert (live.owner, live.token, live.waiters) == (held.owner, held.token, 1)
    assert 0 <= live.held_for < 20
    assert live.left is None
    other.withdraw(Ask(name, "waiter", LEASE))


def test_grant_of_another_session_is_released_by_its_token(backend, other, name):
    held = backend.acquire(Ask(name, "me", LEASE))

    assert not other.release(Grant(name, "me", held.token + 1, LEASE))
    assert not other.release(Grant(name, "you", held.token, LEASE))
    assert other.release(held)
    assert not other.release(held)


# Nodes


def test_numbers_go_on_after_the_greatest_one():
    nodes = [f"me,0123abcd,{number}" for number in ("2147483647", "-2147483648", "0000000007")]

    assert in_line([*nodes, "not ours"]) == [nodes[2], nodes[0], nodes[1]]


@pytest.mark.parametrize("name", ["a", "a/b", ".", "..", "...", "%2F", "ä😀", "a,b", "x" * 255])
def test_names_are_one_element_of_a_path(name):
    folder = folder_of(ROOT, name)

    element = folder.removeprefix(f"{ROOT}/")
    assert "/" not in element
    assert element not in (".", "..")
    assert name_of(element) == name


# Settings


@pytest.mark.parametrize(
    "options",
    [{}, {"hosts": ""}, {"hosts": 5}, {"hosts": "a:1", "client": {"no_such": 1}}],
)
def test_options_that_kazoo_cannot_use_are_told(settings, options):
    settings.IDEMPOTENCY_LOCKS = {"default": {"BACKEND": BACKEND, "OPTIONS": options}}

    (message,) = get_backend().check()

    assert message.id == "idempotency.E033"
    with pytest.raises(InvalidBackend), lock("a"):
        pass


@pytest.mark.parametrize(
    "options", [{"timeout": 0}, {"timeout": "5"}, {"root": "locks"}, {"root": "/"}]
)
def test_wrong_options_are_told(settings, options):
    settings.IDEMPOTENCY_LOCKS = {"default": {"BACKEND": BACKEND, "OPTIONS": options}}

    with pytest.raises(InvalidBackend, match=next(iter(options))):
        get_backend()


def test_options_of_kazoo_are_passed_on(described, own_server, name):
    from kazoo.security import make_digest_acl

    described["OPTIONS"] |= {
        "root": f"/secret/{name}",
        "client": {
            "auth_data": [("digest", "me:secret")],
            "default_acl": [make_digest_acl("me", "secret", all=True)],
        },
    }
    own = build_backend("default")
    described["OPTIONS"] = {**described["OPTIONS"], "client": {}}
    stranger = build_backend("default")

    assert own.live() == []
    assert isinstance(own.acquire(Ask("a", "me", LEASE)), Grant)
    with pytest.raises(StoreUnavailable):
        stranger.acquire(Ask("b", "stranger", LEASE))


def test_locks_may_be_below_a_node_that_hosts_name(described, name):
    described["OPTIONS"] = {**described["OPTIONS"], "hosts": described["OPTIONS"]["hosts"] + "/own"}
    backend = build_backend("default")

    assert isinstance(backend.acquire(Ask(name, "me", LEASE)), Grant)
    assert [live.name for live in backend.live()] == [name]
    backend.withdraw(Ask(name, "me", LEASE))


def test_right_options_are_not_told(backend):
    assert backend.check() == []


def test_absence_of_kazoo_is_told(backend, monkeypatch):
    monkeypatch.setitem(sys.modules, "kazoo.client", None)

    (message,) = build_backend("default").check()

    assert message.id == "idempotency.E032"
    assert "django-idempotency[zookeeper]" in message.msg
