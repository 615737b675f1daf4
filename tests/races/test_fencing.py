"""The promises about fenced rows, kept while holders are paused, killed and raced."""

import os
import random
import signal
import time
from contextlib import suppress
from types import SimpleNamespace

import pytest
from django.db import connection
from django.db.models import F

from idempotency import StaleLock, StaleObject, lock
from idempotency.fencing import guard
from idempotency.testing import crash_points, interleavings, race
from idempotency.testing.children import Child
from tests.models import Meter, SmartMeter

pytestmark = pytest.mark.django_db(transaction=True)

OLD, NEW = (SimpleNamespace(token=token) for token in (6, 7))


def stored(row):
    return Meter.objects.values_list("reading", "fence").get(pk=row.pk)


def by_save(row, held, reading):
    row.reading = reading
    row.save(held=held)


def by_child(row, held, reading):
    child = SmartMeter.objects.get(pk=row.pk)
    child.reading = child.firmware = reading
    child.save(held=held)


def by_guard(row, held, reading):
    guard(Meter.objects.filter(pk=row.pk), held).update(reading=reading)


def by_guard_of_many(row, held, reading):
    guard(Meter.objects.all(), held).update(reading=reading)


def by_guard_of_child(row, held, reading):
    guard(SmartMeter.objects.filter(pk=row.pk), held).update(reading=reading, firmware=reading)


def by_delete(row, held, reading):
    row.delete(held=held)


def by_guarded_delete(row, held, reading):
    guard(Meter.objects.all(), held).delete()


WRITES = [by_save, by_child, by_guard, by_guard_of_many, by_guard_of_child]


@pytest.mark.parametrize("write", [*WRITES, by_delete, by_guarded_delete])
def test_holder_that_is_paused_beyond_its_lease_is_refused_at_the_row(write):
    row = SmartMeter.objects.create()

    def outlive(report):
        with lock("meter", lease=1) as held:
            early = Meter.objects.get()
            report(held.token)
            os.kill(os.getpid(), signal.SIGSTOP)
            # What only the row can know, and what the process finds out by its own clock.
            for shown in (SimpleNamespace(token=held.token), held):
                try:
                    write(early, shown, 1)
                except StaleLock as error:
                    report("was lost" in str(error))
            report(held.lost)
            raise KeyError  # As the block fails, the loss of its lock is not told.

    child = Child(outlive)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
    with lock("meter", wait=20) as newer:
        by_save(Meter.objects.get(), newer, 99)
        os.kill(child.pid, signal.SIGCONT)
        reports, _ = child.join()

    assert reports[1:4] == [True, False, True]
    assert reports[0] < newer.token
    assert stored(row) == (99, newer.token)


def test_killed_holder_frees_its_row_when_its_lease_is_over():
    row = Meter.objects.create()

    def die(report):
        with lock("meter", lease=1) as held:
            by_save(Meter.objects.get(), held, 1)
            os.kill(os.getpid(), signal.SIGKILL)

    started_at = time.monotonic()
    Child(die).join()
    with lock("meter", wait=20) as newer:
        by_save(Meter.objects.get(), newer, 2)

    assert stored(row) == (2, newer.token)
    assert time.monotonic() - started_at < 10


@pytest.mark.parametrize("write", WRITES)
def test_in_every_order_the_newer_holder_has_the_last_word(write):
    row = SmartMeter.objects.create()

    def write_late(number):
        write(Meter.objects.get(pk=row.pk), OLD, 1)

    def write_newer(number):
        by_guard(row, NEW, 2)

    outcomes = set()
    for order in interleavings(write_late, write_newer):
        late, newer = (finish.error for finish in order.finishes)

        assert newer is None, order
        assert isinstance(late, StaleLock | None), (order, late)
        assert stored(row) == (2, 7), order
        outcomes.add(type(late))
        SmartMeter.objects.update(reading=0, firmware=0, fence=0)
    assert outcomes == {StaleLock, type(None)}


def test_in_every_order_what_two_holders_add_is_all_there():
    row = Meter.objects.create()

    def add(held):
        own = Meter.objects.get()
        by_save(own, held, own.reading + 1)

    for order in interleavings(lambda number: add(OLD), lambda number: add(NEW)):
        errors = [finish.error for finish in order.finishes]
        added = errors.count(None)

        assert added, order
        assert all(isinstance(error, StaleLock | StaleObject | None) for error in errors), order
        assert stored(row)[0] == added, order
        Meter.objects.update(reading=0, fence=0)


def test_in_every_order_rows_that_have_met_their_holder_before_the_read_lose_no_write():
    row = Meter.objects.create()
    rows = Meter.objects.filter(pk=row.pk)

    def write_late(number):
        written = 0
        with suppress(StaleLock):
            for _ in range(2):
                written += guard(rows, OLD).update(reading=F("reading") + 1)
        return written

    def add(number):
        guard(rows, NEW).update()
        own = rows.get()
        by_save(own, NEW, own.reading + 1)

    counts = set()
    for order in interleavings(write_late, add):
        late, newer = order.finishes

        assert late.error is newer.error is None, order
        assert stored(row) == (late.result + 1, 7), order
        counts.add(late.result)
        rows.update(reading=0, fence=0)
    assert counts == {0, 1, 2}


PROCESSES, WRITES_OF_EACH = 6, 25


def test_many_rows_written_in_any_order_are_all_of_one_holder_and_never_deadlock():
    rows = [Meter.objects.create(name=str(number)) for number in range(8)]

    def write(process: int) -> int:
        chooser = random.Random(process)  # noqa: S311 - not a secret.
        refused = 0
        for number in range(1, WRITES_OF_EACH + 1):
            held = SimpleNamespace(token=number * PROCESSES + process)
            order = chooser.choice(["pk", "-pk", "name", "-name", "?"])
            try:
                guard(Meter.objects.order_by(order), held).update(reading=held.token)
            except StaleLock:
                refused += 1
            assert len(set(Meter.objects.values_list("reading", "fence"))) == 1
        return refused

    connection.close()
    finishes = race(write, processes=PROCESSES)

    assert [finish.error for finish in finishes] == [None] * PROCESSES
    newest = WRITES_OF_EACH * PROCESSES + PROCESSES - 1
    assert {stored(row) for row in rows} == {(newest, newest)}


@pytest.mark.parametrize("write", [by_save, by_child, by_guard_of_many])
def test_fenced_write_is_whole_or_absent_wherever_its_process_dies(write):
    row = SmartMeter.objects.create()

    points = []
    for point in crash_points(lambda number: write(Meter.objects.get(pk=row.pk), OLD, 1)):
        left = stored(row)
        points.append((point.when, point.sql.split(" ")[0]))
        assert left in [(0, 0), (1, 6)], point

        write(Meter.objects.get(pk=row.pk), NEW, 2)

        assert stored(row) == (2, 7), point
        SmartMeter.objects.update(reading=0, firmware=0, fence=0)

    assert points[-3:-1] == [("before", "COMMIT"), ("after", "COMMIT")]
