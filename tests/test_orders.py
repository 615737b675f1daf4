"""The example end to end: what its clients, its visitors and its staff meet."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from idempotency import cache_lock, lock
from idempotency.transitions import log_of
from orders.ledger import Invoice, Payment, Refund, Settlement
from orders.models import Order, OutOfStock, Product
from tests.conftest import elsewhere

KEY = "a key that nobody guesses"
OTHER_KEY = "another key, for another intent"

pytestmark = [pytest.mark.django_db, pytest.mark.urls("config.urls")]


@pytest.fixture
def product() -> Product:
    return Product.objects.create(name="Cup", price=500, stock=10)


@pytest.fixture
def order(product: Product) -> Order:
    return Order.objects.place(product, 2)


def post(client: Client, view: str, *args: Any, key: str | None = KEY, **fields: Any) -> Any:
    headers = {"Idempotency-Key": f'"{key}"'} if key else {}
    address = reverse(f"orders:{view}", args=args)
    return client.post(address, fields, content_type="application/json", headers=headers)


def test_order_is_placed(client: Client, product: Product) -> None:
    answer = post(client, "create", product=product.pk, quantity=3, client_reference="A-1")

    order = Order.objects.get()
    product.refresh_from_db()
    assert answer.status_code == 201
    assert answer.headers["Location"] == reverse("orders:detail", args=[order.pk])
    assert answer.json()["id"] == order.pk
    assert (order.quantity, order.total, order.client_reference) == (3, 1_500, "A-1")
    assert (order.status, product.stock) == (Order.Status.PLACED, 7)


def test_order_sent_twice_is_placed_once(client: Client, product: Product) -> None:
    first, second = (post(client, "create", product=product.pk, quantity=3) for _ in range(2))

    product.refresh_from_db()
    assert (Order.objects.count(), product.stock) == (1, 7)
    assert second.headers["Idempotent-Replayed"] == "true"
    assert (second.status_code, second.content) == (201, first.content)


def test_order_sent_twice_without_protection_is_placed_twice(
    client: Client, product: Product
) -> None:
    for _ in range(2):
        post(client, "unprotected:create", product=product.pk, quantity=3)

    product.refresh_from_db()
    assert (Order.objects.count(), product.stock) == (2, 4)


def test_other_order_with_the_same_key_is_refused(client: Client, product: Product) -> None:
    post(client, "create", product=product.pk, quantity=3)

    answer = post(client, "create", product=product.pk, quantity=4)

    assert answer.status_code == 422
    assert Order.objects.count() == 1


@pytest.mark.parametrize("view", ["create", "pay"])
def test_key_is_required(client: Client, order: Order, view: str) -> None:
    answer = post(client, view, *([order.pk] if view == "pay" else []), key=None)

    assert answer.status_code == 400
    assert answer.json()["type"].endswith("key-missing")


def test_order_for_more_than_there_is_leaves_the_shelf_alone(
    client: Client, product: Product
) -> None:
    answer = post(client, "create", product=product.pk, quantity=11)

    product.refresh_from_db()
    assert answer.status_code == 409
    assert answer.json()["detail"] == "There are not 11 of “Cup” left."
    assert (Order.objects.count(), product.stock) == (0, 10)


def test_order_may_be_sent_again_when_the_shelf_is_full_again(
    client: Client, product: Product
) -> None:
    post(client, "create", product=product.pk, quantity=11)
    Product.objects.update(stock=20)

    answer = post(client, "create", product=product.pk, quantity=11)

    assert answer.status_code == 201


WRONG_FIELDS = {
    "null": {"product": None, "quantity": None},
    "unknown": {"product": 2**62},
    "text": {"product": "cup", "quantity": "many"},
    "too large for a database": {"product": 10**30, "quantity": 10**30},
    "infinite": {"product": float("inf"), "quantity": float("inf")},
    "no number": {"product": float("nan"), "quantity": float("nan")},
    "fraction": {"product": 1.5, "quantity": 1.5},
    "truth": {"product": True, "quantity": True},
    "nested": {"product": {"id": 1}, "quantity": [1]},
    "none of it": {"quantity": 0},
    "less than none": {"quantity": -1},
    "more than allowed": {"quantity": 1_001},
    "long reference": {"client_reference": "x" * 65},
    "zero byte": {"client_reference": "a\0b"},
    "half a character": {"client_reference": "\ud800"},
    "line break": {"client_reference": "a\n"},
}
NOT_AN_OBJECT = {
    "empty": b"",
    "text": b"product=1",
    "list": b"[]",
    "null": b"null",
    "cut off": b'{"product": 1',
    "not UTF-8": b'{"product": "\xff"}',
    "deep": b"[" * 100_000,
    "endless number": b'{"product": ' + b"9" * 10_000 + b"}",
}


@pytest.mark.parametrize("wrong", WRONG_FIELDS.values(), ids=WRONG_FIELDS)
def test_wrong_fields_are_named(client: Client, product: Product, wrong: dict[str, Any]) -> None:
    fields = {"product": product.pk, "quantity": 1} | wrong

    answer = post(client, "unprotected:create", **fields)

    assert answer.status_code == 400
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["errors"].keys() == wrong.keys()


@pytest.mark.parametrize("body", NOT_AN_OBJECT.values(), ids=NOT_AN_OBJECT)
@pytest.mark.parametrize("view", ["create", "unprotected:create"])
def test_body_that_is_no_object_is_refused(client: Client, view: str, body: bytes) -> None:
    headers = {"Idempotency-Key": KEY}
    address = reverse(f"orders:{view}")

    answer = client.post(address, body, content_type="application/json", headers=headers)

    assert answer.status_code == 400
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_missing_fields_are_named(client: Client) -> None:
    answer = post(client, "create")

    assert answer.status_code == 400
    assert answer.json()["errors"] == {
        "product": ["This field is required."],
        "quantity": ["This field is required."],
    }


@pytest.mark.parametrize("view", ["create", "pay", "unprotected:create", "unprotected:pay"])
def test_reading_where_one_writes_is_refused(client: Client, view: str) -> None:
    address = reverse(f"orders:{view}", args=[1] if view.endswith("pay") else [])

    assert client.get(address).status_code == 405


def test_payment_sent_twice_is_taken_once(client: Client, order: Order) -> None:
    first, second = (post(client, "pay", order.pk, amount=100) for _ in range(2))

    order.refresh_from_db()
    assert (order.paid, order.status) == (100, Order.Status.PLACED)
    assert list(order.payments.values_list("amount", flat=True)) == [100]
    assert second.headers["Idempotent-Replayed"] == "true"
    assert (second.status_code, second.content) == (201, first.content)


def test_payment_sent_twice_without_protection_is_taken_twice(client: Client, order: Order) -> None:
    for _ in range(2):
        post(client, "unprotected:pay", order.pk, amount=100)

    order.refresh_from_db()
    assert (order.paid, order.payments.count()) == (200, 2)


def test_order_is_paid_when_nothing_is_due(client: Client, order: Order) -> None:
    post(client, "pay", order.pk, amount=400)
    answer = post(client, "pay", order.pk, key=OTHER_KEY, amount=600)

    order.refresh_from_db()
    assert (order.status, order.due) == (Order.Status.PAID, 0)
    assert answer.json()["order"]["status"] == "paid"


def test_payment_of_more_than_is_due_is_refused(client: Client, order: Order) -> None:
    answer = post(client, "pay", order.pk, amount=1_001)

    order.refresh_from_db()
    assert answer.status_code == 409
    assert answer.json()["detail"] == f"Order {order.pk} has less than 1001 still due."
    assert (order.paid, Payment.objects.count()) == (0, 0)


@pytest.mark.parametrize("amount", [None, 0, -1, "much", 1.5, 10**30])
def test_wrong_amount_is_refused(client: Client, order: Order, amount: Any) -> None:
    answer = post(client, "pay", order.pk, amount=amount)

    assert answer.status_code == 400
    assert answer.json()["errors"].keys() == {"amount"}


def test_payment_for_no_order_is_not_found(client: Client) -> None:
    answer = post(client, "pay", 2**40, amount=1)

    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_order_can_be_read(client: Client, order: Order) -> None:
    answer = client.get(order.get_absolute_url())

    assert answer.status_code == 200
    assert json.loads(answer.content) == {
        "id": order.pk,
        "product": order.product_id,
        "quantity": 2,
        "status": "placed",
        "total": 1_000,
        "paid": 0,
        "client_reference": None,
        "created_at": order.created_at.isoformat(),
    }


def test_no_order_is_not_found(client: Client) -> None:
    assert client.get(reverse("orders:detail", args=[2**40])).status_code == 404


# Moving on.


def test_order_is_paid_shipped_and_never_cancelled_after_that(client: Client, order: Order) -> None:
    post(client, "pay", order.pk, amount=order.total)

    shipped = post(client, "ship", order.pk, key="a key to ship the order with")
    again = post(client, "ship", order.pk, key="another key to ship it with")
    cancelled = post(client, "cancel", order.pk, key="a key to cancel the order with")

    assert (shipped.status_code, shipped.json()["status"]) == (200, "shipped")
    assert (again.status_code, again.json()["status"]) == (200, "shipped")
    assert (cancelled.status_code, cancelled.json()["state"]) == (409, "shipped")
    assert cancelled.json()["type"].endswith("transition-conflict")
    steps = [(log.source, log.target, log.by) for log in log_of(order)]
    assert steps == [("paid", "shipped", "a client"), ("placed", "paid", "a client")]


def test_order_is_not_shipped_before_it_is_paid(client: Client, order: Order) -> None:
    post(client, "pay", order.pk, amount=1)

    answer = post(client, "ship", order.pk, key=OTHER_KEY)

    assert (answer.status_code, answer.json()["state"]) == (409, "placed")


def test_cancelled_order_gives_goods_and_money_back(client: Client, order: Order) -> None:
    post(client, "pay", order.pk, amount=400)

    first, second = (post(client, "cancel", order.pk, key=OTHER_KEY) for _ in range(2))
    third = post(client, "cancel", order.pk, key="a third key for the same order")

    order.refresh_from_db()
    order.product.refresh_from_db()
    assert (order.status, order.paid, order.product.stock) == (Order.Status.CANCELLED, 0, 10)
    assert list(order.refunds.values_list("amount", flat=True)) == [400]
    assert first.content == second.content == third.content
    assert str(order.refunds.get()) == f"Refund {order.refunds.get().pk}: 400 for order {order.pk}"


def test_nothing_is_paid_for_a_cancelled_order(client: Client, order: Order) -> None:
    order.cancel()

    answer = post(client, "pay", order.pk, amount=1)
    unprotected = post(client, "unprotected:pay", order.pk, amount=1)

    assert (answer.status_code, answer.json()["state"]) == (409, "cancelled")
    assert unprotected.status_code == 409
    assert Payment.objects.count() == 0


def test_moving_no_order_is_not_found(client: Client) -> None:
    assert post(client, "ship", 2**40).status_code == 404


# Changing what was ordered.


def patch(client: Client, order: Order, tag: str | None, content: Any) -> Any:
    headers = {} if tag is None else {"If-Match": tag}
    address = order.get_absolute_url()
    return client.patch(address, content, content_type="application/json", headers=headers)


def test_order_is_changed_by_who_has_seen_it(client: Client, order: Order) -> None:
    seen = client.get(order.get_absolute_url())["ETag"]

    answer = patch(client, order, seen, {"quantity": 5})
    late = patch(client, order, seen, {"quantity": 1})

    order.refresh_from_db()
    order.product.refresh_from_db()
    assert (answer.status_code, answer["ETag"]) == (200, f'"order-{order.pk}-2"')
    assert (late.status_code, late["ETag"]) == (412, f'"order-{order.pk}-2"')
    assert (order.quantity, order.total, order.product.stock) == (5, 2_500, 5)


@pytest.mark.parametrize(
    ("tag", "content", "status"),
    [
        (None, {"quantity": 5}, 428),
        ("2", {"quantity": 5}, 400),
        ('"order-0-1"', {"quantity": 5}, 412),
        ("*", {"quantity": 0}, 400),
        ("*", {"quantity": 99}, 409),
    ],
)
def test_wrong_change_writes_nothing(
    client: Client, order: Order, tag: str | None, content: Any, status: int
) -> None:
    answer = patch(client, order, tag, content)

    order.refresh_from_db()
    order.product.refresh_from_db()
    assert answer.status_code == status
    assert answer["Content-Type"] == "application/problem+json"
    assert (order.quantity, order.total, order.product.stock, order.version) == (2, 1_000, 8, 1)


def test_paid_order_is_not_changed(client: Client, order: Order) -> None:
    order.pay(100)

    answer = patch(client, order, "*", {"quantity": 1})

    assert answer.status_code == 409
    assert answer.json()["detail"] == f"Order {order.pk} is placed, with 100 paid."


def test_change_sent_twice_with_a_key_is_made_once(client: Client, order: Order) -> None:
    address, tag = order.get_absolute_url(), f'"order-{order.pk}-1"'
    headers = {"If-Match": tag, "Idempotency-Key": KEY}

    answers = [
        client.patch(address, {"quantity": 3}, content_type="application/json", headers=headers)
        for _ in range(2)
    ]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[1]["Idempotent-Replayed"] == "true"


def test_several_products_are_reserved_together_or_not_at_all(product: Product) -> None:
    other = Product.objects.create(name="Pot", price=900, stock=1)

    with pytest.raises(OutOfStock):
        Product.objects.reserve({product.pk: 1, other.pk: 2})

    assert set(Product.objects.filter(pk__in=[product.pk, other.pk]).values_list("stock")) == {
        (10,),
        (1,),
    }


# Pages.


def test_start_page_counts_and_shows_what_to_try(client: Client, order: Order) -> None:
    order.pay(100)
    Product.objects.exclude(pk=order.product_id).delete()

    page = client.get("/").content.decode()

    assert "<dd>1</dd>" in page
    assert f'-d \'{{"product": {order.product_id}, "quantity": 1}}\'' in page
    assert 'href="/admin/"' in page


def test_start_page_says_how_to_fill_empty_shelves(client: Client) -> None:
    Product.objects.all().delete()

    assert reverse("admin:orders_product_add") in client.get("/").content.decode()


@pytest.mark.parametrize("model", ["product", "order", "payment"])
def test_staff_see_what_happened(admin_client: Client, order: Order, model: str) -> None:
    payment = order.pay(100).result
    shown = {"product": order.product_id, "order": order.pk, "payment": payment.pk}[model]
    changelist = reverse(f"admin:orders_{model}_changelist")
    change = reverse(f"admin:orders_{model}_change", args=[shown])

    assert admin_client.get(changelist, {"q": "A"}).status_code == 200
    assert admin_client.get(change).status_code == 200


@pytest.mark.parametrize(
    ("model", "actions"), [("order", ["add", "delete"]), ("payment", ["add", "change", "delete"])]
)
def test_staff_cannot_rewrite_what_happened(
    admin_client: Client, order: Order, model: str, actions: list[str]
) -> None:
    payment = order.pay(100).result
    shown = {"order": order.pk, "payment": payment.pk}[model]

    for action in actions:
        args = [] if action == "add" else [shown]
        answer = admin_client.post(reverse(f"admin:orders_{model}_{action}", args=args))
        assert answer.status_code == 403


def confirm(client: Client, order: Order, name: str, **fields: Any) -> list[Any]:
    """Press a button of the admin, and send the page that it leads to twice."""
    address = reverse("admin:orders_order_transition", args=[order.pk, name])
    page = client.get(address).content.decode()
    seen = re.search(r'name="seen" value="([^"]+)"', page)
    assert seen is not None
    return [client.post(address, {"seen": seen[1], **fields}, follow=True) for _ in range(2)]


def test_staff_move_an_order_once_however_often_they_click(
    admin_client: Client, admin_user: Any, order: Order
) -> None:
    confirm(admin_client, order, "pay", **{"given-amount": "1000"})
    confirm(admin_client, order, "ship", note="by bike")

    order.refresh_from_db()
    steps = [(log.target, log.by, log.note) for log in log_of(order)]
    assert (order.status, order.paid) == (Order.Status.SHIPPED, 1_000)
    assert steps == [
        ("shipped", f"user:{admin_user.pk}", "by bike"),
        ("paid", f"user:{admin_user.pk}", ""),
    ]


def test_staff_are_told_that_too_much_is_paid(admin_client: Client, order: Order) -> None:
    first, _ = confirm(admin_client, order, "pay", **{"given-amount": "1001"})

    order.refresh_from_db()
    assert f"Order {order.pk} has less than 1001 still due." in first.content.decode()
    assert (order.paid, order.payments.count()) == (0, 0)


def test_staff_overwrite_no_order_that_was_changed_meanwhile(
    admin_client: Client, order: Order
) -> None:
    address = reverse("admin:orders_order_change", args=[order.pk])
    page = admin_client.get(address).content.decode()
    seen = re.search(r'name="seen_version" value="([^"]+)"', page)
    assert seen is not None
    order.pay(100)

    fields = {"client_reference": "mine", "seen_version": seen[1]}
    for inline in ("payments", "refunds"):
        fields |= {f"{inline}-TOTAL_FORMS": "0", f"{inline}-INITIAL_FORMS": "0"}
    answer = admin_client.post(address, fields)

    order.refresh_from_db()
    assert (answer.status_code, order.client_reference) == (200, None)
    assert "This has been changed since you opened it" in answer.content.decode()


def test_rows_name_themselves(order: Order) -> None:
    payment = order.pay(100).result

    assert str(order) == f"Order {order.pk}: 2 x Cup"
    assert str(payment) == f"Payment {payment.pk}: 100 for order {order.pk}"


# Invoices


@pytest.fixture
def paid(order: Order) -> Order:
    order.pay(order.total)
    return order


def place_paid(product: Product) -> Order:
    order = Order.objects.place(product, 1)
    order.pay(order.total)
    return order


def test_invoice_is_made_once_and_given_again(client: Client, paid: Order) -> None:
    first, second = (post(client, "invoice", paid.pk, key=None) for _ in range(2))

    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json() == second.json()
    assert first.json()["number"] == f"{timezone.now().year}-1"
    assert first.json()["total"] == paid.total


def test_invoices_are_numbered_without_a_gap(client: Client, product: Product) -> None:
    orders = [place_paid(product) for _ in range(3)]
    unpaid = Order.objects.place(product, 1)

    for order in [*orders, unpaid, place_paid(product)]:
        post(client, "invoice", order.pk, key=None)

    assert sorted(Invoice.objects.values_list("number", flat=True)) == [1, 2, 3, 4]


def test_order_that_is_not_paid_has_no_invoice(client: Client, order: Order) -> None:
    answer = post(client, "invoice", order.pk, key=None)

    assert answer.status_code == 409
    assert answer.json()["detail"] == f"Order {order.pk} is placed."
    assert post(client, "invoice", 0, key=None).status_code == 404


@pytest.mark.django_db(transaction=True)
def test_second_click_for_an_invoice_meanwhile_is_told_so(client: Client, paid: Order) -> None:
    def click_meanwhile() -> None:
        answers.append(post(Client(), "invoice", paid.pk, key=None))

    answers: list[Any] = []
    with cache_lock(f"order:{paid.pk}:invoice"):
        elsewhere(click_meanwhile)

    assert answers[0].status_code == 409
    assert answers[0].json()["type"].endswith("locked")
    assert not Invoice.objects.exists()
    assert post(client, "invoice", paid.pk, key=None).status_code == 201


# The nightly settlement


@pytest.fixture
def today() -> Iterator[dt.date]:
    """Today, where it is noon: no day ends while a test runs."""
    now = timezone.now().astimezone(dt.UTC)
    noon = dt.timezone(dt.timedelta(hours=12) - dt.timedelta(hours=now.hour, minutes=now.minute))
    with timezone.override(noon):
        yield timezone.localdate()


def settle(day: dt.date | None = None) -> str:
    output = StringIO()
    call_command("settle", *([f"--day={day}"] if day else []), stdout=output)
    return output.getvalue()


def move_back(rows: Any, days: int) -> None:
    rows.update(created_at=timezone.now() - dt.timedelta(days=days))


def test_day_is_settled_once(product: Product, today: dt.date) -> None:
    yesterday = today - dt.timedelta(days=1)
    for _ in range(2):
        place_paid(product)
    move_back(Payment.objects, 1)
    place_paid(product)

    first, second = settle(), settle(yesterday)

    assert first == f"{yesterday} is settled: 10.00.\n"
    assert second == f"{yesterday} was settled before: 10.00.\n"
    assert [row.total for row in Settlement.objects.all()] == [1_000]
    assert Payment.objects.filter(settlement=None).count() == 1


def test_what_was_late_for_its_settlement_is_in_the_next_one(
    product: Product, today: dt.date
) -> None:
    days = [today - dt.timedelta(days=2), today - dt.timedelta(days=1)]
    place_paid(product)
    move_back(Payment.objects, 2)
    settle(days[0])
    place_paid(product).cancel()
    move_back(Payment.objects.filter(settlement=None), 2)
    move_back(Refund.objects, 1)
    place_paid(product)
    move_back(Payment.objects.filter(settlement=None), 1)

    settle()

    totals = Settlement.objects.order_by("day").values_list("day", "total")
    assert list(totals) == [(day, 500) for day in days]


def test_day_that_is_not_over_is_not_settled(today: dt.date) -> None:
    with pytest.raises(CommandError, match="not over yet"):
        settle(today)

    assert not Settlement.objects.exists()


def test_what_is_no_day_is_told() -> None:
    with pytest.raises(CommandError, match="'soon' is no day such as"):
        call_command("settle", "--day=soon")


@pytest.mark.django_db(transaction=True)
def test_second_run_says_who_settles_already() -> None:
    outputs: list[str] = []
    with lock("settlement") as held:
        elsewhere(lambda: outputs.append(settle()))

    assert outputs == [f"It is being settled right now by {held.owner}; nothing to do here.\n"]
    assert not Settlement.objects.exists()
