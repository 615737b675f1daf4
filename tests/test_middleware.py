"""The middleware: every request with a key, whatever its view."""

from types import ModuleType

import pytest
from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.http import Http404, HttpResponse, JsonResponse
from django.template.response import TemplateResponse
from django.test import AsyncClient, Client
from django.urls import include, path
from django.views.decorators.csrf import csrf_exempt
from rest_framework.views import APIView

from idempotency import LockUnavailable, idempotent_view, not_idempotent
from idempotency.models import IdempotencyRecord
from idempotency.view_checks import check_views_of_the_middleware
from tests.conftest import KEY, Sender, run_async
from tests.models import Effect

pytestmark = pytest.mark.django_db
committing = pytest.mark.django_db(transaction=True)

OURS = "idempotency.middleware.IdempotencyMiddleware"


def effect(request, *args, **kwargs):
    return JsonResponse({"effect": Effect.objects.create(name="e").pk}, status=201)


async def aeffect(request):
    made = await Effect.objects.acreate(name="e")
    return JsonResponse({"effect": made.pk}, status=201)


@pytest.fixture(autouse=True)
def middleware(settings):
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, OURS]


def test_request_with_a_key_takes_effect_once(served):
    send = served(effect)

    first, second, other = send(), send(), send(body=b"{}")

    assert (first.status_code, second.status_code, other.status_code) == (201, 201, 422)
    assert second.content == first.content
    assert second["Idempotent-Replayed"] == "true"
    assert IdempotencyRecord.objects.get().operation == "POST served"


@committing
def test_async_view_takes_effect_once_under_wsgi(served):
    send = served(aeffect)

    assert send().content == send().content
    assert Effect.objects.count() == 1


@committing
@pytest.mark.parametrize("view", [effect, aeffect, idempotent_view(effect)])
def test_view_takes_effect_once_under_asgi(served, view):
    served(view)

    async def twice():
        headers = {"Idempotency-Key": KEY}
        return [await AsyncClient().post("/served/", {"a": 1}, headers=headers) for _ in range(2)]

    first, second = run_async(twice())

    assert (first.status_code, second.content) == (201, first.content)
    assert second["Idempotent-Replayed"] == "true"
    assert Effect.objects.count() == 1


def test_request_without_a_key_or_with_a_safe_method_is_left_alone(served):
    send = served(effect)

    statuses = [send(None).status_code, send(None).status_code, send(method="get").status_code]

    assert statuses == [201, 201, 201]
    assert not IdempotencyRecord.objects.exists()


def test_body_without_a_key_is_never_read(served):
    send = served(lambda request: HttpResponse(request.read()))

    assert send(None, b"stream").content == b"stream"


def test_view_with_a_decorator_claims_once_and_keeps_its_options(served):
    send = served(idempotent_view(scope=lambda request: "own", ignore=["/sent_at"])(effect))

    send(body=b'{"sent_at": 1}')

    assert send(body=b'{"sent_at": 2}')["Idempotent-Replayed"] == "true"
    assert [record.scope for record in IdempotencyRecord.objects.all()] == ["own"]
    assert send(None).status_code == 400


def test_decorator_inside_of_the_view_does_not_claim_again(served):
    def outer(request):
        return idempotent_view(effect)(request)

    send = served(csrf_exempt(outer))

    assert send().content == send().content
    assert IdempotencyRecord.objects.count() == 1


def test_errors_of_ours_become_problems_with_and_without_a_key(served):
    def locked(request):
        raise LockUnavailable(retry_after=3)

    send = served(locked)

    for key in (None, KEY):
        response = send(key)
        assert (response.status_code, response["Retry-After"]) == (409, "3")


def test_other_errors_are_left_to_django(served):
    send = served(lambda request: 1 / 0)

    assert send(None).status_code == 500
    assert send().status_code == 500
    assert not IdempotencyRecord.objects.exists()


class Mapped(Exception):
    """Told as a response by a middleware of the project."""


class Mapping:
    """As projects have it: it gives pages a context, and tells some errors as responses."""

    sync_capable = async_capable = True

    def __new__(cls, get_response):
        instance = super().__new__(cls)
        instance.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(instance)
        return instance

    def __call__(self, request):
        return self.get_response(request)

    def process_template_response(self, request, response):
        response.context_data["shown"] = True
        return response

    def process_exception(self, request, exception):
        seen = isinstance(exception, Mapped)
        return JsonResponse({"told": str(exception)}, status=418) if seen else None


def raising(request):
    Effect.objects.create(name="e")
    raise Mapped(request.method)


async def araising(request):
    raise Mapped(request.method)


