"""A shop with asynchronous views, where each order is placed once."""

import json
import sys

import django
from django.conf import settings
from shop.settings import APPS, SETTINGS

settings.configure(
    **SETTINGS,
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=APPS,
)
django.setup()

from django.core.asgi import get_asgi_application
from django.core.management import execute_from_command_line
from django.http import HttpResponseNotAllowed, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from shop.models import Order

from idempotency import idempotent_view
from idempotency.statistics.asgi import flush_at_shutdown


@csrf_exempt
@idempotent_view
async def orders(request):
    if request.method == "GET":
        listed = Order.objects.order_by("pk").values("id", "drink")
        return JsonResponse([order async for order in listed], safe=False)
    if request.method != "POST":
        return HttpResponseNotAllowed(["GET", "POST"])
    order = await Order.objects.acreate(drink=json.loads(request.body)["drink"])
    return JsonResponse({"id": order.pk, "drink": order.drink}, status=201)


urlpatterns = [path("orders/", orders)]
application = flush_at_shutdown(get_asgi_application())

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
