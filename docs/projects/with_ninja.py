"""A shop with Django Ninja, where each order is placed once."""

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

from django.contrib.auth import authenticate
from django.core.management import execute_from_command_line
from django.core.wsgi import get_wsgi_application
from django.urls import path
from ninja import NinjaAPI, Schema, Status
from ninja.security import HttpBasicAuth
from shop.models import Order

from idempotency.contrib.ninja import add_exception_handlers, idempotent_operation


class Basic(HttpBasicAuth):
    def authenticate(self, request, username, password):
        return authenticate(request, username=username, password=password)


class Wanted(Schema):
    drink: str


class Placed(Schema):
    id: int
    drink: str


api = NinjaAPI(auth=Basic())
add_exception_handlers(api)


@api.get("/orders/", response=list[Placed])
def list_orders(request):
    return Order.objects.filter(customer=request.auth).order_by("pk")


@api.post("/orders/", response={201: Placed})
@idempotent_operation
def place_order(request, wanted: Wanted):
    return Status(201, Order.objects.create(customer=request.auth, drink=wanted.drink))


urlpatterns = [path("", api.urls)]
application = get_wsgi_application()

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