@committing
@pytest.mark.parametrize("place", [0, -1, 99])
@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("view", [raising, araising])
def test_what_a_view_raises_is_told_by_the_middleware_of_the_project(
    served, settings, view, is_async, place
):
    settings.MIDDLEWARE.insert(place, f"{__name__}.Mapping")
    served(view)

    async def asked(headers):
        return await AsyncClient().post("/served/", {"a": 1}, headers=headers)

    for headers in ({}, {"Idempotency-Key": KEY}, {"Idempotency-Key": KEY}):
        Effect.objects.all().delete()
        if is_async:
            response = run_async(asked(headers))
        else:
            response = Client().post("/served/", {"a": 1}, headers=headers)

        assert (response.status_code, response.json()) == (418, {"told": "POST"})
        assert Effect.objects.count() == (view is raising and not headers)
        assert not IdempotencyRecord.objects.filter(state="completed").exists()


def themed(request, response):
    return HttpResponse("a page")


def reading(request, response):
    assert response.template_name[0]
    assert response.template_name.endswith("y")
    return response


def failing(request, response):
    raise RuntimeError


def anew(request, response):
    return TemplateResponse(request, response.template_name, response.context_data)


class Theming(Mapping):
    theme = None

    def process_template_response(self, request, response):
        return type(self).theme(request, response)


@committing
@pytest.mark.parametrize("theme", [themed, reading, failing, anew])
@pytest.mark.parametrize("place", [0, -1, 99])
@pytest.mark.parametrize("is_async", [False, True])
def test_error_of_a_view_is_hidden_by_no_page(
    served, settings, monkeypatch, theme, place, is_async
):
    def view(request):
        Effect.objects.create(name="e")
        raise PermissionDenied

    monkeypatch.setattr(Theming, "theme", staticmethod(theme))
    settings.MIDDLEWARE.insert(place, f"{__name__}.Theming")
    served(view)
    headers = {"Idempotency-Key": KEY}

    async def asked():
        return await AsyncClient(raise_request_exception=False).post("/served/", headers=headers)

    client = Client(raise_request_exception=False)
    response = run_async(asked()) if is_async else client.post("/served/", headers=headers)

    assert response.status_code == 403
    assert not Effect.objects.exists()


@pytest.mark.parametrize("error", [Http404, PermissionDenied, SuspiciousOperation, ValueError])
def test_what_nobody_tells_is_told_by_django_as_ever(served, settings, error):
    settings.MIDDLEWARE.insert(-1, f"{__name__}.Mapping")

    def failing(request):
        raise error("why")

    send = served(failing)

    assert send().status_code == send(None).status_code
    assert send().content == send(None).content


def test_error_of_a_view_is_raised_to_tests_with_its_traceback(served):
    served(raising)

    with pytest.raises(Mapped) as raised:
        Client().post("/served/", headers={"Idempotency-Key": KEY})

    assert raised.traceback[-1].name == "raising"


def test_replay_passes_the_csrf_check_and_the_middleware_outside(served):
    served(effect)
    user = User.objects.create_user("ann")
    client = Client(enforce_csrf_checks=True)
    client.force_login(user)
    client.cookies["csrftoken"] = "t" * 32
    send = Sender(client)

    first = send(headers={"X-CSRFToken": "t" * 32})
    forged = send()
    second = send(headers={"X-CSRFToken": "t" * 32})

    assert (first.status_code, forged.status_code) == (201, 403)
    assert second["Idempotent-Replayed"] == "true"
    assert second["X-Frame-Options"] == "DENY"


def test_request_is_undone_under_atomic_requests(served, atomic_requests):
    def failing(request):
        effect(request)
        return HttpResponse(status=503)

    send = served(failing)

    assert send().status_code == 503
    assert not Effect.objects.exists()


def of_a_package():
    """As django-rest-knox has them: views of a framework that authenticate inside."""

    class Login(APIView):
        authentication_classes = ()

        def post(self, request):
            return HttpResponse("logged in")

    module = ModuleType("package.urls")
    inner = [path("deep/", Login.as_view())]
    module.urlpatterns = [path("login/", Login.as_view()), path("inner/", include(inner))]
    return include(module)


def test_urls_of_another_package_may_be_left_out(served, settings):
    settings.ROOT_URLCONF = (path("auth/", of_a_package()),)
    assert {told.id for told in check_views_of_the_middleware()} == {"idempotency.E038"}

    again = path("again/", not_idempotent(include([path("too/", effect)])))
    send = served(effect, path("auth/", not_idempotent(of_a_package())), again)
    assert send(path="/again/too/").content != send(path="/again/too/").content
    assert send().content == send().content
    IdempotencyRecord.objects.all().delete()

    for at in ("/auth/login/", "/auth/inner/deep/"):
        assert [send(path=at).content for _ in range(2)] == [b"logged in"] * 2
    assert not check_views_of_the_middleware()
    assert not IdempotencyRecord.objects.exists()


@pytest.mark.parametrize("module", ["rest_framework.views", "ninja.operation"])
def test_view_that_authenticates_inside_is_refused_loudly(served, module):
    def view(request):
        return effect(request)

    view.__module__ = module
    client = Client()

    with pytest.raises(TypeError, match="authenticates inside"):
        served(view, client=client)()
    assert not Effect.objects.exists()
