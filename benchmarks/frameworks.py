"""The measured view in Django REST framework and in Django Ninja, bare and protected by us."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from ninja import NinjaAPI, Schema, Status
from rest_framework import serializers
from rest_framework.generics import CreateAPIView

from idempotency.contrib.drf import IdempotentMixin
from idempotency.contrib.ninja import idempotent_operation

from .contenders import Contender
from .models import Order


class OrderSerializer(serializers.ModelSerializer[Order]):
    class Meta:
        model = Order
        fields = ("id", "product", "quantity")


class Bare(CreateAPIView[Order]):
    queryset = Order.objects.all()
    serializer_class = OrderSerializer
    authentication_classes = ()
    permission_classes = ()


class Protected(IdempotentMixin, Bare):
    pass


class Wanted(Schema):
    product: str
    quantity: int


class Placed(Schema):
    id: int


api = NinjaAPI(docs_url=None)


@api.post("/bare", response={201: Placed})
def bare(request: HttpRequest, wanted: Wanted) -> Any:
    return place(wanted)


@api.post("/ours", response={201: Placed})
@idempotent_operation
def ours(request: HttpRequest, wanted: Wanted) -> Any:
    return place(wanted)


def place(wanted: Wanted) -> Any:
    return Status(201, Order.objects.create(**wanted.dict()))


def contenders() -> list[Contender]:
    """Give a bare and a protected view of each framework; the bare one is what ours is held to."""
    drf = Contender("DRF, bare", "drf-bare", Bare.as_view(), replays=False)
    ninja = Contender("Ninja, bare", "ninja-bare", operation_at("bare"), replays=False)
    ours = [
        Contender("DRF, ours", "drf-ours", Protected.as_view(), is_ours=True, base=drf.name),
        Contender("Ninja, ours", "ninja-ours", operation_at("ours"), is_ours=True, base=ninja.name),
    ]
    return [drf, ours[0], ninja, ours[1]]


def operation_at(path: str) -> Any:
    return next(url.callback for url in api.urls[0] if url.resolve(path))
