"""The example under fire: what is paid, cancelled, shipped and on the shelf always adds up."""

import datetime as dt
import os
import random
import signal
from io import StringIO

import pytest
from django.core.management import call_command
from django.db import connection
from django.db.models import Sum
from django.utils import timezone

from idempotency import StaleObject, TransitionConflict, lock
from idempotency.models import LockLease
from idempotency.optimistic import retry_stale
from idempotency.testing import crash_points, race
from idempotency.testing.children import Child
from orders.invoicing import issue
from orders.ledger import Invoice, Payment, Settlement
from orders.models import NotDue, Order, OutOfStock, Product, Unchangeable
from orders.settling import LOCK, settle, yesterday
from tests.races.test_leases import wait_until

pytestmark = pytest.mark.django_db(transaction=True)

PROCESSES, ORDERS, STOCK = 8, 12, 1_000


@pytest.fixture
def product():
    return Product.objects.create(name="Cup", price=500, stock=STOCK)


def sum_of(rows, name="amount"):
    return rows.aggregate(sum=Sum(name, default=0))["sum"]


def assert_adds_up(product):
    """Compare the books of *product* with its orders."""
    product.refresh_from_db()
    kept = product.orders.exclude(status=Order.Status.CANCELLED)
    assert product.stock == STOCK - sum_of(kept, "quantity")
    for order in product.orders.all():
        assert order.paid == sum_of(order.payments) - sum_of(order.refunds), order
        assert order.paid == {"cancelled": 0, "placed": order.paid}.get(order.status, order.total)
        assert order.refunds.count() <= 1, order


def test_payments_cancels_shipments_and_changes_that_race_add_up(product):
    keys = [Order.objects.place(product, 2).pk for _ in range(ORDERS)]
    refusals = (TransitionConflict, NotDue, Unchangeable)

    @retry_stale(attempts=1_000)
    def act(kind, key):
        order = Order.objects.get(pk=key)
        {
            "pay": lambda: order.pay(500),
            "ship": order.ship,
            "cancel": order.cancel,
            "change": lambda: order.change_quantity(order.quantity % 3 + 1),
        }[kind]()

    def work(process):
        chooser = random.Random(process)  # noqa: S311 - not a secret.
        done = 0
        for key in keys * 2:
            kind = chooser.choice(["pay", "pay", "pay", "ship", "cancel", "change"])
            try:
                act(kind, key)
                done += 1
            except refusals:
                continue
        return done

    connection.close()
    finishes = race(work, processes=PROCESSES)

    assert [finish.error for finish in finishes] == [None] * PROCESSES
    assert sum(finish.result for finish in finishes) > ORDERS
    assert_adds_up(product)


def test_order_that_all_pay_and_cancel_at_once_is_one_or_the_other(product):
    keys = [Order.objects.place(product, 1).pk for _ in range(ORDERS)]

    def work(process):
        won = []
        for key in keys:
            order = Order.objects.get(pk=key)
            try:
                won.append((order.cancel() if process % 2 else order.pay(500)).repeated)
            except (TransitionConflict, StaleObject):
                continue
        return won.count(False)

    connection.close()
    finishes = race(work, processes=PROCESSES)

    assert [finish.error for finish in finishes] == [None] * PROCESSES
    assert_adds_up(product)
    assert {order.payments.count() for order in product.orders.all()} <= {0, 1}


def test_baskets_reserved_in_any_order_never_deadlock_and_never_oversell(product):
    products = [product, *(Product.objects.create(name=name, price=1, stock=30) for name in "ABC")]
    keys = [found.pk for found in products]

    def work(process):
        chooser = random.Random(process)  # noqa: S311 - not a secret.
        taken = dict.fromkeys(keys, 0)
        for _ in range(25):
            basket = {key: chooser.randint(1, 2) for key in chooser.sample(keys, 3)}
            try:
                Product.objects.reserve(basket)
            except OutOfStock:
                continue
            for key, quantity in basket.items():
                taken[key] += quantity
        return taken

    connection.close()
    finishes = race(work, processes=PROCESSES)

    assert [finish.error for finish in finishes] == [None] * PROCESSES
    for found in products:
        taken = sum(finish.result[found.pk] for finish in finishes)
        assert Product.objects.get(pk=found.pk).stock == found.stock - taken >= 0


def test_cancel_killed_at_any_moment_and_retried_gives_back_once(product):
    keys = []
    for _ in range(60):
        order = Order.objects.place(product, 1)
        order.pay(500)
        keys.append(order.pk)

    for point in crash_points(lambda number: Order.objects.get(pk=keys[number]).cancel()):
        Order.objects.get(pk=keys[point.number]).cancel()

        order = Order.objects.get(pk=keys[point.number])
        assert (order.status, sum_of(order.refunds)) == ("cancelled", 500), point
    assert_adds_up(product)


def test_invoices_that_race_are_numbered_without_gap_and_duplicate(product):
    keys = [Order.objects.place(product, 1).pk for _ in range(ORDERS)]
    for order in Order.objects.all():
        order.pay(order.total)

    def invoice(process):
        chooser = random.Random(process)  # noqa: S311 - not a secret.
        for key in chooser.sample(keys, ORDERS):
            issue(key)

    connection.close()
    finishes = race(invoice, processes=4)

    assert [finish.error for finish in finishes] == [None] * 4
    numbers = sorted(Invoice.objects.values_list("number", flat=True))
    assert numbers == list(range(1, ORDERS + 1))


def test_invoice_that_is_killed_at_any_statement_leaves_no_gap(product):
    orders = [Order.objects.place(product, 1) for _ in range(60)]
    for order in orders:
        order.pay(order.total)

    for point in crash_points(lambda number: issue(orders[number].pk)):
        # As after the lease: who was killed holds the lock until then.
        LockLease.objects.all().delete()
        issue(orders[point.number].pk)

        numbers = sorted(Invoice.objects.values_list("number", flat=True))
        assert numbers == list(range(1, point.number + 2)), point


def test_settlement_that_is_killed_at_any_statement_counts_each_payment_once(product):
    order = Order.objects.place(product, 2)
    order.pay(order.total)
    Payment.objects.update(created_at=timezone.now() - dt.timedelta(days=1))
    day = yesterday()

    for point in crash_points(lambda number: settle(day)):
        settlement, _ = settle(day)

        assert settlement.total == sum_of(settlement.payments) == 1_000, point
        Payment.objects.update(settlement=None)
        Settlement.objects.all().delete()


def test_settlements_that_race_make_one(product):
    order = Order.objects.place(product, 2)
    order.pay(order.total)
    Payment.objects.update(created_at=timezone.now() - dt.timedelta(days=1))
    day = yesterday()

    connection.close()
    finishes = race(lambda process: settle(day)[1], processes=4)

    assert [finish.error for finish in finishes] == [None] * 4
    assert sum(finish.result for finish in finishes) == 1
    assert Settlement.objects.get().total == 1_000


def test_run_that_is_killed_lets_the_next_one_settle_when_its_lease_is_over(product):
    def die(report):
        with lock(LOCK, lease=1):
            os.kill(os.getpid(), signal.SIGKILL)

    def run_again():
        output = StringIO()
        call_command("settle", stdout=output)
        outputs.append(output.getvalue())
        return "is settled" in outputs[-1]

    outputs = []
    Child(die).join()
    wait_until(run_again)

    assert "right now by" in outputs[0]
    assert Settlement.objects.get().total == 0
