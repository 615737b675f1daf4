"""What is held is renewed, and a loss is told, whatever else hangs, fails or is interrupted."""

import gc
import sys
import threading
import time
import weakref
from pathlib import Path

import pytest

from idempotency.renewal import Holding, Renewal
from idempotency.uptime import uptime
from tests.conftest import wait_until

LEASE = 0.3


class Renewing:
    """A renewer of the test's own: counts, loses what it is told to, and may hang or fail."""

    def __init__(self, *, fails_with=None):
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.fails_with = fails_with
        self.lost = set()
        self.count = 0

    def renew(self, claims):
        self.count += 1
        assert self.goes_on.wait(30)
        if self.fails_with is not None:
            raise self.fails_with
        return self.lost & set(claims)


@pytest.fixture
def renewal():
    own = Renewal()
    yield own
    for holding in own.holdings:
        own.discard(holding)


@pytest.fixture
def hanging():
    renewer = Renewing()
    renewer.goes_on.clear()
    yield renewer
    renewer.goes_on.set()


def test_renewer_that_hangs_keeps_no_other_from_renewing(renewal, hanging):
    with renewal.holding(hanging, 1, LEASE) as stuck, renewal.holding(Renewing(), 2, LEASE) as kept:
        wait_until(lambda: stuck.lost)
        until = uptime() + LEASE
        wait_until(lambda: uptime() > until)

        assert not kept.lost


def test_loss_is_told_in_time_while_the_renewal_hangs(renewal, hanging):
    told = threading.Event()

    with renewal.holding(hanging, 1, LEASE, told.set) as holding:
        assert told.wait(20)
        late = uptime() - holding.ends_at

    assert holding.lost
    assert 0 <= late < 2


def test_loss_is_told_of_what_is_not_renewed(renewal):
    told = threading.Event()

    renewal.add(Holding(Renewing(), 1, LEASE, told.set), renew=False)

    assert told.wait(20)
    assert renewal.holdings == set()


def test_loss_is_told_after_the_last_renewal(renewal, monkeypatch, caplog):
    monkeypatch.setattr("idempotency.renewal.holdings.MOST_LEASES", 2)
    told = threading.Event()

    with renewal.holding(Renewing(), 1, LEASE, told.set):
        assert told.wait(20)

    assert "is now left to end" in caplog.text


def test_nobody_is_told_of_what_was_let_go(renewal):
    told = []
    renewer = Renewing()
    renewer.lost.add(1)
    renewer.goes_on.clear()

    with renewal.holding(renewer, 1, LEASE, lambda: told.append(1)) as holding:
        wait_until(lambda: renewer.count)
    renewer.goes_on.set()
    wait_until(lambda: uptime() > holding.ends_at)

    assert (told, holding.is_refused) == ([], False)


def test_refused_renewal_is_told_once(renewal):
    told, renewer = [], Renewing()
    renewer.lost.add(1)

    with renewal.holding(renewer, 1, LEASE, lambda: told.append(1)) as holding:
        wait_until(lambda: told)
        wait_until(lambda: uptime() > holding.ends_at + LEASE)

    assert told == [1]


@pytest.mark.parametrize("ending", [SystemExit, KeyError])
def test_callback_that_ends_its_thread_ends_no_other_renewal(renewal, ending, caplog):
    def end():
        raise ending

    renewer = Renewing()
    with renewal.holding(renewer, 1, LEASE) as kept, renewal.holding(renewer, 2, LEASE, end):
        renewer.lost.add(2)
        wait_until(lambda: "failed in the background" in caplog.text)
        before = renewer.count
        wait_until(lambda: renewer.count > before + 3)

        assert not kept.lost


def test_callback_that_blocks_holds_up_neither_renewals_nor_other_callbacks(renewal):
    go_on, told, renewer = threading.Event(), threading.Event(), Renewing()

    with renewal.holding(renewer, 1, LEASE) as kept:
        renewal.lose(Holding(renewer, 2, LEASE, lambda: go_on.wait(30)))
        renewal.lose(Holding(renewer, 3, LEASE, told.set))
        assert told.wait(20)
        before = renewer.count
        wait_until(lambda: renewer.count > before + 3)
        go_on.set()

        assert not kept.lost


def test_all_who_asked_are_told_even_after_the_loss(renewal):
    first, second, third = (threading.Event() for _ in range(3))
    holding = Holding(Renewing(), 1, 30, first.set)
    renewal.add(holding)
    renewal.tell_also(holding, second.set)

    renewal.lose(holding)
    renewal.tell_also(holding, third.set)

    assert all(told.wait(20) for told in (first, second, third))


