"""The endpoints: orders are placed and paid once for each `Idempotency-Key`."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST, require_safe

from idempotency import idempotent_view

from .forms import OrderForm, PaymentForm, read
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


@require_safe
@answer_refusals
def detail(request: HttpRequest, order_id: int) -> HttpResponse:
    """Show an order as it is now; reading needs no key."""
    return JsonResponse(describe(Order.objects.get(pk=order_id)))


@answer_refusals
def place_order(request: HttpRequest) -> HttpResponse:
    """Place an order, or say why not."""
    order = Order.objects.place(**read(OrderForm, request))
    return JsonResponse(describe(order), status=201, headers={"Location": order.get_absolute_url()})


@answer_refusals
def pay_order(request: HttpRequest, order_id: int) -> HttpResponse:
    """Take a payment for an order, or say why not."""
    amount = read(PaymentForm, request)["amount"]
    payment = Order.objects.get(pk=order_id).pay(amount)
    content = {"id": payment.pk, "amount": amount, "order": describe(payment.order)}
    return JsonResponse(content, status=201)


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
