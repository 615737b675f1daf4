"""What stands around protected views: other origins, sessions, messages, routers of databases."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

import pytest
from asgiref.sync import sync_to_async
from django.contrib import messages
from django.contrib.auth.models import User
from django.contrib.messages import get_messages
from django.db import connection, connections
from django.http import HttpResponse, JsonResponse
from django.test import AsyncClient, Client
from django.test.client import BOUNDARY, MULTIPART_CONTENT, encode_multipart
from django.test.utils import CaptureQueriesContext
from django.urls import path
from django.utils import translation
from django.utils.decorators import async_only_middleware, method_decorator
from django.utils.translation import gettext_lazy
from django.views import View
from ninja import NinjaAPI

from idempotency import current_claim, idempotent_view, run_once, view_checks
from idempotency.contrib.ninja import idempotent_operation
from idempotency.models import IdempotencyRecord
from tests.conftest import KEY, run_async
from tests.models import Effect

pytestmark = pytest.mark.django_db

ORIGIN = "https://shop.example"
PREFLIGHT = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}


@idempotent_view
def effect(request):
    return JsonResponse({"effect": Effect.objects.create(name="e").pk}, status=201)


@pytest.fixture
def cors(settings):
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "corsheaders"]
    settings.MIDDLEWARE = [view_checks.CORS_MIDDLEWARE, *settings.MIDDLEWARE]
    settings.CORS_ALLOWED_ORIGINS = [ORIGIN]


@pytest.fixture
def cors_is_told_of_us(cors, settings):
    settings.CORS_ALLOW_HEADERS = ["content-type", "idempotency-key"]
    settings.CORS_EXPOSE_HEADERS = ["Idempotent-Replayed", "Retry-After"]


def test_script_of_another_origin_may_send_a_key_and_see_a_replay(served, cors_is_told_of_us):
    send = served(effect)

    preflight = send(method="options", key=None, headers=PREFLIGHT)
    answers = [send(headers={"Origin": ORIGIN}) for _ in range(2)]

    assert "idempotency-key" in preflight["Access-Control-Allow-Headers"]
    for answer in answers:
        assert answer["Access-Control-Allow-Origin"] == ORIGIN
        assert "Idempotent-Replayed" in answer["Access-Control-Expose-Headers"]
    assert (answers[1]["Idempotent-Replayed"], IdempotencyRecord.objects.count()) == ("true", 1)


def test_preflight_with_a_key_claims_none(served, cors_is_told_of_us):
    send = served(effect)

    assert send(method="options", headers=PREFLIGHT).status_code == 200
    assert not IdempotencyRecord.objects.exists()


class ByMethod(View):
    @idempotent_view
    def post(self, request):
        """Never run."""


@method_decorator(idempotent_view, name="dispatch")
class ByClass(View):
    pass


def operations():
    api = NinjaAPI(urls_namespace="cors")

    @api.post("/orders")
    @idempotent_operation
    def create(request):
        """Never run."""

    return api.urls


@pytest.mark.parametrize("view", [effect, ByMethod.as_view(), ByClass.as_view(), operations()])
def test_headers_that_other_origins_lack_are_told(served, cors, view):
    served(lambda request: HttpResponse(), path("more/", view))

    told = view_checks.check_headers_of_other_origins()

    assert [one.id for one in told] == ["idempotency.W039"] * 2
    assert [one.msg.partition(":")[0] for one in told] == [
        "CORS_ALLOW_HEADERS lacks Idempotency-Key",
        "CORS_EXPOSE_HEADERS lacks Idempotent-Replayed, Retry-After",
    ]


@pytest.mark.parametrize(
    "listed",
    [["*"], ["idempotency-key", "idempotent-replayed", "retry-after"]],
)
def test_headers_that_other_origins_have_are_not_told(served, cors, settings, listed):
    settings.CORS_ALLOW_HEADERS = settings.CORS_EXPOSE_HEADERS = listed
    served(effect)

    assert view_checks.check_headers_of_other_origins() == []


def test_project_that_protects_no_view_is_left_alone(served, cors, settings):
    served(lambda request: HttpResponse())
    assert view_checks.check_headers_of_other_origins() == []

    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "idempotency.middleware.IdempotencyMiddleware"]
    assert len(view_checks.check_headers_of_other_origins()) == 2


def policy(get_response):
    """As ContentSecurityPolicyMiddleware does, of Django 6 and of django-csp."""

    def apply(request):
        response = get_response(request)
        config = getattr(response, "_csp_config", {"default-src": ["none"]})
        if not getattr(response, "_csp_exempt", False):
            rules = (
                f"{name} {' '.join(sorted(map(str, values)))}" for name, values in config.items()
            )
            response["Content-Security-Policy"] = "; ".join(rules)
        return response

    return apply


@pytest.mark.parametrize("of_middleware", [False, True])
@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"xframe_options_exempt": True},
        {"_csp_exempt": True},
        {"_csp_config": {"script-src": {"self", "cdn.example"}, "img-src": ("*",)}},
        {"_csp_config": {"report-uri": [gettext_lazy("/told/")]}},
        {"xframe_options_exempt": True, "_csp_config": {}, "_csp_update": object()},
    ],
)
def test_replay_has_the_headers_that_the_view_has_asked_middleware_for(
    served, settings, attributes, of_middleware
):
    settings.MIDDLEWARE = [
        f"{__name__}.policy",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
        *settings.MIDDLEWARE,
        *([view_checks.MIDDLEWARE] if of_middleware else []),
    ]

    def view(request):
        response = HttpResponse("done")
        vars(response).update(attributes)
        return response

    send = served(view if of_middleware else idempotent_view(view))
    first, second = send(), send()

    assert second["Idempotent-Replayed"] == "true"
    assert {**second.headers} == {**first.headers, "Idempotent-Replayed": "true"}
    assert first.has_header("X-Frame-Options") != ("xframe_options_exempt" in attributes)


def test_session_and_messages_are_changed_once(served):
    @idempotent_view
    def order(request):
        request.session["orders"] = request.session.get("orders", 0) + 1
        messages.success(request, "Ordered.")
        return HttpResponse(status=303, headers={"Location": "/shown/"})

    def shown(request):
        said = [message.message for message in get_messages(request)]
        return JsonResponse({"orders": request.session["orders"], "said": said})

    send = served(order, path("shown/", shown))
    send.client.force_login(User.objects.create_user("ada"))
    first, second = send(), send()

    assert (first.status_code, second.status_code) == (303, 303)
    assert second["Location"] == first["Location"]
    assert send.client.get("/shown/").json() == {"orders": 1, "said": ["Ordered."]}


class ReadsElsewhere:
    """Reads from a replica that is not there yet, and writes to the default database."""

    def db_for_read(self, model, **hints):
        return "other"

    def db_for_write(self, model, **hints):
        return "default"


@pytest.mark.django_db(databases=["default", "other"], transaction=True)
@pytest.mark.parametrize("mode", ["atomic", "lease"])
def test_records_are_read_where_they_are_written(served, settings, mode):
    settings.DATABASE_ROUTERS = [f"{__name__}.ReadsElsewhere"]

    @idempotent_view(mode=mode)
    def order(request):
        made = Effect.objects.create(name="e")
        return JsonResponse({"effect": made.pk, "key": current_claim().child_key("a")})

    send = served(order)
    with CaptureQueriesContext(connections["other"]) as asked:
        answers = [send(), send(), send(body=b"{}")]
        ran = [
            run_once(lambda: 1, scope="s", operation="o", key=KEY, mode=mode).replayed
            for _ in range(2)
        ]

    assert [one.status_code for one in answers] == [200, 200, 422]
    assert answers[1].content == answers[0].content
    assert ran == [False, True]
    assert asked.captured_queries == []
    assert IdempotencyRecord.objects.using("default").count() == 2


@pytest.mark.django_db(transaction=True)
class TestAsync:
    def test_language_and_context_that_a_view_sets_reach_what_is_around(self, served, settings):
        settings.MIDDLEWARE = [*settings.MIDDLEWARE, f"{__name__}.looking"]

        @idempotent_view
        async def view(request):
            told.set("in the view")
            translation.activate("de")
            return HttpResponse()

        served(view)
        headers = {"Idempotency-Key": KEY}
        response = run_async(AsyncClient().post("/served/", headers=headers))

        assert response["X-Seen"] == "in the view, de"

    @pytest.mark.parametrize("of_middleware", [False, True])
    def test_no_connection_is_held_while_a_view_works_or_waits(
        self, served, settings, of_middleware
    ):
        if of_middleware:
            settings.MIDDLEWARE = [*settings.MIDDLEWARE, view_checks.MIDDLEWARE]
        seen = []

        async def work(request):
            seen.append(await sync_to_async(is_connected)())
            begun.set()
            await done.wait()
            return HttpResponse("done")

        async def twins():
            headers = {"Idempotency-Key": KEY}
            posts = [
                asyncio.create_task(AsyncClient().post("/served/", headers=headers))
                for _ in range(2)
            ]
            await begun.wait()
            for _ in range(20):
                await asyncio.sleep(0.02)
                seen.append(await sync_to_async(is_connected)())
            done.set()
            return await asyncio.gather(*posts)

        begun, done = asyncio.Event(), asyncio.Event()
        served(work if of_middleware else idempotent_view(wait=20)(work))
        answers = run_async(twins())

        assert {answer.status_code for answer in answers} <= {200, 409}
        assert seen == [False] * 21


told = ContextVar("told", default="")


def is_connected():
    return connection.connection is not None


def looking(get_response):
    async def look(request):
        response = await get_response(request)
        response["X-Seen"] = f"{told.get()}, {translation.get_language()}"
        return response

    return look


looking = async_only_middleware(looking)


def test_empty_form_is_one_even_if_something_has_read_it(served):
    send = served(effect, client=Client(enforce_csrf_checks=True))
    send.client.cookies["csrftoken"] = "a" * 32
    border = "----WebKitFormBoundaryabc"
    options = {
        "body": f"--{border}--\r\n".encode(),
        "content_type": f"multipart/form-data; boundary={border}",
        "headers": {"X-CSRFToken": "a" * 32},
    }

    assert [send(**options).status_code for _ in range(2)] == [201, 201]
    assert Effect.objects.count() == 1


@pytest.mark.parametrize("method", ["put", "patch"])
def test_form_is_compared_whichever_method_sends_it(served, settings, method):
    def form(name):
        return encode_multipart(BOUNDARY, {"name": name})

    send = served(effect)
    options = {"method": method, "content_type": MULTIPART_CONTENT}
    bodies = [form("a"), form("a"), form("b")]
    assert [send(body=body, **options).status_code for body in bodies] == [201, 201, 422]
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 10
    assert send(key=f"{KEY}2", body=form("a"), **options).status_code == 413
    assert Effect.objects.count() == 1