@pytest.mark.parametrize("error", [SystemExit(), OSError()], ids=repr)
def test_renewal_that_fails_is_tried_again_even_after_the_end_of_the_lease(renewal, error):
    renewer = Renewing(fails_with=error)

    with renewal.holding(renewer, 1, LEASE) as holding:
        wait_until(lambda: holding.lost)
        renewer.fails_with = None
        wait_until(lambda: not holding.lost)

    assert not holding.is_refused


def test_errands_are_run_in_the_background_even_if_one_fails(renewal, caplog):
    threads, renewer = [], Renewing()

    def fail():
        raise SystemExit

    renewal.run_soon(fail, renewer)
    renewal.run_soon(lambda: threads.append(threading.current_thread().name), renewer)
    wait_until(lambda: threads)

    assert threads == ["idempotency-renewal"]
    assert "failed in the background" in caplog.text


def test_second_thread_of_a_renewer_takes_the_place_of_the_first(renewal):
    renewer = Renewing()

    with renewal.holding(renewer, 1, LEASE) as holding:
        (worker,) = renewal.workers
        wait_until(lambda: worker.thread)
        first = worker.thread
        threading.Thread(target=worker._run, daemon=True).start()
        wait_until(lambda: not first.is_alive())
        before = renewer.count
        wait_until(lambda: renewer.count > before + 3)

        assert worker.thread.is_alive()
        assert not holding.lost


def test_what_comes_while_the_thread_ends_is_renewed(renewal, monkeypatch):
    monkeypatch.setattr("idempotency.renewal.workers.IDLE", 0.0001)
    renewer = Renewing()

    for _ in range(300):
        with renewal.holding(renewer, 1, 0.003):
            before = renewer.count
            wait_until(lambda: renewer.count > before)  # noqa: B023 - called at once.


def test_short_holds_let_the_thread_sleep(renewal):
    renewer, looked = Renewing(), []
    with renewal.holding(renewer, 0, 30):
        (worker,) = renewal.workers
        wait_until(lambda: worker._wakes_at < float("inf"))
    step = worker._step

    def counted():
        looked.append(1)
        return step()

    worker._step = counted
    for number in range(1_000):
        with renewal.holding(renewer, number, 30):
            pass

    assert len(looked) <= 2


def test_holding_goes_unrenewed_when_there_can_be_no_thread(renewal, monkeypatch, caplog):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with renewal.holding(Renewing(), 1, 0.001) as holding:
            wait_until(lambda: holding.lost)
    with renewal.holding(Renewing(), 1, LEASE):
        pass

    assert "can be started" in caplog.text


def test_renewer_is_kept_only_while_there_is_work(renewal):
    renewer = Renewing()
    kept = weakref.ref(renewer)
    with renewal.holding(renewer, 1, LEASE):
        (worker,) = renewal.workers
        wait_until(lambda: worker._wakes_at < float("inf"))
    del renewer

    wait_until(lambda: gc.collect() is not None and kept() is None)


class Interruption(BaseException):
    """As from the handler of a signal."""


def interrupted(call, line):
    """Call *call*, interrupted at the *line*th line that it runs of the renewal; tell if it was."""
    left = [line]

    def tracer(frame, event, arg):
        if Path(frame.f_code.co_filename).parent.name != "renewal":
            return None
        if event == "line":
            left[0] -= 1
            if left[0] == 0:
                raise Interruption
        return tracer

    sys.settrace(tracer)
    try:
        call()
    except Interruption:
        return True
    finally:
        sys.settrace(None)
    return False


@pytest.mark.parametrize("is_new", [True, False], ids=["no thread yet", "thread that waits"])
def test_interruption_ends_no_other_renewal(renewal, is_new):
    renewer = Renewing()

    def hold():
        with renewal.holding(renewer, "interrupted", LEASE, lambda: None) as holding:
            renewal.tell_also(holding, lambda: None)
            renewal.run_soon(lambda: None, renewer)

    line, was_interrupted = 0, True
    while was_interrupted:
        line += 1
        if is_new:
            renewal._reset()
        was_interrupted = interrupted(hold, line)
        with renewal.holding(renewer, "kept", LEASE / 10) as kept:
            before = renewer.count
            wait_until(lambda: renewer.count > before)  # noqa: B023 - called at once.
    assert line > 10
    assert not kept.is_refused


def test_uptime_is_not_behind_the_clock_that_stands_still_while_the_machine_sleeps():
    start, woken = uptime(), time.monotonic()

    assert uptime() - start >= 0
    assert uptime() >= woken
