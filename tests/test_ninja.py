"""Django Ninja: operations take effect once, for whoever their authentication says it is."""

from __future__ import annotations

import asyncio
import json
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from functools import wraps

import pytest
from asgiref.sync import iscoroutinefunction
from django.contrib.auth.models import AnonymousUser, User
from django.db import connections
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient
from django.test.utils import isolate_apps
from django.urls import path
from ninja import Header, NinjaAPI, Router, Schema, Status
from ninja.decorators import decorate_view
from ninja.errors import HttpError
from ninja.pagination import paginate
from ninja.security import HttpBearer
from ninja.streaming import JSONL
from ninja.testing import TestClient
from ninja.throttling import BaseThrottle

from idempotency import StaleObject, not_idempotent, view_checks
from idempotency.contrib.ninja import add_exception_handlers, idempotent_operation
from idempotency.contrib.ninja.operations import _Guard
from idempotency.http.principals import scope_of_principal
from idempotency.models import IdempotencyRecord
from tests.conftest import KEY, run_async
from tests.models import Effect
from tests.test_http import KEPT, expect_exact_replay

pytestmark = pytest.mark.django_db
committing = pytest.mark.django_db(transaction=True)

OTHER_KEY = "another-key-that-nobody-guesses"


class Order(Schema):
    name: str = "e"


class Made(Schema):
    effect: int


class Bearer(HttpBearer):
    def authenticate(self, request, token):
        if token == "bad":
            return None
        return User.objects.get_or_create(username=token)[0] if token != "machine" else token


def effect(name="e"):
    return {"effect": Effect.objects.create(name=name).pk, "secret": "never shown"}


@pytest.fixture
def api():
    return NinjaAPI(urls_namespace="api")


@pytest.fixture
def serve(api, served):
    def serve():
        send = served(lambda request: HttpResponse(), path("api/", api.urls))

        def sent(key=KEY, body=b'{"name": "e"}', *, at="/api/orders", as_="", **options):
            headers = {**options.pop("headers", {})}
            if as_:
                headers["Authorization"] = f"Bearer {as_}"
            return send(key, body, path=at, headers=headers, **options)

        return sent

    return serve


def test_operation_takes_effect_once_and_its_answer_is_replayed_exactly(api, serve):
    @api.post("/orders", response={201: Made})
    @idempotent_operation
    def create(request, order: Order, response: HttpResponse):
        made = effect(order.name)
        response["Location"] = f"/effects/{made['effect']}"
        return Status(201, made)

    send = serve()
    first, second = send(), send()

    assert (first.status_code, first.json()) == (201, {"effect": Effect.objects.get().pk})
    assert (second.status_code, second.content) == (201, first.content)
    told = dict(second.items())
    assert told.pop("Idempotent-Replayed") == "true"
    assert told == dict(first.items())
    assert first["Location"].startswith("/effects/")
    assert IdempotencyRecord.objects.get().operation == "POST api:create"


def test_keys_belong_to_whom_the_authentication_names(api, serve):
    @api.post("/orders", auth=Bearer(), response=Made)
    @idempotent_operation
    def create(request, order: Order):
        return effect()

    send = serve()
    answers = [send(as_=name) for name in ("ada", "bob", "machine", "ada", "machine")]

    assert [one.status_code for one in answers] == [200] * 5
    contents = [one.content for one in answers]
    assert (contents[0], contents[2]) == (contents[3], contents[4])
    assert Effect.objects.count() == 3
    scopes = set(IdempotencyRecord.objects.values_list("scope", flat=True))
    assert {scope.partition(":")[0] for scope in scopes} == {"user", "auth"}
    assert not [scope for scope in scopes if "machine" in scope]
    refused = send(as_="bad")
    assert (refused.status_code, "Idempotent-Replayed" in refused) == (401, False)


