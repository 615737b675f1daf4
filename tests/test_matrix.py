"""Each kind of view, under each kind of server, in each thing that can happen: all the same."""

import asyncio
import json
import threading

import pytest
from django.contrib.auth.models import User
from django.db import connection, connections
from django.http import Http404, HttpResponse, JsonResponse
from django.test import AsyncClient, Client
from django.urls import path
from django.utils.decorators import method_decorator
from django.views import View
from ninja import NinjaAPI, Status
from ninja.security import django_auth
from rest_framework.decorators import action
from rest_framework.generics import CreateAPIView
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework.viewsets import ViewSet

from idempotency import idempotent_view
from idempotency.contrib.drf import IdempotentMixin, idempotent_api_view
from idempotency.contrib.ninja import idempotent_operation
from idempotency.models import IdempotencyRecord
from tests.conftest import run_async
from tests.models import Effect

pytestmark = pytest.mark.django_db(transaction=True)

RETURNED = {"make": 201, "return 400": 400, "return 409": 409, "return 503": 503}


def outcome(do, count):
    """Give status and content of what a view is asked to *do*, or raise it."""
    if do == "raise 404":
        raise Http404
    if do == "raise 500":
        raise RuntimeError
    return RETURNED[do], {"did": do, "effects": count}


def work(request):
    do = json.loads(request.body)["do"]
    Effect.objects.create(name=do)
    return outcome(do, Effect.objects.count())


async def awork(request):
    do = json.loads(request.body)["do"]
    await Effect.objects.acreate(name=do)
    return outcome(do, await Effect.objects.acount())


def answered(status, content):
    return JsonResponse(content, status=status, headers={"X-Own": "1"})


def function(request):
    return answered(*work(request))


async def afunction(request):
    return answered(*await awork(request))


class Bare(View):
    def post(self, request):
        return function(request)


class ABare(View):
    async def post(self, request):
        return await afunction(request)


class Direct(View):
    @idempotent_view
    def post(self, request):
        return function(request)


class OfAPIView(IdempotentMixin, APIView):
    def post(self, request):
        status, content = work(request._request)
        return Response(content, status=status, headers={"X-Own": "1"})


def of_api_view(request):
    return OfAPIView().post(request)


class OfGeneric(IdempotentMixin, CreateAPIView):
    def create(self, request, *args, **kwargs):
        return OfAPIView.post(self, request)


class OfSet(IdempotentMixin, ViewSet):
    def create(self, request):
        return OfAPIView.post(self, request)

    @action(detail=False, methods=["post"])
    def extra(self, request):
        return OfAPIView.post(self, request)


def ninja(*, is_async):
    api = NinjaAPI(auth=django_auth, urls_namespace=f"matrix{is_async}")
    responses = dict.fromkeys(RETURNED.values(), dict)

    def told(status, content, response):
        response["X-Own"] = "1"
        return Status(status, content)

    if is_async:

        @api.post("/", response=responses)
        @idempotent_operation
        async def aoperation(request, response: HttpResponse):
            return told(*await awork(request), response)

    else:

        @api.post("/", response=responses)
        @idempotent_operation
        def operation(request, response: HttpResponse):
            return told(*work(request), response)

    return [path("", api.urls)]


def decorated(kind):
    """Give a class of its own whose `dispatch` is protected."""
    return method_decorator(idempotent_view, name="dispatch")(type("Decorated", (kind,), {}))


KINDS = {
    "function": lambda: [path("", idempotent_view(function))],
    "async function": lambda: [path("", idempotent_view(afunction))],
    "as_view": lambda: [path("", idempotent_view(Bare.as_view()))],
    "async as_view": lambda: [path("", idempotent_view(ABare.as_view()))],
    "method_decorator": lambda: [path("", decorated(Bare).as_view())],
    "async method_decorator": lambda: [path("", decorated(ABare).as_view())],
    "method": lambda: [path("", Direct.as_view())],
    "drf APIView": lambda: [path("", OfAPIView.as_view())],
    "drf function": lambda: [path("", idempotent_api_view(["POST"])(of_api_view))],
    "drf generic": lambda: [path("", OfGeneric.as_view())],
    "drf set": lambda: [path("", OfSet.as_view({"post": "create"}))],
    "drf action": lambda: [path("", OfSet.as_view({"post": "extra"}))],
    "ninja": lambda: ninja(is_async=False),
    "async ninja": lambda: ninja(is_async=True),
}


