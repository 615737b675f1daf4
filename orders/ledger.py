"""What is written down of orders: invoices, settlements and money that moved, in cents."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import CheckConstraint, Q, UniqueConstraint

from idempotency.models import FencedModel


class InvoiceSeries(FencedModel):
    """How far the invoices of a year are numbered; written only under the lock of the series."""

    name = models.CharField(max_length=20, unique=True)
    last_number = models.PositiveIntegerField(default=0)

    objects: ClassVar[models.Manager[InvoiceSeries]] = models.Manager()

    class Meta:
        verbose_name_plural = "invoice series"

    def __str__(self) -> str:
        return f"{self.name}, up to {self.last_number}"


class Invoice(models.Model):
    series = models.ForeignKey(InvoiceSeries, on_delete=models.PROTECT, related_name="invoices")
    number = models.PositiveIntegerField(help_text="From 1, without a gap.")
    order = models.OneToOneField("orders.Order", on_delete=models.PROTECT, related_name="invoice")
    total = models.PositiveBigIntegerField(help_text="In cents.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-id",)
        constraints = (
            UniqueConstraint(fields=["series", "number"], name="orders_invoice_number_once"),
        )

    def __str__(self) -> str:
        return f"{self.series.name}-{self.number}"


class Settlement(models.Model):
    """What came in and went out until the end of a day, and was in no settlement before."""

    day = models.DateField(unique=True)
    total = models.BigIntegerField(default=0, help_text="In cents: payments less refunds.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-day",)

    def __str__(self) -> str:
        return f"Settlement of {self.day}: {self.total}"


class Movement(models.Model):
    """Money that moved for an order."""

    order = models.ForeignKey("orders.Order", on_delete=models.PROTECT, related_name="%(class)ss")
    settlement = models.ForeignKey(
        Settlement, on_delete=models.PROTECT, related_name="%(class)ss", null=True, editable=False
    )
    amount = models.PositiveBigIntegerField(help_text="In cents.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        abstract = True
        ordering = ("-id",)
        constraints = (
            CheckConstraint(name="orders_%(class)s_amount_positive", condition=Q(amount__gt=0)),
        )

    def __str__(self) -> str:
        return f"{type(self).__name__} {self.pk}: {self.amount} for order {self.order_id}"


class Payment(Movement):
    """Money from the customer."""


class Refund(Movement):
    """Money back to the customer."""