def test_replay_is_throttled(api, serve):
    class Twice(BaseThrottle):
        left = 2

        def allow_request(self, request):
            self.left -= 1
            return self.left >= 0

        def wait(self):
            return 1

    @api.post("/orders", throttle=Twice())
    @idempotent_operation
    def create(request):
        return effect()

    send = serve()
    assert [send().status_code for _ in range(3)] == [200, 200, 429]
    assert Effect.objects.count() == 1


def test_problems_are_told(api, serve):
    @api.post("/orders")
    @idempotent_operation
    def create(request, order: Order):
        return effect()

    send = serve()
    send()
    for response, status, problem in (
        (send(body=b'{"name": "f"}'), 422, "key-reused"),
        (send(key=None), 400, "key-missing"),
        (send(key=""), 400, "key-invalid"),
    ):
        assert (response.status_code, response.json()["type"][-len(problem) :]) == (status, problem)
        assert response["Content-Type"] == "application/problem+json"
    invalid = send(key=OTHER_KEY, body=b'{"name": 1}')
    assert invalid.status_code == 422
    assert invalid.json()["detail"][0]["loc"] == ["body", "order", "name"]
    assert IdempotencyRecord.objects.count() == 1


@pytest.mark.parametrize("error", [HttpError(404, "gone"), ValueError("broken")])
def test_raised_error_rolls_back_and_frees_the_key(api, serve, error):
    state = {"is_broken": True}

    @api.exception_handler(ValueError)
    def told(request, error):
        return api.create_response(request, {"told": str(error)}, status=404)

    @api.post("/orders")
    @idempotent_operation
    def create(request):
        made = effect()
        if state["is_broken"]:
            raise error
        return made

    send = serve()
    assert [send().status_code for _ in range(2)] == [404, 404]
    assert not Effect.objects.exists()
    state["is_broken"] = False
    assert [send().status_code for _ in range(2)] == [200, 200]
    assert Effect.objects.count() == 1


def test_error_without_a_handler_is_django_s(api, serve):
    @api.post("/orders")
    @idempotent_operation
    def create(request):
        effect()
        raise RuntimeError

    assert serve()().status_code == 500
    assert not Effect.objects.exists()


def test_error_that_is_to_be_kept_is_replayed_as_the_api_told_it(api, serve):
    calls = []

    @api.post("/orders")
    @idempotent_operation(on_error="store", mode="lease")
    def create(request, order: Order):
        calls.append(order.name)
        if order.name == "e":
            raise HttpError(402, "too much")
        raise RuntimeError

    send = serve()
    first, second = send(), send()
    assert (first.status_code, first.content) == (second.status_code, second.content)
    assert (first.status_code, second["Idempotent-Replayed"]) == (402, "true")
    other = {"key": OTHER_KEY, "body": b'{"name": "f"}'}
    assert [send(**other).status_code for _ in range(2)] == [500, 500]
    assert calls == ["e", "f"]


@pytest.mark.parametrize(("status", "runs"), [(400, 1), (409, 2), (503, 2)])
def test_returned_status_is_kept_or_frees_the_key(api, serve, status, runs):
    calls = []

    @api.post("/orders", response={status: dict})
    @idempotent_operation
    def create(request):
        calls.append(1)
        return Status(status, {"calls": len(calls)})

    send = serve()
    assert [send().status_code for _ in range(2)] == [status, status]
    assert len(calls) == runs


def test_result_that_does_not_fit_the_schema_leaves_no_effect(api, serve):
    @api.post("/orders", response=Made)
    @idempotent_operation
    def create(request):
        effect()
        return {"effect": "no number"}

    assert serve()().status_code == 500
    assert not Effect.objects.exists()


def test_plain_responses_and_nothing_are_replayed(api, serve):
    @api.post("/orders")
    @idempotent_operation
    def create(request):
        effect()
        return HttpResponse(bytes(range(256)), content_type="application/octet-stream")

    @api.post("/empty", response={204: None})
    @idempotent_operation
    def clear(request):
        effect()
        return Status(204, None)

    send = serve()
    assert [send().content for _ in range(2)] == [bytes(range(256))] * 2
    answers = [send(at="/api/empty") for _ in range(2)]
    assert [(one.status_code, one.content) for one in answers] == [(204, b"")] * 2
    assert Effect.objects.count() == 2


