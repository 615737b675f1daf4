"""Every place in which a view can be protected, and those in which it cannot."""

import asyncio
import functools
import inspect
from operator import methodcaller
from unittest import mock

import pytest
from asgiref.sync import iscoroutinefunction, sync_to_async
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, transaction
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.template import engines
from django.template.response import SimpleTemplateResponse
from django.test import AsyncClient, TestCase, override_settings
from django.urls import path
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.debug import sensitive_post_parameters

from idempotency import KeyInProgress, idempotent_view, run_once
from idempotency.middleware import IdempotencyMiddleware
from idempotency.models import IdempotencyRecord
from tests.conftest import KEY, run_async
from tests.models import Effect

pytestmark = pytest.mark.django_db
committing = pytest.mark.django_db(transaction=True)


def effect(request, *args, **kwargs):
    return JsonResponse({"effect": Effect.objects.create(name="e").pk}, status=201)


async def aeffect(request, *args, **kwargs):
    made = await Effect.objects.acreate(name="e")
    return JsonResponse({"effect": made.pk}, status=201)


class Plain(View):
    def post(self, request, *args, **kwargs):
        return effect(request)


class Async(View):
    async def post(self, request, *args, **kwargs):
        return await aeffect(request)


class OnMethod(Plain):
    @idempotent_view
    def post(self, request, *args, **kwargs):
        return effect(request)


class OnAsyncMethod(Async):
    @idempotent_view
    async def post(self, request, *args, **kwargs):
        return await aeffect(request)


@method_decorator(idempotent_view, name="dispatch")
class OnDispatch(Plain):
    pass


@method_decorator(idempotent_view(), name="post")
class OnNamedMethod(Plain):
    pass


@method_decorator(idempotent_view, name="post")
class OnNamedAsyncMethod(Async):
    pass


class Callable:
    def __call__(self, request, *args, **kwargs):
        return effect(request)


PLACES = {
    "function": idempotent_view(effect),
    "function with options": idempotent_view(wait=1)(effect),
    "partial": idempotent_view(functools.partial(effect)),
    "callable object": idempotent_view(Callable()),
    "method": OnMethod.as_view(),
    "dispatch": OnDispatch.as_view(),
    "named method": OnNamedMethod.as_view(),
    "as_view": idempotent_view(Plain.as_view()),
    "twice": idempotent_view(idempotent_view(effect)),
    "class and method": idempotent_view(OnMethod.as_view()),
    "under csrf_exempt": csrf_exempt(idempotent_view(effect)),
    "over csrf_exempt": idempotent_view(csrf_exempt(effect)),
    "under atomic": transaction.atomic(idempotent_view(effect)),
    "over atomic": idempotent_view(transaction.atomic(effect)),
    "over non_atomic_requests": idempotent_view(transaction.non_atomic_requests(effect)),
    "under non_atomic_requests": transaction.non_atomic_requests(idempotent_view(effect)),
    "under sensitive_post_parameters": sensitive_post_parameters()(idempotent_view(effect)),
    "over sensitive_post_parameters": idempotent_view(sensitive_post_parameters()(effect)),
}


@method_decorator(idempotent_view, name="dispatch")
class OnAsyncDispatch(Async):
    pass


@method_decorator([idempotent_view, csrf_exempt], name="dispatch")
class OnAsyncDispatchBesideOthers(Async):
    pass


class OnOwnAsyncDispatch(Async):
    @idempotent_view
    def dispatch(self, request, *args, **kwargs):
        return super().dispatch(request, *args, **kwargs)


ASYNC_PLACES = {
    "dispatch": OnAsyncDispatch.as_view(),
    "dispatch beside others": OnAsyncDispatchBesideOthers.as_view(),
    "own dispatch": OnOwnAsyncDispatch.as_view(),
    "function": idempotent_view(aeffect),
    "method": OnAsyncMethod.as_view(),
    "named method": OnNamedAsyncMethod.as_view(),
    "as_view": idempotent_view(Async.as_view()),
    "under csrf_exempt": csrf_exempt(idempotent_view(aeffect)),
    "over csrf_exempt": idempotent_view(csrf_exempt(aeffect)),
    "over non_atomic_requests": idempotent_view(transaction.non_atomic_requests(aeffect)),
}


