"""Invoices, numbered without a gap and without a duplicate: one at a time in each series."""

from __future__ import annotations

from django.db import transaction
from django.utils import timezone

from idempotency import lock
from idempotency.locks import current_lock
from idempotency.pessimistic import lock_row

from .ledger import Invoice, InvoiceSeries
from .models import NotPaid, Order

INVOICED = (Order.Status.PAID, Order.Status.SHIPPED)


def issue(order_id: int) -> tuple[Invoice, bool]:
    """
    Give the invoice of an order, and whether this call made it.

    Raises: `NotPaid`; `LockUnavailable` if the series is in use for long.
    """
    found = Invoice.objects.filter(order=order_id).first()
    return (found, False) if found else _issue_in(str(timezone.now().year), order_id)


@lock("invoices:{series}", wait=10)
def _issue_in(series: str, order_id: int) -> tuple[Invoice, bool]:
    # The number and its invoice are one transaction: a failure leaves no gap.
    with transaction.atomic():
        order = lock_row(Order, pk=order_id)
        found = Invoice.objects.filter(order=order).first()
        if found:
            return found, False
        if order.status not in INVOICED:
            raise NotPaid(f"Order {order_id} is {order.status}.")
        counter = _next_number(series)
        return counter.invoices.create(
            number=counter.last_number, order=order, total=order.total
        ), True


def _next_number(name: str) -> InvoiceSeries:
    series, _ = InvoiceSeries.objects.get_or_create(name=name)
    series.last_number += 1
    # Paused for longer than the lease of the lock, this would repeat a number; so it is refused.
    series.save(held=current_lock())
    return series