@pytest.mark.parametrize("response", KEPT)
def test_every_kind_of_response_is_replayed_exactly(api, serve, response):
    @api.post("/orders")
    @idempotent_operation
    def create(request):
        effect()
        return response()

    send = serve()
    expect_exact_replay(send(), send())
    assert Effect.objects.count() == 1


OURS = "idempotency.middleware.IdempotencyMiddleware"


@pytest.mark.parametrize("is_async", [False, True])
@committing
def test_middleware_leaves_protected_operations_to_themselves(api, serve, settings, is_async):
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, OURS]

    @api.get("/orders")
    def look(request):
        return {}

    @api.post("/orders")
    @idempotent_operation
    def create(request):
        return effect()

    @api.post("/ping")
    @not_idempotent
    def ping(request):
        return effect()

    if is_async:

        @api.put("/orders")
        @not_idempotent
        async def replace(request):
            return {}

    send = serve()
    assert send().content == send().content
    assert [send(at="/api/ping").status_code for _ in range(2)] == [200, 200]
    assert Effect.objects.count() == 3
    assert IdempotencyRecord.objects.count() == 1
    assert view_checks.check_views_of_the_middleware() == []


def test_middleware_refuses_an_operation_that_nothing_protects(api, serve, settings):
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, OURS]

    @api.post("/orders")
    def create(request):
        return effect()

    send = serve()
    assert send().status_code == 500
    assert send(key=None).status_code == 200
    (found,) = view_checks.check_views_of_the_middleware()
    assert found.id == "idempotency.E038"


def test_router_may_be_part_of_several_apis(served):
    router = Router()

    @router.post("/orders", response=Made)
    @idempotent_operation
    def create(request, order: Order):
        return effect()

    apis = [NinjaAPI(urls_namespace=f"v{number}", version=f"{number}") for number in (1, 2)]
    for one in apis:
        one.add_router("", router)
    more = [path(f"v{number}/", one.urls) for number, one in enumerate(apis, 1)]
    send = served(lambda request: HttpResponse(), *more)

    contents = [send(path=f"/v{number}/orders").content for number in (1, 2, 1, 2)]
    assert contents[:2] == contents[2:]
    assert Effect.objects.count() == 2


def test_views_of_operations_may_be_decorated_as_well(api, serve):
    def marked(mark):
        def decorate(run):
            @wraps(run)
            def decorated(request, **kwargs):
                response = run(request, **kwargs)
                response["X-Mark"] = response.get("X-Mark", "") + mark
                return response

            return decorated

        return decorate

    @api.post("/orders")
    @decorate_view(marked("a"))
    @idempotent_operation
    @decorate_view(marked("b"))
    def create(request):
        return effect()

    send = serve()
    first, second = send(), send()
    assert (second.content, first["X-Mark"], second["X-Mark"]) == (first.content, "ba", "ba")


def test_function_may_still_be_called_by_itself(api):
    @api.post("/orders")
    @idempotent_operation
    def create(request, order: Order, note: str = ""):
        return order.name + note

    assert create(None, Order(name="a"), note="b") == "ab"
    assert create.__wrapped__(HttpRequest(), Order(name="a")) == "a"


def test_function_may_be_called_by_another_operation(api, serve):
    @api.post("/one")
    @idempotent_operation
    def one(request):
        return effect()["effect"]

    @api.post("/orders")
    @idempotent_operation
    def two(request):
        return [one(request), one(request)]

    send = serve()
    assert send().json() == send().json()
    assert Effect.objects.count() == 2


def enveloped(function):
    @wraps(function)
    def decorated(request, **kwargs):
        return {"data": function(request, **kwargs)}

    @wraps(function)
    async def adecorated(request, **kwargs):
        return {"data": await function(request, **kwargs)}

    return adecorated if iscoroutinefunction(function) else decorated


