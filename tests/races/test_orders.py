"""The example under fire: what is paid, cancelled, shipped and on the shelf always adds up."""

import random

import pytest
from django.db import connection
from django.db.models import Sum

from idempotency import StaleObject, TransitionConflict
from idempotency.optimistic import retry_stale
from idempotency.testing import crash_points, race
from orders.models import NotDue, Order, OutOfStock, Product, Unchangeable

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
