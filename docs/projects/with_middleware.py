"""A shop whose middleware lets each order be placed once, whichever view places it."""

import sys

import django
from django.conf import settings
from shop.settings import APPS, SETTINGS

settings.configure(
    **SETTINGS,
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=[*APPS, "django.contrib.sessions"],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "idempotency.middleware.IdempotencyMiddleware",
    ],
)
django.setup()

from django.core.management import execute_from_command_line
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from shop.models import Order

from idempotency import not_idempotent


@csrf_exempt
def orders(request):
    if request.method == "POST":
        order = Order.objects.create(drink=request.POST["drink"])
        return JsonResponse({"id": order.pk, "drink": order.drink}, status=201)
    return JsonResponse([*Order.objects.order_by("pk").values("id", "drink")], safe=False)


@csrf_exempt
@not_idempotent
def ring(request):
    return HttpResponse("Ding.")


urlpatterns = [path("orders/", orders), path("ring/", ring)]
application = get_wsgi_application()

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
