"""The measured view, bare and protected by us."""

import json

from django.http import HttpRequest, HttpResponse, JsonResponse

from idempotency import idempotent_view

from .models import Order


def bare(request: HttpRequest) -> HttpResponse:
    """Place one order: one INSERT in autocommit."""
    wanted = json.loads(request.body)
    order = Order.objects.create(product=wanted["product"], quantity=wanted["quantity"])
    return JsonResponse({"order": order.pk}, status=201)


ours = idempotent_view(bare)

ours_in_redis = idempotent_view(store="redis")(bare)
ours_in_both = idempotent_view(store="both")(bare)
