"""The tools that prove things are proved themselves."""

import math
import os

import pytest
from django.db import OperationalError, connection, transaction
from django.db.models import F

from idempotency.testing import children, crash_points, interleavings, race
from idempotency.testing.children import Child, Failure
from tests.models import Effect, Ticket

pytestmark = pytest.mark.django_db(transaction=True)


def two_effects(number):
    with transaction.atomic():
        Effect.objects.create(name=f"{number} first")
        Effect.objects.create(name=f"{number} second")


def test_process_is_killed_before_and_after_each_statement_and_commit():
    points = [
        (point.when, point.sql.split()[0] if point.sql else "")
        for point in crash_points(two_effects)
    ]

    begin = [("before", "BEGIN"), ("after", "BEGIN")] if connection.vendor == "sqlite" else []
    assert points == [
        *begin,
        *[("before", "INSERT"), ("after", "INSERT")] * 2,
        ("before", "COMMIT"),
        ("after", "COMMIT"),
        ("after", ""),
    ]


def test_process_that_is_killed_before_its_commit_leaves_nothing():
    left = []
    for point in crash_points(two_effects):
        left.append(Effect.objects.filter(name__startswith=f"{point.number} ").count())

    assert left[-3:] == [0, 2, 2]
    assert set(left[:-3]) == {0}


def test_failure_of_the_work_itself_is_told_with_its_traceback():
    with pytest.raises(Failure, match="ZeroDivisionError"):
        list(crash_points(lambda number: 1 / 0))


def test_work_without_an_end_is_given_up():
    def endless(number):
        while True:
            Effect.objects.count()

    with pytest.raises(Failure, match="more than 3 moments"):
        list(crash_points(endless, most=3))


def test_point_says_where_it_is():
    points = [str(point) for point in crash_points(lambda number: Effect.objects.count())]

    assert points[0].startswith("0: before SELECT COUNT(*)")
    assert points[-1] == "2: after the end"


def one_read_one_write(number):
    connection.cursor().execute("SELECT 1")
    Effect.objects.create(name=f"{number}")


def test_every_order_of_two_runs_is_tried_once():
    orders = [
        tuple(run for run, _ in each.steps) for each in interleavings(*[one_read_one_write] * 2)
    ]

    assert len(orders) == len(set(orders)) == math.comb(4, 2)
    assert Effect.objects.count() == 2 * len(orders)


def test_order_that_loses_an_update_is_found():
    ticket = Ticket.objects.create(number="A", seat=0)

    def read_then_write(number):
        seat = Ticket.objects.get(pk=ticket.pk).seat
        Ticket.objects.filter(pk=ticket.pk).update(seat=seat + 1)

    seats = set()
    for _ in interleavings(read_then_write, read_then_write):
        seats.add(Ticket.objects.get(pk=ticket.pk).seat)
        Ticket.objects.filter(pk=ticket.pk).update(seat=0)

    assert seats == {1, 2}


def test_no_order_loses_an_update_that_the_database_makes():
    ticket = Ticket.objects.create(number="A", seat=0)

    def write(number):
        with transaction.atomic():
            Ticket.objects.filter(pk=ticket.pk).update(seat=F("seat") + 1)

    orders = 0
    for interleaving in interleavings(write, write):
        orders += 1
        assert Ticket.objects.get(pk=ticket.pk).seat == 2 * orders, interleaving

    assert orders >= 2


def test_errors_and_results_of_runs_are_told():
    (interleaving,) = interleavings(lambda number: "result", lambda number: 1 / 0)

    result, error = interleaving.finishes
    assert (result.result, result.error) == ("result", None)
    assert isinstance(error.error, ZeroDivisionError)


def test_too_many_orders_are_given_up():
    with pytest.raises(RuntimeError, match="more than 3 orders"):
        list(interleavings(one_read_one_write, one_read_one_write, most=3))


def lock_both(first, second):
    with transaction.atomic():
        Ticket.objects.filter(number=first).update(title="x")
        Ticket.objects.filter(number=second).update(title="x")


CROSSED = (lambda number: lock_both("A", "B"), lambda number: lock_both("B", "A"))


@pytest.mark.skipif(connection.vendor == "sqlite", reason="one writer cannot wait for itself")
def test_deadlock_is_told_as_the_error_of_a_run():
    for number in "AB":
        Ticket.objects.create(number=number)

    finishes = [finish for each in interleavings(*CROSSED) for finish in each.finishes]

    errors = [finish.error for finish in finishes if finish.error is not None]
    assert errors
    assert all(isinstance(error, OperationalError) for error in errors)


@pytest.mark.skipif(connection.vendor != "postgresql", reason="others notice a deadlock at once")
def test_runs_that_wait_for_each_other_too_long_are_given_up_and_leave_no_lock(monkeypatch):
    for number in "AB":
        Ticket.objects.create(number=number)
    monkeypatch.setattr("idempotency.testing.interleaving.GIVE_UP_AFTER", 0.3)

    with pytest.raises(RuntimeError, match="wait for each other"):
        list(interleavings(*CROSSED))

    assert Ticket.objects.update(title="y") == 2


def test_race_tells_results_and_errors():
    def work(number):
        if number == 1:
            raise ValueError("one")
        return number * 10

    finishes = race(work, processes=3)

    assert [finish.result for finish in finishes] == [0, None, 20]
    assert str(finishes[1].error) == "one"


def test_all_processes_of_a_race_run_at_once():
    def meet(process):
        Effect.objects.create(name=f"{process}")
        return any(Effect.objects.count() == 4 for _ in range(10_000))

    assert [finish.result for finish in race(meet, processes=4)] == [True] * 4


def test_order_in_which_a_look_before_an_insert_does_not_help_is_found():
    def check_then_act(number):
        if not Effect.objects.filter(name=f"{number}").exists():
            Effect.objects.create(name=f"{number}")

    made = [
        Effect.objects.filter(name=f"{each.number}").count()
        for each in interleavings(check_then_act, check_then_act)
    ]

    assert set(made) == {1, 2}


def test_process_that_dies_in_a_race_is_told():
    with pytest.raises(Failure, match="signal 9"):
        race(lambda number: __import__("os").kill(__import__("os").getpid(), 9), processes=2)


@pytest.mark.parametrize("tool", [lambda work: list(crash_points(work)), race])
def test_open_transaction_that_no_other_process_sees_is_refused(tool):
    with transaction.atomic(), pytest.raises(RuntimeError, match="transaction=True"):
        tool(lambda number: None)


def test_child_that_goes_on_for_long_says_where_it_is(monkeypatch):
    def linger(report):
        os.close(let_end)
        os.read(end, 1)
        report("done")

    monkeypatch.setattr(children, "PATIENCE", 0.05)
    (told, tell), (end, let_end), standard_error = os.pipe(), os.pipe(), os.dup(2)
    os.dup2(tell, 2)
    try:
        child = Child(linger)
    finally:
        os.dup2(standard_error, 2)
    os.close(tell)
    with os.fdopen(told) as lines:
        assert any("in linger" in line for line in lines)
    os.close(let_end)

    assert child.join() == (["done"], 0)
    os.close(end)
    os.close(standard_error)