class Caller:
    """Somebody who is logged in, and sends requests through one kind of server."""

    def __init__(self, server, name):
        self.server = server
        client = Client()
        client.force_login(User.objects.get_or_create(username=name)[0])
        self.cookies = client.cookies

    def send(self, do="make", key="a-key", copies=1):
        """Give the answers to *copies* of a request that are sent at once."""
        if self.server == "asgi":
            return run_async(self._asend_all(do, key, copies))
        answers = []

        def send():
            answers.append(self._post(Client, do, key))
            connections.close_all()

        threads = [threading.Thread(target=send) for _ in range(copies)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        return answers

    async def _asend_all(self, do, key, copies):
        sent = (self._post(AsyncClient, do, key) for _ in range(copies))
        return await asyncio.gather(*sent)

    def _post(self, kind, do, key):
        client = kind(raise_request_exception=False)
        client.cookies = self.cookies
        headers = {"Idempotency-Key": key}
        body = json.dumps({"do": do})
        return client.post("/", body, content_type="application/json", headers=headers)


@pytest.fixture(params=KINDS)
def kind(request, settings):
    settings.ROOT_URLCONF = type("Urls", (), {"urlpatterns": KINDS[request.param]()})
    return request.param


@pytest.fixture(params=["wsgi", "asgi"])
def server(request):
    return request.param


@pytest.fixture(params=["", "atomic"])
def atomic(request, kind, monkeypatch):
    if request.param:
        if kind == "async ninja":
            pytest.skip("Django serves no asynchronous view of Ninja with ATOMIC_REQUESTS")
        monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    return bool(request.param)


def is_replay(answer):
    return answer.get("Idempotent-Replayed") == "true"


def told(answer):
    """Give all that a client sees of *answer*, but for the mark of a replay."""
    headers = {k: v for k, v in answer.items() if k not in ("Idempotent-Replayed", "Date")}
    return answer.status_code, answer.content, headers


def test_whatever_happens_takes_effect_once(kind, server, atomic):
    ada, bob = Caller(server, "ada"), Caller(server, "bob")
    is_undone = not kind.startswith("async")  # What a coroutine wrote stays written.
    expected = 0

    for do, status, runs in (
        ("make", 201, 1),
        ("return 400", 400, 1),
        ("return 409", 409, 2),
        ("return 503", 503, 2),
        ("raise 404", 404, 2),
        ("raise 500", 500, 2),
    ):
        first, second = ada.send(do, key=do) + ada.send(do, key=do)
        assert (first.status_code, second.status_code) == (status, status), do
        assert (is_replay(first), is_replay(second)) == (False, runs == 1), do
        if runs == 1:
            assert told(first) == told(second)
            assert (first["X-Own"], first.json()["did"]) == ("1", do)
        fails = status >= 500 or do.startswith("raise")
        assert Effect.objects.filter(name=do).count() == (0 if fails and is_undone else runs), do
        expected += 1 if runs == 1 else 0

    (reused,) = ada.send("return 400", key="make")
    assert (reused.status_code, reused.json()["type"][-10:]) == (422, "key-reused")
    (of_bob,) = bob.send("make", key="make")
    assert (of_bob.status_code, is_replay(of_bob)) == (201, False)
    assert Effect.objects.filter(name="make").count() == 2
    assert IdempotencyRecord.objects.filter(state="completed").count() == expected + 1


def test_six_at_once_take_effect_once(kind, server, atomic):
    ada = Caller(server, "ada")
    answers = ada.send(copies=6)

    assert len(answers) == 6
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert [is_replay(one) for one in answers if one.status_code == 201].count(False) == 1
    assert Effect.objects.count() == 1
    (again,) = ada.send()
    (first,) = [one for one in answers if one.status_code == 201 and not is_replay(one)]
    assert is_replay(again)
    assert told(again) == told(first)