def expect_one_effect(send):
    first, second, other = send(), send(), send(body=b"{}")

    assert (first.status_code, second.status_code, other.status_code) == (201, 201, 422)
    assert second.content == first.content
    assert (first.get("Idempotent-Replayed"), second["Idempotent-Replayed"]) == (None, "true")
    assert Effect.objects.count() == 1


@committing
@pytest.mark.parametrize("requests", ["plain", "atomic"])
@pytest.mark.parametrize("place", PLACES)
def test_view_takes_effect_once_wherever_it_is_protected(request, served, place, requests):
    if requests == "atomic":
        request.getfixturevalue("atomic_requests")

    expect_one_effect(served(PLACES[place]))


@committing
@pytest.mark.parametrize("requests", ["plain", "atomic"])
@pytest.mark.parametrize("place", ASYNC_PLACES)
def test_async_view_takes_effect_once_under_wsgi(request, served, place, requests):
    if requests == "atomic":
        request.getfixturevalue("atomic_requests")
        if "method" in place:
            pytest.skip("Django itself refuses: the mark is on the method, not on the view")

    expect_one_effect(served(ASYNC_PLACES[place]))


@committing
@pytest.mark.parametrize("place", [*ASYNC_PLACES, *(f"sync {name}" for name in PLACES)])
def test_view_takes_effect_once_under_asgi(served, place):
    view = PLACES[place.removeprefix("sync ")] if place.startswith("sync ") else ASYNC_PLACES[place]
    served(view)
    client = AsyncClient(raise_request_exception=False)

    def send(body=b'{"a": 1}'):
        response = client.generic(
            "POST",
            "/served/",
            body,
            content_type="application/json",
            headers={"Idempotency-Key": KEY},
        )
        return run_async(response)

    expect_one_effect(send)


@pytest.mark.parametrize("views", [PLACES, ASYNC_PLACES])
def test_attributes_and_kind_of_the_view_survive(views):
    assert views["over csrf_exempt"].csrf_exempt
    assert views["under csrf_exempt"].csrf_exempt
    assert iscoroutinefunction(views["function"]) is (views is ASYNC_PLACES)
    assert iscoroutinefunction(views["as_view"]) is (views is ASYNC_PLACES)
    assert views["function"].__name__ in ("effect", "aeffect")
    assert inspect.unwrap(views["function"]) in (effect, aeffect)


def test_view_without_protection_keeps_its_own_attributes():
    @transaction.non_atomic_requests
    def view(request):
        return effect(request)

    idempotent_view(view)

    assert view._non_atomic_requests == {"default"}


def test_reject_of_an_outer_decorator_comes_first(served):
    send = served(login_required(idempotent_view(effect)))
    send()
    user = User.objects.create_user("ann")
    send.client.force_login(user)
    send()
    send.client.logout()

    response = send()

    assert response.status_code == 302
    assert Effect.objects.count() == 1


@pytest.mark.parametrize("wrong", [View, OnMethod, dict])
def test_class_is_refused_with_the_place_where_to_decorate(wrong):
    with pytest.raises(TypeError, match="cannot protect the class"):
        idempotent_view(wrong)


@pytest.mark.parametrize("wrong", [None, staticmethod(effect), classmethod(effect), 7])
def test_what_is_no_view_is_refused(wrong):
    with pytest.raises(TypeError, match="protects functions"):
        idempotent_view()(wrong)


def test_generator_is_refused():
    def view(request):
        yield b""

    async def aview(request):
        yield b""

    for wrong in (view, aview):
        with pytest.raises(TypeError, match="generator"):
            idempotent_view(wrong)


def test_view_of_rest_framework_is_refused():
    def view(request):
        return effect(request)

    view.cls = type("OrderView", (View,), {"__module__": "rest_framework.views"})

    with pytest.raises(TypeError, match="authenticates inside"):
        idempotent_view(view)


def test_call_without_a_request_runs_nothing(rf):
    class Wrapped:
        pass

    with pytest.raises(TypeError, match=r"HttpRequest.*Wrapped"):
        idempotent_view(effect)(Wrapped())
    with pytest.raises(TypeError, match="with nothing"):
        idempotent_view(effect)()
    assert not Effect.objects.exists()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"mode": "both"}, ValueError),
        ({"wait": -1}, ValueError),
        ({"on_crash": "ignore"}, ValueError),
        ({"ignore": "/sent_at"}, TypeError),
        ({"ignore": ["sent_at"]}, ValueError),
        ({"scope": "user"}, TypeError),
        ({"final": 200}, TypeError),
        ({"scope": aeffect}, TypeError),
        ({"fingerprint": aeffect}, TypeError),
        ({"no_such": 1}, TypeError),
    ],
)
def test_option_that_makes_no_sense_is_refused_when_decorating(options, error):
    with pytest.raises(error):
        idempotent_view(**options)


