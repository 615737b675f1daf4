"""Addresses of the example's endpoints and pages."""

from django.urls import include, path

from . import pages, unprotected, views

app_name = "orders"

twins = [
    path("", unprotected.create, name="create"),
    path("<int:order_id>/pay/", unprotected.pay, name="pay"),
]

urlpatterns = [
    path("", pages.start, name="start"),
    path("orders/", views.create, name="create"),
    path("orders/<int:order_id>/", views.detail, name="detail"),
    path("orders/<int:order_id>/pay/", views.pay, name="pay"),
    path("orders/<int:order_id>/invoice/", views.invoice, name="invoice"),
    path("orders/<int:order_id>/ship/", views.ship, name="ship"),
    path("orders/<int:order_id>/cancel/", views.cancel, name="cancel"),
    path("unprotected/orders/", include((twins, "unprotected"))),
]
