"""Distributed locks among real processes: no two inside, and freed when a holder dies."""

import fcntl
import os
import signal
import threading
import time
import uuid
from contextlib import ExitStack, contextmanager

import pytest

from idempotency import LockUnavailable, StaleLock, lock
from idempotency.locks import get_backend
from idempotency.testing import race
from idempotency.testing.children import Child
from tests.test_locks import LOCKS, skip_without_server

pytestmark = pytest.mark.django_db(transaction=True)

PROCESSES, TURNS = 8, 25


@pytest.fixture(autouse=True)
def locks(settings):
    settings.IDEMPOTENCY_LOCKS = {"default": {}, **LOCKS}


@pytest.fixture(params=sorted(LOCKS))
def alias(request, settings):
    skip_without_server(request, settings)
    return request.param


@pytest.fixture
def name():
    return f"race:{uuid.uuid4()}"


class Witness:
    """A file that tells if two processes are inside at once, and who was inside in which order."""

    def __init__(self, path):
        self.path = str(path)

    @contextmanager
    def inside(self, who):
        with open(self.path, "ab", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # Another inside raises.
            file.write(bytes([who]))
            yield
            fcntl.flock(file, fcntl.LOCK_UN)

    @property
    def order(self):
        with open(self.path, "rb") as file:
            return list(file.read())


@pytest.fixture
def witness(tmp_path):
    return Witness(tmp_path / "witness")


def test_of_8_processes_one_is_inside(alias, name, witness):
    def work(process):
        tokens = []
        for _ in range(TURNS):
            with lock(name, backend=alias, wait=60) as held, witness.inside(process):
                tokens.append(held.token)
        return tokens

    finishes = race(work, processes=PROCESSES)

    assert [finish.error for finish in finishes] == [None] * PROCESSES
    assert len(witness.order) == PROCESSES * TURNS
    assert len({token for finish in finishes for token in finish.result}) == PROCESSES * TURNS


def test_of_8_processes_that_do_not_wait_one_gets_the_lock(alias, name, witness):
    def work(process):
        with lock(name, backend=alias), witness.inside(process):
            time.sleep(1)  # Longer than eight tries take.

    finishes = race(work, processes=PROCESSES)

    refused = [finish for finish in finishes if isinstance(finish.error, LockUnavailable)]
    assert len(refused) == PROCESSES - 1
    assert len(witness.order) == 1


def test_nobody_in_the_queue_of_redis_is_passed_by(name, witness, settings):
    if not settings.REDIS_URL:
        pytest.skip("no Redis")

    def work(process):
        for _ in range(TURNS):
            with lock(name, backend="redis", wait=60), witness.inside(process):
                pass

    race(work, processes=PROCESSES)

    order = witness.order
    ends = [max(place for place, who in enumerate(order) if who == one) for one in range(8)]
    for start in range(PROCESSES, min(ends) - 3 * PROCESSES):
        assert set(order[start : start + 3 * PROCESSES]) == set(range(PROCESSES)), order


def test_lock_of_a_killed_process_is_free_when_its_lease_is_over(alias, name):
    if alias.startswith("postgres"):
        pytest.skip("it is free at once")
    lease = 2.0 if alias == "zookeeper" else 1.0  # There it is the session's.

    def die(report):
        with lock(name, backend=alias, lease=lease) as held:
            report(held.token)
            os.kill(os.getpid(), signal.SIGKILL)

    (token,), ended_by = Child(die).join()
    died_at = time.monotonic()
    with pytest.raises(LockUnavailable), lock(name, backend=alias):
        pass

    with lock(name, backend=alias, wait=20) as held:
        took = time.monotonic() - died_at

    assert ended_by == signal.SIGKILL
    assert took <= lease + 0.5
    assert held.token > token


def test_waiter_that_is_killed_does_not_hold_up_the_others(alias, name):
    def wait(report):
        with lock(name, backend=alias, wait=60):
            raise AssertionError

    with lock(name, backend=alias):
        child = Child(wait)
        until_waiting(alias, name)
        child.kill()
        child.join()
    started_at = time.monotonic()

    with lock(name, backend=alias, wait=20):
        # ZooKeeper keeps the place of the dead until the end of its session.
        assert time.monotonic() - started_at < (2.5 if alias == "zookeeper" else 1)


def until_waiting(alias, name):
    """Return once somebody queues, or, where nobody does, has surely tried."""
    deadline = time.monotonic() + (20 if alias == "redis" else 0.3)
    while time.monotonic() < deadline:
        if any(one.waiters for one in get_backend(alias).live() if one.name == name):
            return
        time.sleep(0.01)


def test_process_that_is_paused_beyond_its_lease_is_told_on_waking(alias, name):
    def pause(report):
        try:
            with lock(name, backend=alias, lease=0.5) as held:
                report(held.token)
                os.kill(os.getpid(), signal.SIGSTOP)
                report(held.lost)
                held.assert_held()
                report("went on")
        except StaleLock:
            report("told")

    child = Child(pause)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
    with lock(name, backend=alias, wait=20) as held:
        os.kill(child.pid, signal.SIGCONT)
        (token, *told), _ = child.join()
        held.assert_held()

    assert told == [True, "told"]
    assert held.token > token


def test_child_of_a_fork_neither_renews_nor_releases_what_its_parent_holds(alias, name):
    def child(report):
        report((held.lost, held.release()))
        with pytest.raises(StaleLock):
            held.assert_held()
        with pytest.raises(LockUnavailable), lock(name, backend=alias):
            pass

    with lock(name, backend=alias) as held:
        reports, _ = Child(child).join()
        held.assert_held()

    assert reports == [(True, False)]


def test_200_locks_are_kept_while_their_process_is_busy(alias):
    """One thread renews them all, against three that compute."""
    # An advisory lock has a connection, and needs a sign of life on it.
    count, lease = (50, 4.0) if alias.startswith("postgres") else (200, 2.0)
    with ExitStack() as locks:
        names = [f"busy:{uuid.uuid4()}" for _ in range(count)]
        held = [locks.enter_context(lock(name, backend=alias, lease=lease)) for name in names]
        with computing(threads=3):
            deadline = time.monotonic() + 2 * lease
            while time.monotonic() < deadline:
                assert not any(one.lost for one in held)
                time.sleep(0.05)


@contextmanager
def computing(*, threads):
    done = threading.Event()

    def compute():
        while not done.is_set():
            sum(range(10_000))

    running = [threading.Thread(target=compute) for _ in range(threads)]
    for thread in running:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in running:
            thread.join(30)


def test_thousands_of_short_holds_leave_nothing_renewed(alias, name):
    from idempotency.renewal import renewal

    for _ in range(2_000 if alias == "redis" else 200):
        with lock(name, backend=alias, lease=1):
            pass

    assert renewal.holdings == set()
    assert [one for one in get_backend(alias).live() if one.name == name] == []


def test_interruption_while_taking_leaves_no_lock(alias, name, monkeypatch):
    backend = get_backend(alias)
    acquire = type(backend).acquire

    def interrupted(self, ask):
        acquire(self, ask)
        raise KeyboardInterrupt

    monkeypatch.setattr(type(backend), "acquire", interrupted)
    with pytest.raises(KeyboardInterrupt), lock(name, backend=alias):
        pass
    monkeypatch.undo()

    with lock(name, backend=alias):
        pass
