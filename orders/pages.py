"""The pages that a visitor of the example sees."""

from __future__ import annotations

from dataclasses import dataclass

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from idempotency.keys import uuid7
from idempotency.models import IdempotencyRecord

from .ledger import Payment
from .models import Order, Product


@dataclass(frozen=True, slots=True)
class Counts:
    """How many rows there are of what the example keeps."""

    orders: int
    payments: int
    records: int


def count() -> Counts:
    """Count what the example keeps."""
    return Counts(Order.objects.count(), Payment.objects.count(), IdempotencyRecord.objects.count())


@require_safe
def start(request: HttpRequest) -> HttpResponse:
    """Show what there is to try."""
    product = Product.objects.filter(stock__gt=0).first()
    context = {"counts": count(), "product": product, "key": uuid7()}
    return render(request, "start.html", context)