@pytest.mark.parametrize("is_async", [False, True])
@committing
def test_what_the_api_makes_of_each_result_belongs_to_the_answer(api, is_async, served):
    router = Router()
    router.add_decorator(enveloped)
    api.add_decorator(enveloped)

    if is_async:

        @router.post("/orders")
        @idempotent_operation
        async def create(request, order: Order):
            return [(await Effect.objects.acreate(name=order.name)).pk]

    else:

        @router.post("/orders")
        @idempotent_operation
        def create(request, order: Order):
            return [Effect.objects.create(name=order.name).pk]

    api.add_router("", router)
    send = served(lambda request: HttpResponse(), path("api/", api.urls))
    first, second = (send(KEY, b'{"name": "e"}', path="/api/orders") for _ in range(2))

    assert first.json() == {"data": {"data": [Effect.objects.get().pk]}}
    assert second.content == first.content


def test_decorator_that_would_get_an_answer_in_place_of_a_result_is_refused(api):
    with pytest.raises(TypeError, match="Put it below"):

        @api.post("/orders", response=list[Made])
        @paginate
        @idempotent_operation
        def create(request):
            return Effect.objects.all()


def test_decorator_below_is_part_of_what_takes_effect_once(api, serve):
    @api.post("/orders", response=list[Made])
    @idempotent_operation
    @paginate
    def create(request):
        effect()
        return [{"effect": 1}, {"effect": 2}]

    send = serve()
    first, second = (send(at="/api/orders?limit=1") for _ in range(2))

    assert (first.json(), second.content) == (
        {"items": [{"effect": 1}], "count": 2},
        first.content,
    )
    assert Effect.objects.count() == 1


def test_operation_that_a_decorator_hides_is_not_run_unprotected(api, serve):
    def hiding(function):
        return lambda request: function(request)

    @api.post("/orders")
    @hiding
    @idempotent_operation
    def create(request):
        return effect()

    assert serve()().status_code == 500
    assert not Effect.objects.exists()
    with pytest.raises(TypeError, match=r"functools\.wraps"):
        create(HttpRequest())

    with pytest.raises(TypeError, match=r"functools\.wraps"):

        @NinjaAPI(urls_namespace="other").post("/others")
        @idempotent_operation
        @decorate_view(lambda run: lambda request: run(request))
        def other(request):
            return effect()


def test_clients_of_the_framework_s_tests_may_send_a_key(api):
    @api.post("/orders", response=Made)
    @idempotent_operation
    def create(request, order: Order):
        return effect()

    client = TestClient(api)
    headers = {"Idempotency-Key": KEY}
    answers = [client.post("/orders", json={}, headers=headers) for _ in range(2)]

    assert [one.status_code for one in answers] == [200, 200]
    assert answers[0].content == answers[1].content
    assert answers[1]["Idempotent-Replayed"] == "true"
    assert client.post("/orders", json={}).json()["type"].endswith("key-missing")


def test_names_that_only_type_checkers_know_may_annotate(api, serve):
    @api.post("/orders", response=Made)
    @idempotent_operation
    def create(request: Unknown, order: Order):  # noqa: F821 - that is the point.
        return effect()

    assert serve()().status_code == 200


def test_handler_of_the_api_for_our_errors_is_asked(api, serve):
    @api.exception_handler(StaleObject)
    def stale(request, error):
        return api.create_response(request, {"own": "stale"}, status=418)

    @api.exception_handler(Exception)
    def anything(request, error):
        return api.create_response(request, {"own": "anything"}, status=500)

    @api.post("/orders")
    @idempotent_operation
    def create(request):
        effect()
        raise StaleObject("changed meanwhile")

    send = serve()
    told = send()
    assert (told.status_code, told.json()) == (418, {"own": "stale"})
    assert send(key="").json()["type"].endswith("key-invalid")
    assert not Effect.objects.exists()