def test_async_view_in_atomic_mode_is_refused_when_decorating():
    with pytest.raises(TypeError, match="synchronous"):
        idempotent_view(mode="atomic")(aeffect)


@committing
class TestAsyncViews:
    def asend(self, client, key=KEY, body=b"{}"):
        return client.generic(
            "POST",
            "/served/",
            body,
            content_type="application/json",
            headers={"Idempotency-Key": key},
        )

    def test_failure_releases_the_key(self, served):
        answers = iter([ZeroDivisionError, 201])

        @idempotent_view
        async def view(request):
            answer = next(answers)
            if answer == 201:
                return await aeffect(request)
            raise answer

        served(view)
        client = AsyncClient(raise_request_exception=False)

        assert run_async(self.asend(client)).status_code == 500
        assert run_async(self.asend(client)).status_code == 201

    def test_failure_is_replayed_if_it_is_to_be_stored(self, served):
        @idempotent_view(on_error="store")
        async def view(request):
            raise ZeroDivisionError

        served(view)
        client = AsyncClient(raise_request_exception=False)
        first, second = (run_async(self.asend(client)) for _ in range(2))

        assert (first.status_code, second.status_code) == (500, 500)
        assert second["Idempotent-Replayed"] == "true"
        assert second.content == first.content

    @pytest.mark.parametrize("kind", ["async", "sync"])
    def test_stream_is_kept_if_it_is_to_be_read(self, served, settings, kind):
        async def chunks():
            yield b"a"
            yield b"b"

        @idempotent_view(buffer=True)
        async def view(request):
            return StreamingHttpResponse(chunks() if kind == "async" else [b"a", b"b"])

        async def body(response):
            return b"".join([chunk async for chunk in response])

        served(view)
        client = AsyncClient()

        async def twice(key):
            first = await self.asend(client, key)
            return await body(first), await self.asend(client, key)

        first, second = run_async(twice(KEY))
        assert (first, second.content) == (b"ab", b"ab")

        settings.IDEMPOTENCY_MAX_BODY = 1
        if kind == "sync":
            return
        first, second = run_async(twice("another-key-to-be-sent"))
        assert (first, second.status_code) == (b"ab", 409)

    @pytest.mark.parametrize("kind", ["template", "template that awaits", "stream", "final"])
    def test_answer_may_ask_the_database_in_its_turn(self, served, kind):
        class Shown(SimpleTemplateResponse):
            def resolve_template(self, template):
                return engines["django"].from_string(
                    "{% for e in effects %}{{ e.name }}{% endfor %}"
                )

        class ShownLater(Shown):
            async def render(self):
                return await sync_to_async(super().render)()

        def is_final(response):
            return kind != "final" or Effect.objects.filter(name="e").exists()

        @idempotent_view(buffer=True, final=is_final)
        async def view(request):
            await aeffect(request)
            rows = Effect.objects.all()
            if "template" in kind:
                return (ShownLater if "awaits" in kind else Shown)("", {"effects": rows})
            names = map(str, map(methodcaller("get"), [rows]))
            return StreamingHttpResponse(names) if kind == "stream" else HttpResponse("e")

        async def body(response):
            if not response.streaming:
                return response.content
            return b"".join([chunk async for chunk in response])

        async def twice():
            return [await body(await self.asend(AsyncClient())) for _ in range(2)]

        served(view)

        assert run_async(twice()) == [b"e", b"e"]
        assert Effect.objects.count() == 1

    def test_what_cannot_be_judged_frees_the_key(self, served):
        def is_final(response):
            raise ZeroDivisionError

        served(idempotent_view(final=is_final)(aeffect))
        client = AsyncClient(raise_request_exception=False)

        assert [run_async(self.asend(client)).status_code for _ in range(2)] == [500, 500]
        assert IdempotencyRecord.objects.get().state == "released"

    def test_twins_exclude_each_other(self, served):
        calls = []

        @idempotent_view
        async def view(request):
            calls.append(1)
            await go_on.wait()
            return await aeffect(request)

        served(view)

        async def race():
            nonlocal go_on
            go_on = asyncio.Event()
            client = AsyncClient()
            first = asyncio.create_task(self.asend(client))
            while not calls:
                await asyncio.sleep(0.001)
            twins = [await self.asend(client) for _ in range(3)]
            other = await self.asend(client, body=b"[]")
            go_on.set()
            return await first, twins, other

        go_on = None
        first, twins, other = run_async(race())

        assert first.status_code == 201
        assert [twin.status_code for twin in twins] == [409] * 3
        assert other.status_code == 422
        assert len(calls) == 1

    def test_client_that_leaves_does_not_stop_the_view_half_way(self, served):
        steps = []

        @idempotent_view
        async def view(request):
            response = await aeffect(request)
            steps.append("first")
            await go_on.wait()
            steps.append("second")
            return response

        served(view)

        async def leave():
            nonlocal go_on
            go_on = asyncio.Event()
            client = AsyncClient()
            task = asyncio.create_task(self.asend(client))
            while not steps:
                await asyncio.sleep(0.001)
            task.cancel()
            during = await self.asend(client)
            go_on.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            return during, await self.asend(client)

        go_on = None
        during, after = run_async(leave())

        assert (during.status_code, after.status_code) == (409, 201)
        assert after["Idempotent-Replayed"] == "true"
        assert steps == ["first", "second"]
        assert Effect.objects.count() == 1

    def test_request_without_a_key_is_left_alone(self, served):
        served(idempotent_view(required=False)(aeffect))

        statuses = [run_async(AsyncClient().post("/served/")).status_code for _ in range(2)]

        assert statuses == [201, 201]
        assert not IdempotencyRecord.objects.exists()

    def test_user_is_found_without_blocking_the_loop(self, served):
        user = User.objects.create_user("ann")
        served(idempotent_view(aeffect))
        client = AsyncClient()
        client.force_login(user)

        assert run_async(self.asend(client)).status_code == 201
        assert IdempotencyRecord.objects.get().scope == f"user:{user.pk}"


