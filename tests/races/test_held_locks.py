"""Distributed locks among real processes: no two inside, and freed when a holder dies."""

import fcntl
import gc
import os
import signal
import sys
import threading
import time
import uuid
from contextlib import ExitStack, contextmanager, suppress

import pytest

from idempotency import LockUnavailable, StaleLock, lock
from idempotency.locks import get_backend
from idempotency.testing import race
from idempotency.testing.children import Child
from idempotency.uptime import uptime
from tests.conftest import wait_until
from tests.test_locks import LOCKS, is_free, skip_without_server

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


def test_those_who_queue_in_redis_get_the_lock_in_the_order_they_came(
    name, witness, settings, monkeypatch
):
    if not settings.REDIS_URL:
        pytest.skip("no Redis")
    # Who gets no processor for longer than that is passed by, and rightly so.
    monkeypatch.setattr("idempotency.locks.redis.PATIENCE", 30_000)

    def queue_up(number):
        def work(report):
            with lock(name, backend="redis", wait=60), witness.inside(number):
                report("came in")

        return Child(work)

    children = []
    with lock(name, backend="redis"):
        for number in range(PROCESSES):
            children.append(queue_up(number))
            wait_until(lambda count=number + 1: waiters("redis", name) == count)
    finishes = [child.join() for child in children]

    assert finishes == [(["came in"], 0)] * PROCESSES
    assert witness.order == list(range(PROCESSES))


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


def waiters(alias, name):
    return sum(one.waiters for one in get_backend(alias).live() if one.name == name)


def until_waiting(alias, name):
    """Return once somebody queues, or, where nobody does, has surely tried."""
    deadline = time.monotonic() + (20 if alias == "redis" else 0.3)
    while time.monotonic() < deadline:
        if waiters(alias, name):
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
    count, lease = (50, 3.0) if alias.startswith("postgres") else (200, 2.0)
    with ExitStack() as locks:
        names = [f"busy:{uuid.uuid4()}" for _ in range(count)]
        held = [locks.enter_context(lock(name, backend=alias, lease=lease)) for name in names]
        with computing(threads=3):
            deadline = time.monotonic() + 1.5 * lease
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

    backend = get_backend(alias)
    assert [each for each in renewal.holdings if each.renewer is backend] == []
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


class Interruption(BaseException):
    """As from the handler of a signal."""


@contextmanager
def interrupting(file, function):
    """Interrupt this thread once, when it calls *function* of a *file* of the locks."""
    left = [1]

    def tracer(frame, event, arg):
        code = frame.f_code
        if left and code.co_filename.endswith(f"idempotency/{file}") and code.co_name == function:
            left.clear()
            raise Interruption

    sys.settrace(tracer)
    try:
        with pytest.raises(Interruption):
            yield
    finally:
        sys.settrace(None)


@pytest.mark.parametrize(
    ("file", "function"),
    [
        ("locks/held.py", "__init__"),
        ("renewal/workers.py", "add"),
        ("locks/context.py", "remember"),
        ("locks/context.py", "begin_block"),
        ("locks/lock.py", "__exit__"),
        ("locks/entering.py", "leave"),
        ("rollbacks.py", "at_transaction_ends"),
        ("locks/held.py", "release_if_left"),
        ("locks/held.py", "_free"),
    ],
)
def test_lock_is_not_renewed_for_one_who_was_interrupted(alias, name, file, function):
    lease = 2.0 if alias == "zookeeper" else 0.5
    with interrupting(file, function), lock(name, backend=alias, lease=lease):
        pass

    gc.collect()  # Some Pythons keep the frames of an error in a circle.
    wait_until(lambda: is_free(alias, name))


def test_lock_that_nobody_can_leave_any_more_is_freed(alias, name, caplog):
    def abandon():
        lock(name, backend=alias, on_lost=print).__enter__()

    abandon()

    wait_until(lambda: is_free(alias, name), 10)
    assert "was held by nobody any more, and was freed" in caplog.text


def test_loss_is_told_to_whoever_entered_the_lock_again(alias, name):
    outer, inner = threading.Event(), threading.Event()

    def enter_twice():
        with (
            lock(name, backend=alias, lease=30, on_lost=lambda held: outer.set()) as held,
            lock(name, backend=alias, reentrant=True, on_lost=lambda held: inner.set()),
        ):
            held.lose()
            assert outer.wait(20)
            assert inner.wait(20)
            held.assert_held()

    with pytest.raises(StaleLock):
        enter_twice()


def test_end_of_a_lease_that_is_not_renewed_is_told(alias, name):
    told = threading.Event()
    options = {"lease": 0.2, "renew": False, "on_lost": lambda held: told.set()}

    with suppress(StaleLock), lock(name, backend=alias, **options):
        assert told.wait(20)


def test_redis_that_hangs_keeps_no_other_lock_from_being_renewed(own_redis, settings, name):
    own = {"BACKEND": "idempotency.locks.redis.RedisLockBackend", "OPTIONS": {"cache": "own"}}
    settings.IDEMPOTENCY_LOCKS = {"default": {}, "own": own}
    settings.CACHES["own"]["OPTIONS"] = {}  # It waits for as long as it takes.
    told = threading.Event()

    with lock(name, lease=1) as kept:
        stuck = lock(name, backend="own", lease=0.5, on_lost=lambda held: told.set()).__enter__()
        with own_redis.paused():
            assert told.wait(20)
            assert stuck.lost
            end = stuck._holding.ends_at + 2
            wait_until(lambda: uptime() > end)
            kept.assert_held()
            assert not is_free("default", name)
