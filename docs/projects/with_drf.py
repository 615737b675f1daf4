"""A shop with Django REST framework, where each order is placed once."""

import sys

import django
from django.conf import settings
from shop.settings import APPS, SETTINGS

settings.configure(
    **SETTINGS,
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=[*APPS, "rest_framework"],
    REST_FRAMEWORK={
        "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework.authentication.BasicAuthentication"],
        "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
        "EXCEPTION_HANDLER": "idempotency.contrib.drf.exception_handler",
    },
)
django.setup()

from django.core.management import execute_from_command_line
from django.core.wsgi import get_wsgi_application
from rest_framework import mixins, serializers
from rest_framework.routers import SimpleRouter
from rest_framework.viewsets import GenericViewSet
from shop.models import Order

from idempotency.contrib.drf import IdempotentMixin


class OrderSerializer(serializers.ModelSerializer):
    class Meta:
        model = Order
        fields = ("id", "drink")


class Orders(IdempotentMixin, mixins.CreateModelMixin, mixins.ListModelMixin, GenericViewSet):
    serializer_class = OrderSerializer

    def get_queryset(self):
        return Order.objects.filter(customer=self.request.user).order_by("pk")

    def perform_create(self, serializer):
        serializer.save(customer=self.request.user)


router = SimpleRouter()
router.register("orders", Orders, basename="order")
urlpatterns = router.urls
application = get_wsgi_application()

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