def test_error_of_ours_from_a_view_without_protection_passes_through(served):
    @idempotent_view(required=False)
    def view(request):
        raise KeyInProgress(retry_after=5)

    response = served(view)(None)

    assert (response.status_code, response["Retry-After"]) == (409, "5")


def test_method_with_a_lease_is_refused_under_atomic_requests(atomic_requests):
    lease = idempotent_view(mode="lease")

    with pytest.raises(TypeError, match="Decorate dispatch"):

        class Wrong(View):
            @lease
            def post(self, request):
                return effect(request)

    class Right(View):
        @lease
        def dispatch(self, request):
            return effect(request)


class TestInsideOfATestCase(TestCase):
    """As projects test their views: in a transaction that no view is to leave."""

    def setUp(self):
        settings = override_settings(ROOT_URLCONF=(path("served/", idempotent_view(aeffect)),))
        settings.enable()
        self.addCleanup(settings.disable)
        closing = mock.patch.object(connection, "close_at", 0)  # As with CONN_MAX_AGE = 0.
        closing.start()
        self.addCleanup(closing.stop)

    def expect_replay(self, first, second):
        assert (first.status_code, second.content) == (201, first.content)
        assert second["Idempotent-Replayed"] == "true"

    def test_async_view_keeps_the_transaction_open(self):
        send = functools.partial(self.client.post, "/served/", headers={"Idempotency-Key": KEY})
        self.expect_replay(send(), send())
        assert Effect.objects.count() == 1

    async def test_async_client_keeps_the_transaction_open(self):
        headers = {"Idempotency-Key": KEY}
        send = functools.partial(self.async_client.post, "/served/", headers=headers)
        self.expect_replay(await send(), await send())
        assert await Effect.objects.acount() == 1


@pytest.mark.parametrize("take", [idempotent_view, lambda **options: run_once(None, **options)])
def test_option_that_does_not_exist_is_told_with_those_that_do(take):
    who = {} if take is idempotent_view else {"scope": "s", "operation": "o", "key": "k"}

    with pytest.raises(TypeError, match=r"no option 'wiat'; there are .*wait"):
        take(wiat=2, **who)


def test_middleware_without_the_app_is_told(settings):
    settings.INSTALLED_APPS = [name for name in settings.INSTALLED_APPS if name != "idempotency"]

    with pytest.raises(ImproperlyConfigured, match="INSTALLED_APPS"):
        IdempotencyMiddleware(aeffect)
