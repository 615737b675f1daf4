"""The endpoints: orders are placed, paid and moved on once for each `Idempotency-Key`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods, require_POST

from idempotency import cache_lock, idempotent_view
from idempotency.conditional import if_match
from idempotency.pessimistic import lock_row
from idempotency.transitions import TransitionOutcome

from .forms import OrderForm, PaymentForm, QuantityForm, read
from .invoicing import issue
from .ledger import Invoice
from .models import Order
from .problems import answer_refusals


@csrf_exempt
@require_POST
@idempotent_view
def create(request: HttpRequest) -> HttpResponse:
    """Place an order once: all that repeat its key get the first answer."""
    return place_order(request)


@csrf_exempt
@require_POST
@idempotent_view
def pay(request: HttpRequest, order_id: int) -> HttpResponse:
    """Take a payment once: all that repeat its key get the first answer."""
    return pay_order(request, order_id)


@csrf_exempt
@require_POST
@idempotent_view
def ship(request: HttpRequest, order_id: int) -> HttpResponse:
    """Ship an order once it is paid."""
    return move_order(request, order_id, Order.ship)


@csrf_exempt
@require_POST
@idempotent_view
def cancel(request: HttpRequest, order_id: int) -> HttpResponse:
    """Cancel an order that is not shipped yet: its goods and its money go back."""
    return move_order(request, order_id, Order.cancel)


@csrf_exempt
@require_POST
@cache_lock("order:{order_id}:invoice")
def invoice(request: HttpRequest, order_id: int) -> HttpResponse:
    """Give the invoice of a paid order; a second click meanwhile gets 409 at once."""
    return invoice_order(request, order_id)


def order_of(request: HttpRequest, order_id: int) -> Order:
    return Order.objects.get(pk=order_id)


@csrf_exempt
@require_http_methods(["GET", "HEAD", "PATCH"])
@idempotent_view(required=False)
@answer_refusals
@if_match(order_of)
def detail(request: HttpRequest, order: Order, order_id: int) -> HttpResponse:
    """Show an order as it is now; or change its quantity, if it is still as the client saw it."""
    if request.method == "PATCH":
        order.change_quantity(read(QuantityForm, request)["quantity"])
    return JsonResponse(describe(order))


@answer_refusals
def place_order(request: HttpRequest) -> HttpResponse:
    """Place an order, or say why not."""
    order = Order.objects.place(**read(OrderForm, request))
    return JsonResponse(describe(order), status=201, headers={"Location": order.get_absolute_url()})


@answer_refusals
def pay_order(request: HttpRequest, order_id: int) -> HttpResponse:
    """Take a payment for an order, or say why not."""
    amount = read(PaymentForm, request)["amount"]
    with transaction.atomic():
        # Each of several payments finds what the one before it has left to pay.
        order = lock_row(Order, pk=order_id)
        payment = order.pay(amount, by=actor(request)).result
    content = {"id": payment.pk, "amount": amount, "order": describe(order)}
    return JsonResponse(content, status=201)


@answer_refusals
def move_order(
    request: HttpRequest, order_id: int, move: Callable[..., TransitionOutcome]
) -> HttpResponse:
    """Move an order to its next state, or say why not."""
    with transaction.atomic():
        order = lock_row(Order, pk=order_id)
        move(order, by=actor(request))
    return JsonResponse(describe(order))


@answer_refusals
def invoice_order(request: HttpRequest, order_id: int) -> HttpResponse:
    """Give the invoice of an order, made now if there was none, or say why not."""
    found, created = issue(order_id)
    return JsonResponse(describe_invoice(found), status=201 if created else 200)


def actor(request: HttpRequest) -> Any:
    """Give who is named in the log of transitions."""
    return request.user if request.user.is_authenticated else "a client"


def describe(order: Order) -> dict[str, Any]:
    """Give what a client may know about *order*, JSON-serialisable."""
    return {
        "id": order.pk,
        "product": order.product_id,
        "quantity": order.quantity,
        "status": order.status,
        "total": order.total,
        "paid": order.paid,
        "client_reference": order.client_reference,
        "created_at": order.created_at.isoformat(),
    }


def describe_invoice(invoice: Invoice) -> dict[str, Any]:
    """Give what a client may know about *invoice*, JSON-serialisable."""
    return {
        "number": str(invoice),
        "order": invoice.order_id,
        "total": invoice.total,
        "created_at": invoice.created_at.isoformat(),
    }
