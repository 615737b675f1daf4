"""Addresses of the views that the tests protect."""

from django.urls import include, path

from . import views

urlpatterns = [
    path("place/", views.place, name="place"),
    path("bare/", views.bare, name="bare"),
    path("", include("orders.urls")),
]
