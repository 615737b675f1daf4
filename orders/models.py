"""What is sold and what was ordered; money is in cents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from django.db import models, transaction
from django.db.models import CheckConstraint, F, Q
from django.urls import reverse
from django_fsm import GET_STATE, FSMField

from idempotency.models import VersionedManager, VersionedModel
from idempotency.pessimistic import lock_rows
from idempotency.transitions import TransitionsMixin, transition

from .ledger import Payment


class OutOfStock(Exception):
    """There are fewer of this product left than were ordered."""


class NotDue(Exception):
    """The payment is more than what is still due for this order."""


class NotPaid(Exception):
    """There is no invoice for an order that is not paid, or was cancelled."""


class Unchangeable(Exception):
    """The order is no longer one that can be changed like this."""


class ProductManager(models.Manager["Product"]):
    def reserve(self, quantities: Mapping[int, int]) -> None:
        """
        Take a number of each product, by its key, off the shelves; a negative one puts it back.

        Raises: `OutOfStock`, which leaves all shelves as they were.
        """
        with transaction.atomic():
            # Locked in one order, whatever the order they are named in: nobody deadlocks.
            for product in lock_rows(self.filter(pk__in=quantities)):
                product.stock -= quantities[product.pk]
                if product.stock < 0:
                    raise OutOfStock(
                        f"There are not {quantities[product.pk]} of “{product.name}” left."
                    )
                product.save(update_fields=["stock"])


class Product(models.Model):
    name = models.CharField(max_length=100, unique=True)
    price = models.PositiveIntegerField(help_text="In cents.")
    stock = models.PositiveIntegerField(default=0)

    objects = ProductManager()

    class Meta:
        ordering = ("name",)
        constraints = (
            CheckConstraint(name="orders_product_price_positive", condition=Q(price__gt=0)),
        )

    def __str__(self) -> str:
        return self.name


class OrderManager(VersionedManager["Order"]):
    def place(self, product: Product, quantity: int, client_reference: str | None = None) -> Order:
        """
        Take *quantity* of *product* off the shelf for a new order.

        Raises: `OutOfStock`; then there is no order.
        """
        with transaction.atomic():
            Product.objects.reserve({product.pk: quantity})
            return self.create(
                product=product,
                quantity=quantity,
                total=product.price * quantity,
                client_reference=client_reference,
            )


def state_after_payment(order: Order, *args: object, **kwargs: object) -> str:
    return Order.Status.PLACED if order.due else Order.Status.PAID


class Order(TransitionsMixin, VersionedModel):
    class Status(models.TextChoices):
        PLACED = "placed", "placed"  # Its goods are off the shelf; part of it may be paid.
        PAID = "paid", "paid"  # All of it is paid.
        SHIPPED = "shipped", "shipped"  # Its goods have left.
        CANCELLED = "cancelled", "cancelled"  # Its goods are back, and so is its money.

    product = models.ForeignKey(Product, on_delete=models.PROTECT, related_name="orders")
    quantity = models.PositiveIntegerField()
    status = FSMField(max_length=16, choices=Status, default=Status.PLACED, protected=True)
    total = models.PositiveBigIntegerField(help_text="In cents.")
    paid = models.PositiveBigIntegerField(default=0, help_text="In cents, less what went back.")
    client_reference = models.CharField(  # noqa: DJ001 - None: the client gave none.
        max_length=64, null=True, blank=True, help_text="The client's own name for this order."
    )
    created_at = models.DateTimeField(auto_now_add=True)

    objects: ClassVar[OrderManager] = OrderManager()

    class Meta(VersionedModel.Meta):
        ordering = ("-id",)
        constraints = (
            CheckConstraint(name="orders_order_quantity_positive", condition=Q(quantity__gt=0)),
            CheckConstraint(name="orders_order_not_overpaid", condition=Q(paid__lte=F("total"))),
        )

    def __str__(self) -> str:
        return f"Order {self.pk}: {self.quantity} x {self.product}"

    def get_absolute_url(self) -> str:
        return reverse("orders:detail", args=[self.pk])

    @property
    def due(self) -> int:
        """What is still to be paid, in cents."""
        return self.total - self.paid

    @transition(
        status,
        source=Status.PLACED,
        target=GET_STATE(state_after_payment, states=[Status.PLACED, Status.PAID]),
        custom={"label": "Take a payment", "form": "orders.forms.PaymentForm"},
    )
    def pay(self, amount: int) -> Payment:
        """
        Take a payment of *amount* cents; the one that leaves nothing due makes the order paid.

        Raises: `NotDue`, which leaves everything as it was.
        """
        if amount > self.due:
            raise NotDue(f"Order {self.pk} has less than {amount} still due.")
        self.paid += amount
        return self.payments.create(amount=amount)

    @transition(
        status,
        source=Status.PAID,
        target=Status.SHIPPED,
        permission="orders.change_order",
        custom={"label": "Ship"},
    )
    def ship(self) -> None:
        """Hand the goods over; from now on there is no way back."""

    @transition(
        status,
        source=[Status.PLACED, Status.PAID],
        target=Status.CANCELLED,
        permission="orders.change_order",
        custom={"label": "Cancel the order"},
    )
    def cancel(self) -> None:
        """Put the goods back on the shelf, and give back what was paid."""
        Product.objects.reserve({self.product_id: -self.quantity})
        if self.paid:
            self.refunds.create(amount=self.paid)
            self.paid = 0

    def change_quantity(self, quantity: int) -> None:
        """
        Order more or less of it, as long as nothing is paid.

        Raises: `OutOfStock` or `Unchangeable`; `StaleObject` if somebody was faster.
        """
        if self.status != self.Status.PLACED or self.paid:
            raise Unchangeable(f"Order {self.pk} is {self.status}, with {self.paid} paid.")
        more = quantity - self.quantity
        with transaction.atomic():
            self.quantity, self.total = quantity, self.product.price * quantity
            # The order before its product, as in a transition: so nobody deadlocks.
            self.save(update_fields=["quantity", "total"])
            Product.objects.reserve({self.product_id: more})