@committing
class TestAsync:
    @pytest.fixture(autouse=True)
    def operations(self, api, serve):
        @api.post("/orders", response={201: Made})
        @idempotent_operation
        async def create(request, order: Order, response: HttpResponse):
            response["X-Own"] = "1"
            if order.name == "wrong":
                raise HttpError(404, "gone")
            made = await Effect.objects.acreate(name=order.name)
            return Status(201, {"effect": made.pk})

        self.create = create
        serve()

    def send(self, *names, key=KEY):
        async def all_of_them():
            client = AsyncClient()
            headers = {"Idempotency-Key": key}
            posts = (
                client.post(
                    "/api/orders",
                    json.dumps({"name": name}),
                    content_type="application/json",
                    headers=headers,
                )
                for name in names
            )
            return await asyncio.gather(*posts)

        return run_async(all_of_them())

    def test_operation_takes_effect_once(self):
        first, second = self.send("e") + self.send("e")

        assert (first.status_code, first["X-Own"]) == (201, "1")
        assert (second.content, second["X-Own"]) == (first.content, "1")
        assert second["Idempotent-Replayed"] == "true"
        assert Effect.objects.count() == 1

    def test_twins_take_effect_once(self):
        answers = self.send(*["e"] * 6)

        assert {one.status_code for one in answers} <= {201, 409}
        assert Effect.objects.count() == 1

    def test_raised_error_frees_the_key(self):
        answers = self.send("wrong") + self.send("wrong") + self.send("e")

        assert [one.status_code for one in answers] == [404, 404, 201]

    def test_function_may_still_be_called_by_itself(self):
        made = run_async(self.create(None, Order(), HttpResponse()))

        assert made.value == {"effect": Effect.objects.get().pk}


def test_errors_of_this_app_are_told_wherever_they_are_raised(api, serve):
    add_exception_handlers(api)

    @api.post("/orders")
    def change(request):
        raise StaleObject("changed meanwhile")

    response = serve()()
    assert (response.status_code, response.json()["type"][-12:]) == (409, "stale-object")


def test_operation_that_streams_is_refused(api):
    with pytest.raises(TypeError, match="streams its answer"):

        @api.post("/orders", response=JSONL[Order])
        @idempotent_operation
        def create(request):
            return iter([{"name": "a"}])


