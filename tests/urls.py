"""Addresses of the views that the tests protect."""

from django.contrib import admin
from django.urls import include, path
from django.views.decorators.csrf import csrf_exempt

from . import views
from .sites import site

urlpatterns = [
    path("place/", views.place, name="place"),
    path("linger/", csrf_exempt(views.linger), name="linger"),
    path("once/", csrf_exempt(views.place), name="once"),
    path("bare/", views.bare, name="bare"),
    path("admin/", admin.site.urls),
    path("desk/", site.urls),
    path("", include("orders.urls")),
]
