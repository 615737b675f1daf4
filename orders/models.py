"""What is sold, what was ordered and what was paid for it; money is in cents."""

from __future__ import annotations

from django.db import models, transaction
from django.db.models import CheckConstraint, F, Q
from django.urls import reverse


class OutOfStock(Exception):
    """There are fewer of this product left than were ordered."""


class NotDue(Exception):
    """The payment is more than what is still due for this order."""


class Product(models.Model):
    name = models.CharField(max_length=100, unique=True)
    price = models.PositiveIntegerField(help_text="In cents.")
    stock = models.PositiveIntegerField(default=0)

    class Meta:
        ordering = ("name",)
        constraints = (
            CheckConstraint(name="orders_product_price_positive", condition=Q(price__gt=0)),
        )

    def __str__(self) -> str:
        return self.name

    def take(self, quantity: int) -> None:
        """
        Take *quantity* off the shelf.

        Raises: `OutOfStock`, which leaves the shelf as it was.
        """
        # The database decides: between a look at the stock and a write, others take theirs.
        enough = Product.objects.filter(pk=self.pk, stock__gte=quantity)
        if not enough.update(stock=F("stock") - quantity):
            raise OutOfStock(f"There are not {quantity} of “{self.name}” left.")


class OrderManager(models.Manager["Order"]):
    def place(self, product: Product, quantity: int, client_reference: str | None = None) -> Order:
        """
        Take *quantity* of *product* off the shelf for a new order.

        Raises: `OutOfStock`; then there is no order.
        """
        with transaction.atomic():
            product.take(quantity)
            return self.create(
                product=product,
                quantity=quantity,
                total=product.price * quantity,
                client_reference=client_reference,
            )


class Order(models.Model):
    class Status(models.TextChoices):
        PLACED = "placed", "placed"  # Its goods are off the shelf; part of it may be paid.
        PAID = "paid", "paid"  # All of it is paid.

    product = models.ForeignKey(Product, on_delete=models.PROTECT, related_name="orders")
    quantity = models.PositiveIntegerField()
    status = models.CharField(max_length=16, choices=Status, default=Status.PLACED)
    total = models.PositiveBigIntegerField(help_text="In cents.")
    paid = models.PositiveBigIntegerField(default=0, help_text="In cents.")
    client_reference = models.CharField(  # noqa: DJ001 - None: the client gave none.
        max_length=64, null=True, blank=True, help_text="The client's own name for this order."
    )
    created_at = models.DateTimeField(auto_now_add=True)

    objects = OrderManager()

    class Meta:
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

    def pay(self, amount: int) -> Payment:
        """
        Take a payment of *amount* cents; the one that leaves nothing due makes the order paid.

        Raises: `NotDue`, which leaves everything as it was.
        """
        with transaction.atomic():
            unpaid = Order.objects.filter(pk=self.pk, status=Order.Status.PLACED)
            if not unpaid.filter(total__gte=F("paid") + amount).update(paid=F("paid") + amount):
                raise NotDue(f"Order {self.pk} has less than {amount} still due.")
            unpaid.filter(paid=F("total")).update(status=Order.Status.PAID)
            self.refresh_from_db()
            return self.payments.create(amount=amount)


class Payment(models.Model):
    order = models.ForeignKey(Order, on_delete=models.PROTECT, related_name="payments")
    amount = models.PositiveBigIntegerField(help_text="In cents.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-id",)
        constraints = (
            CheckConstraint(name="orders_payment_amount_positive", condition=Q(amount__gt=0)),
        )

    def __str__(self) -> str:
        return f"Payment {self.pk}: {self.amount} for order {self.order_id}"