@committing
def test_two_first_requests_at_once_protect_the_operation_once(api, serve, monkeypatch):
    @api.post("/orders")
    @idempotent_operation
    def create(request):
        return effect()

    barrier, around = threading.Barrier(2, timeout=30), _Guard._around

    def late(self, operation, view):
        barrier.wait()
        return around(self, operation, view)

    monkeypatch.setattr(_Guard, "_around", late)
    send, answers = serve(), []

    def post():
        answers.append(send())
        connections.close_all()

    threads = [threading.Thread(target=post) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert {one.status_code for one in answers} <= {200, 409}
    assert send().status_code == 200
    assert Effect.objects.count() == 1


def test_decorator_of_the_api_may_run_the_function_in_another_thread(api, serve):
    def elsewhere(function):
        @wraps(function)
        def decorated(request, **kwargs):
            with ThreadPoolExecutor(1) as threads:
                return threads.submit(function, request, **kwargs).result()

        return decorated

    api.add_decorator(elsewhere)

    @api.post("/orders")
    @idempotent_operation
    def create(request, order: Order):
        return {"name": order.name}

    send = serve()
    assert send().json() == {"name": "e"}
    assert send()["Idempotent-Replayed"] == "true"


@pytest.mark.parametrize(
    ("who", "scope"),
    [
        (uuid.UUID(int=1), "auth:"),
        (7, "auth:"),
        (1, "auth:"),
        (True, "anonymous"),
        (AnonymousUser(), "anonymous"),
    ],
)
def test_principal_may_be_of_any_kind_that_tells_callers_apart(api, serve, who, scope):
    @api.post("/orders", auth=lambda request: who)
    @idempotent_operation
    def create(request):
        return effect()

    send = serve()
    assert [send().status_code for _ in range(2)] == [200, 200]
    assert IdempotencyRecord.objects.get().scope.startswith(scope)


def test_callable_may_be_no_function(api, serve):
    class Creating:
        __name__ = "create"

        def __call__(self, request, order: Order):
            return effect(order.name)

    api.post("/orders")(idempotent_operation(Creating()))

    send = serve()
    assert send().content == send().content
    assert Effect.objects.count() == 1


def test_return_annotation_is_not_asked_for(api):
    @api.post("/orders")
    @idempotent_operation
    def create(request) -> json.Missing:
        return None


def test_lease_inside_of_the_transaction_of_a_request_is_told(api, serve, atomic_requests):
    @api.post("/orders")
    @idempotent_operation(mode="lease")
    def create(request):
        return effect()

    serve()
    (found,) = view_checks.check_protected_methods()
    assert (found.id, "create has a lease" in found.msg) == ("idempotency.E036", True)


def test_schema_names_the_header_and_the_problems(api):
    @api.post("/orders", response={201: Made, 409: Made})
    @idempotent_operation(required=False)
    def create(request, order: Order):
        return effect()

    schema = api.get_openapi_schema(path_prefix="")
    said = schema["paths"]["/orders"]["post"]

    assert [(one["name"], one["in"], one["required"]) for one in said["parameters"]] == [
        ("Idempotency-Key", "header", False)
    ]
    assert set(said["responses"]) == {201, 400, 409, 422, 503}
    assert said["responses"][201]["headers"].keys() == {"Idempotent-Replayed"}
    assert "$ref" in said["responses"][201]["content"]["application/json"]["schema"]
    conflict = said["responses"][409]["content"]
    assert "$ref" in conflict["application/json"]["schema"]
    assert "$ref" not in conflict["application/problem+json"]["schema"]
    assert json.loads(json.dumps(schema)) is not None


def test_what_an_operation_says_of_itself_stays(api):
    own = {"parameters": [], "responses": {"422": {"description": "mine"}}}

    @api.post("/orders", openapi_extra=own)
    @idempotent_operation
    def create(request, key: str = Header(alias="Idempotency-Key")):
        return effect()

    said = api.get_openapi_schema(path_prefix="")["paths"]["/orders"]["post"]

    assert [one["name"] for one in said["parameters"]] == ["Idempotency-Key"]
    assert said["responses"]["422"] == {"description": "mine"}
    assert {str(status) for status in said["responses"]} == {"200", "400", "409", "422", "503"}
    assert own["parameters"] == []


@pytest.mark.parametrize("option", [{"wait": -1}, {"no_such_option": 1}])
def test_wrong_option_is_told_when_the_operation_is_made(option):
    with pytest.raises((TypeError, ValueError)):
        idempotent_operation(**option)(lambda request: None)


def test_order_of_the_decorators_is_told(api):
    @api.post("/orders")
    def create(request):
        return None

    with pytest.raises(TypeError, match=r"below @api\.post"):
        idempotent_operation(create)
    with pytest.raises(TypeError, match="functions that return"):
        idempotent_operation(lambda: (yield))


def test_caller_whom_nobody_can_tell_apart_is_refused_loudly(api, serve):
    @api.post("/orders", auth=lambda request: {"claims": 1})
    @idempotent_operation
    def create(request):
        return effect()

    @api.post("/own", auth=lambda request: {"claims": 1})
    @idempotent_operation(scope=lambda request: f"claims:{request.auth['claims']}")
    def own(request):
        return effect()

    send = serve()
    assert send().status_code == 500
    assert not Effect.objects.exists()
    assert [send(at="/api/own").status_code for _ in range(2)] == [200, 200]
    assert IdempotencyRecord.objects.get().scope == "claims:1"


@isolate_apps("tests")
def test_child_of_the_model_of_users_is_the_same_user():
    class Customer(User):
        class Meta:
            app_label = "tests"

    class Renamed(User):
        class Meta:
            app_label = "tests"
            proxy = True

    found = [User(pk=7), Renamed(pk=7), Customer(id=7, user_ptr_id=7)]

    assert {scope_of_principal(one) for one in found} == {"user:7"}
