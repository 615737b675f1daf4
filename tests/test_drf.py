"""Django REST framework: actions take effect once, as each kind of view means it."""

from __future__ import annotations

import io
import json
import threading
from functools import partial

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.files.uploadhandler import TemporaryFileUploadHandler
from django.db import connection, connections, transaction
from django.http import Http404, HttpResponse, QueryDict, StreamingHttpResponse
from django.test import Client
from django.test.client import BOUNDARY, MULTIPART_CONTENT, encode_multipart
from django.urls import path
from django.utils.decorators import method_decorator
from django.views.decorators.csrf import csrf_exempt
from rest_framework import (
    exceptions,
    mixins,
    permissions,
    renderers,
    serializers,
    throttling,
    views,
)
from rest_framework.authentication import BaseAuthentication
from rest_framework.decorators import action, authentication_classes, permission_classes
from rest_framework.generics import CreateAPIView
from rest_framework.parsers import DataAndFiles, FileUploadParser, MultiPartParser
from rest_framework.response import Response
from rest_framework.routers import SimpleRouter
from rest_framework.test import APIClient, APIRequestFactory, force_authenticate
from rest_framework.views import APIView
from rest_framework.viewsets import GenericViewSet, ModelViewSet

from idempotency import StaleObject, idempotent_view, not_idempotent, view_checks
from idempotency.contrib.drf import (
    ConditionalMixin,
    IdempotentMixin,
    VersionedSerializerMixin,
    exception_handler,
    idempotent_api_view,
)
from idempotency.models import IdempotencyRecord
from tests.conftest import KEY
from tests.models import Effect
from tests.test_http import KEPT, Cutting, expect_exact_replay

pytestmark = pytest.mark.django_db
OTHER_KEY = "another-key-that-nobody-guesses"

committing = pytest.mark.django_db(transaction=True)


class ByName(BaseAuthentication):
    """Takes the caller's word for who it is."""

    def authenticate(self, request):
        name = request.META.get("HTTP_X_NAME")
        if name == "nobody":
            raise exceptions.AuthenticationFailed
        return (User.objects.get_or_create(username=name)[0], name) if name else None

    def authenticate_header(self, request):
        return "Name"


class EffectSerializer(serializers.ModelSerializer):
    class Meta:
        model = Effect
        fields = ("id", "name")


def effect(name="e"):
    return {"effect": Effect.objects.create(name=name).pk}


class Base(IdempotentMixin, APIView):
    authentication_classes = (ByName,)


class Plain(Base):
    def get(self, request):
        return Response({"effects": Effect.objects.count()})

    def post(self, request):
        made = effect(request.data.get("name", "e"))
        return Response(made, status=201, headers={"Location": f"/effects/{made['effect']}/"})

    put = patch = delete = post


class Generic(IdempotentMixin, CreateAPIView):
    queryset = Effect.objects.all()
    serializer_class = EffectSerializer


class Effects(IdempotentMixin, mixins.CreateModelMixin, mixins.ListModelMixin, GenericViewSet):
    queryset = Effect.objects.all()
    serializer_class = EffectSerializer

    @action(detail=True, methods=["post"])
    def pay(self, request, pk=None):
        return Response({"paid": pk, **effect()}, status=202)


class Kinds:
    """Each kind of view, and where it is served."""

    plain = (Plain, "/served/", "served")
    generic = (Generic, "/served/", "served")
    create = (Effects, "/effects/", "effect-list")
    action = (Effects, "/effects/7/pay/", "effect-pay")


@pytest.fixture(params=["plain", "generic", "create", "action"])
def kind(request, served):
    view, path, name = getattr(Kinds, request.param)
    return SendTo(serve(served, view), path, name)


def serve(served, view):
    router = SimpleRouter()
    router.register("effects", Effects, basename="effect")
    return served(view.as_view() if view is not Effects else Plain.as_view(), *router.urls)


class SendTo:
    def __init__(self, send, path, name):
        self.send, self.path, self.name = send, path, name

    def __call__(self, key=KEY, body=b'{"name": "e"}', **options):
        return self.send(key, body, path=self.path, **options)


def test_action_takes_effect_once_and_its_answer_is_replayed_exactly(kind):
    first, second = kind(), kind()

    assert first.status_code in (201, 202)
    assert (second.status_code, second.content) == (first.status_code, first.content)
    assert second["Idempotent-Replayed"] == "true"
    told = dict(second.items())
    assert told.pop("Idempotent-Replayed") == "true"
    assert told == dict(first.items())
    assert Effect.objects.count() == 1
    assert IdempotencyRecord.objects.get().operation == f"POST {kind.name}"


def test_reused_missing_and_malformed_keys_are_told_as_problems(kind):
    kind()

    for response, status, problem in (
        (kind(body=b'{"name": "other"}'), 422, "key-reused"),
        (kind(key=None), 400, "key-missing"),
        (kind(key=""), 400, "key-invalid"),
    ):
        assert response.status_code == status
        assert response["Content-Type"] == "application/problem+json"
        assert response.json()["type"].endswith(problem)
    assert Effect.objects.count() == 1


def test_callers_do_not_share_keys(served):
    send = served(Plain.as_view())

    answers = [send(headers={"X-Name": name}).content for name in ("ada", "bob", "ada")]

    assert answers[0] == answers[2] != answers[1]
    scopes = IdempotencyRecord.objects.values_list("scope", flat=True)
    assert set(scopes) == {f"user:{User.objects.get(username=n).pk}" for n in ("ada", "bob")}


class Picky(permissions.BasePermission):
    allowed = True

    def has_permission(self, request, view):
        return Picky.allowed and request.data is not None


def test_replay_is_authenticated_permitted_and_throttled_again(served, monkeypatch):
    class Two(throttling.SimpleRateThrottle):
        rate = "3/day"
        cache = LocMem()

        def get_cache_key(self, request, view):
            return "all"

    class Guarded(Plain):
        permission_classes = (Picky,)
        throttle_classes = (Two,)

    send = served(Guarded.as_view())
    ada = {"X-Name": "ada"}
    assert send(headers=ada).status_code == 201
    assert send(headers={"X-Name": "nobody"}).status_code == 401
    monkeypatch.setattr(Picky, "allowed", False)
    assert send(headers=ada).status_code == 403
    monkeypatch.setattr(Picky, "allowed", True)
    assert [send(headers=ada).status_code for _ in range(3)] == [201, 201, 429]
    assert Effect.objects.count() == 1


class LocMem(dict):
    def set(self, key, value, timeout):
        self[key] = value


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (exceptions.ValidationError({"name": "bad"}), 400),
        (exceptions.PermissionDenied(), 403),
        (Http404(), 404),
        (RuntimeError(), 500),
    ],
)
def test_raised_error_rolls_back_and_frees_the_key(served, error, status):
    class Failing(Base):
        is_broken = True

        def post(self, request):
            made = effect()
            if Failing.is_broken:
                raise error
            return Response(made, status=201)

    send = served(Failing.as_view())
    assert [send().status_code for _ in range(2)] == [status, status]
    assert not Effect.objects.exists()
    Failing.is_broken = False
    assert [send().status_code for _ in range(2)] == [201, 201]
    assert Effect.objects.count() == 1


@pytest.mark.parametrize(("status", "runs"), [(400, 1), (404, 1), (409, 2), (429, 2), (503, 2)])
def test_returned_status_is_kept_or_frees_the_key(served, status, runs):
    class Answering(Base):
        calls = 0

        def post(self, request):
            Answering.calls += 1
            return Response({"calls": Answering.calls}, status=status)

    send = served(Answering.as_view())
    assert [send().status_code for _ in range(2)] == [status, status]
    assert Answering.calls == runs


def test_error_that_is_to_be_kept_is_replayed_as_the_framework_told_it(served):
    class Charging(Base):
        idempotent_options = {"on_error": "store", "mode": "lease"}
        calls = 0

        def post(self, request):
            Charging.calls += 1
            if request.data["a"] == 1:
                raise exceptions.ValidationError({"amount": "too much"})
            raise RuntimeError

    send = served(Charging.as_view())
    first, second = send(), send()
    assert (first.status_code, first.json()) == (400, {"amount": "too much"})
    assert (second.content, second["Idempotent-Replayed"]) == (first.content, "true")
    other = {"key": OTHER_KEY, "body": b'{"a": 2}'}
    assert [send(**other).status_code for _ in range(2)] == [500, 500]
    assert Charging.calls == 2


@committing
@pytest.mark.parametrize("mode", ["atomic", "lease"])
def test_error_is_kept_under_atomic_requests_too(served, atomic_requests, mode):
    class Charging(Base):
        idempotent_options = {"on_error": "store", "mode": mode}

        def post(self, request):
            effect()
            raise exceptions.ValidationError({"amount": "too much"})

    send = served(Charging.as_view())
    first, second = send(), send()

    assert (first.status_code, second.content) == (400, first.content)
    assert second["Idempotent-Replayed"] == "true"
    assert not Effect.objects.exists()


class Device:
    is_authenticated, pk = True, 1


class ByKind(BaseAuthentication):
    def authenticate(self, request):
        kind = request.META["HTTP_X_KIND"]
        if kind == "user":
            return User.objects.get_or_create(pk=1, username="ada")[0], None
        return (Device(), None) if kind == "device" else (AnonymousUser(), kind)


def test_whoever_authenticates_has_keys_of_their_own(served):
    class Mixed(Plain):
        authentication_classes = (ByKind,)

    send = served(Mixed.as_view())
    kinds = ["user", "device", "a token", "another token"]
    first, second = ([send(headers={"X-Kind": kind}).content for kind in kinds] for _ in range(2))

    assert first == second
    assert len(set(first)) == Effect.objects.count() == 4
    assert not IdempotencyRecord.objects.filter(scope__contains="token").exists()


def test_keys_belong_to_whom_the_framework_finds_not_to_a_session(served):
    class Lazy(Plain):
        def perform_authentication(self, request):
            """Leave it to whoever asks."""

    client = Client(raise_request_exception=False)
    client.force_login(User.objects.create_user("of the session"))
    send = served(Lazy.as_view(), client=client)

    assert send().content == send().content
    assert send(headers={"X-Name": "nobody"}).status_code == 401
    assert IdempotencyRecord.objects.get().scope == "anonymous"


def test_some_actions_have_options_of_their_own_and_others_no_protection(served):
    class Chosen(Plain):
        idempotent_actions = {"post": {"required": False}, "patch": {}}
        idempotent_options = {"ignore": ("/sent_at",)}

    send = served(Chosen.as_view())
    assert [send(key=None).status_code for _ in range(2)] == [201, 201]
    assert send(method="patch", key=None).status_code == 400
    assert [send(method="put").status_code for _ in range(2)] == [201, 201]
    assert Effect.objects.count() == 4
    assert not IdempotencyRecord.objects.exists()
    one, two = (send(body=b'{"sent_at": %d}' % number) for number in range(2))
    assert one.content == two.content


def test_actions_of_a_set_are_named_as_they_are_there(served):
    class Some(Effects):
        idempotent_actions = ("pay",)

    router = SimpleRouter()
    router.register("some", Some, basename="some")
    send = served(Plain.as_view(), *router.urls)

    made = {send(path="/some/", body=b'{"name": "e"}').json()["id"] for _ in range(2)}
    assert made == set(Effect.objects.values_list("pk", flat=True))
    assert len(made) == 2
    paid = [send(path="/some/7/pay/").content for _ in range(2)]
    assert paid[0] == paid[1]


def test_function_takes_effect_once(served):
    @idempotent_api_view(["POST", "GET"], ignore=("/sent_at",))
    @permission_classes([permissions.IsAuthenticated])
    @authentication_classes([ByName])
    def create(request):
        """Make one."""
        return Response(effect(), status=201)

    send = served(create)
    ada = {"X-Name": "ada"}
    first, second = (send(headers=ada, body=b'{"sent_at": %d}' % at) for at in range(2))

    assert (first.status_code, second.content) == (201, first.content)
    assert [send().status_code, send(method="put", headers=ada).status_code] == [401, 405]
    assert (create.__doc__, create.csrf_exempt) == ("Make one.", True)
    assert create.cls.__name__ == "create"
    assert Effect.objects.count() == 1


@pytest.mark.parametrize(
    ("view", "names", "told"),
    [
        (Effects, ("crate", "pay"), "names crate, and"),
        (Effects, property(lambda self: ("create",)), "holds names"),
        (Effects, {"post": {}}, "names post, and"),
        (Generic, ("create",), "names create, and"),
        (Plain, ("POST",), "names POST, and"),
        (Plain, "post", r"holds names"),
    ],
)
def test_name_that_is_no_action_is_told_when_the_view_is_made(view, names, told):
    routed = [{"post": "create"}] if view is Effects else []

    with pytest.raises((TypeError, ValueError), match=told):
        view.as_view(*routed, idempotent_actions=names)


@pytest.mark.parametrize(
    "bases",
    [
        (APIView, IdempotentMixin),
        (GenericViewSet, IdempotentMixin),
        (CreateAPIView, ConditionalMixin),
        (mixins.CreateModelMixin, ConditionalMixin, GenericViewSet),
        (serializers.ModelSerializer, VersionedSerializerMixin),
    ],
)
def test_mixin_that_would_do_nothing_where_it_stands_is_refused(bases):
    with pytest.raises(TypeError, match="would do nothing there"):
        type("Wrong", bases, {})


def test_mixins_that_change_nothing_of_each_other_may_stand_anywhere():
    bases = (mixins.ListModelMixin, IdempotentMixin, mixins.CreateModelMixin, GenericViewSet)

    assert type("Right", bases, {}).as_view({"post": "create"})


def test_asynchronous_handlers_are_refused_with_the_way_out():
    class Async(IdempotentMixin, APIView):
        async def post(self, request):
            """Never run."""

    with pytest.raises(TypeError, match="arun_once"):
        Async.as_view()


def test_upload_that_is_no_form_is_compared_by_what_the_view_names(served, settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1000

    class Uploads(Base):
        parser_classes = (FileUploadParser,)

        def put(self, request):
            return Response({**effect(), "size": request.data["file"].size})

        post = put

    by_digest = {"fingerprint": lambda request: request.headers["Content-Digest"]}
    options = {
        "method": "put",
        "body": b"x" * 5000,
        "content_type": "application/octet-stream",
        "headers": {"Content-Disposition": "attachment; filename=a.bin", "Content-Digest": "a"},
    }
    assert served(Uploads.as_view())(**options).status_code == 413
    send = served(Uploads.as_view(idempotent_options=by_digest))
    first, second = send(**options), send(**options)
    assert (first.json()["size"], second.content) == (5000, first.content)
    options["headers"]["Content-Digest"] = "b"
    assert send(**options).status_code == 422
    assert Effect.objects.count() == 1


def test_names_of_actions_may_be_shared_by_a_base(served):
    class Paying(Effects):
        @action(detail=False, methods=["post"])
        def settle(self, request):
            return Response(effect())

        @settle.mapping.delete
        def unsettle(self, request):
            return Response(effect())

    names = ("create", "partial_update", "pay", "settle", "unsettle")
    view = Paying.as_view({"post": "settle", "delete": "unsettle"}, idempotent_actions=names)

    send = served(view)
    assert send().content == send().content
    assert Effect.objects.count() == 1


def test_wrong_option_is_told_when_the_view_is_made():
    class Wrong(Plain):
        idempotent_options = {"no_such_option": 1}

    class WrongAction(Plain):
        idempotent_actions = {"post": {"wait": -1}}

    with pytest.raises(TypeError, match="no_such_option"):
        Wrong.as_view()
    with pytest.raises(ValueError, match="wait"):
        WrongAction.as_view()


def test_safe_and_unknown_methods_ask_for_no_key(served):
    send = served(Plain.as_view())

    assert send(method="get", key=None).json() == {"effects": 0}
    assert send(method="options", key=None).status_code == 200
    assert send(method="get").json() == {"effects": 0}

    class Reading(Base):
        def get(self, request):
            return Response({})

    assert served(Reading.as_view())(key=None).status_code == 405
    assert not IdempotencyRecord.objects.exists()


def test_answers_have_data_for_code_that_reads_it(served):
    class Reading(Plain):
        def finalize_response(self, request, response, *args, **kwargs):
            response["X-Data"] = ",".join(sorted(response.data))
            return super().finalize_response(request, response, *args, **kwargs)

    send = served(Reading.as_view())
    first, second = send(), send()
    assert [first["X-Data"], second["X-Data"], second.data] == ["effect", "effect", first.data]
    problem = send(key=None)
    assert (problem.status_code, problem["X-Data"][:6]) == (400, "detail")
    assert problem.data == problem.json()


def test_request_without_a_key_is_answered_as_without_protection(served, settings):
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, f"{__name__}.mark_templates"]

    class Optional(Plain):
        idempotent_options = {"required": False}

    send = served(Optional.as_view())
    assert send(key=None)["X-Seen"] == "Response"


def mark_templates(get_response):
    class Marking:
        def __call__(self, request):
            return get_response(request)

        def process_template_response(self, request, response):
            response["X-Seen"] = type(response).__name__
            return response

    return Marking()


def test_response_is_finalized_once(served):
    class Wrapped(Plain):
        def finalize_response(self, request, response, *args, **kwargs):
            if isinstance(response, Response):
                response.data = {"data": response.data}
            response = super().finalize_response(request, response, *args, **kwargs)
            response["X-Finalized"] = f"{response.get('X-Finalized', '')}+"
            return response

    send = served(Wrapped.as_view())
    first, second = send(), send()

    assert set(first.json()) == {"data"}
    assert isinstance(first.json()["data"]["effect"], int)
    assert second.content == first.content
    assert first["X-Finalized"] == second["X-Finalized"] == "+"


class Text(renderers.BaseRenderer):
    media_type, format, charset = "text/plain", "txt", "latin-1"

    def render(self, data, accepted_media_type=None, renderer_context=None):
        return json.dumps(data, ensure_ascii=False).encode("latin-1")


def test_representation_is_the_first_one_whatever_a_retry_accepts(served):
    class Negotiating(Plain):
        renderer_classes = (renderers.JSONRenderer, Text)

    send = served(Negotiating.as_view())
    refused = send(headers={"Accept": "image/png"})
    assert (refused.status_code, Effect.objects.count()) == (406, 0)

    first = send(headers={"Accept": "text/plain"})
    assert first["Content-Type"] == "text/plain; charset=latin-1"
    Negotiating.renderer_classes = (renderers.JSONRenderer,)
    for accepted in ("image/png", "text/plain", "application/json"):
        again = send(headers={"Accept": accepted})
        assert (again.status_code, again.content) == (201, first.content)
        assert again["Content-Type"] == first["Content-Type"]
    assert Effect.objects.count() == 1
    assert send(method="get", headers={"Accept": "image/png"}).status_code == 406


@pytest.mark.parametrize("permission", [Picky, permissions.AllowAny])
@pytest.mark.parametrize("method", ["post", "patch", "put"])
@pytest.mark.parametrize("size", [10, 3_000_000])
def test_uploads_are_compared_part_by_part_and_read_by_the_framework(
    served, method, size, permission
):
    class Receiving(Base):
        permission_classes = (permission,)

        def post(self, request):
            file = request.data["file"]
            return Response({"name": file.name, "size": file.size, **effect()})

        patch = put = post

    send = served(Receiving.as_view())

    def upload(letter, boundary=BOUNDARY):
        file = SimpleUploadedFile("a.bin", letter * size)
        body = encode_multipart(boundary, {"file": file, "note": "n"})
        kind = MULTIPART_CONTENT.replace(BOUNDARY, boundary)
        return send(body=body, method=method, content_type=kind)

    answers = [upload(b"x"), upload(b"x", "another"), upload(b"y")]
    assert [one.status_code for one in answers] == [200, 200, 422]
    assert answers[0].content == answers[1].content
    assert answers[0].json()["size"] == size


def test_errors_of_this_app_go_through_the_handler_of_the_project(served):
    class Stale(Plain):
        def post(self, request):
            effect()
            raise StaleObject("changed meanwhile")

        def get_exception_handler(self):
            return lambda error, context: heard.append((error, context["view"]))

    heard = []
    response = served(Stale.as_view())()

    assert (response.status_code, response.json()["type"][-12:]) == (409, "stale-object")
    assert [type(error) for error, _ in heard] == [StaleObject]
    assert not Effect.objects.exists()


def test_handler_of_the_project_may_answer_in_its_own_way(served):
    class Own(Plain):
        def get_exception_handler(self):
            return lambda error, context: Response({"own": type(error).__name__}, status=418)

    response = served(Own.as_view())(key=None)

    assert (response.status_code, response.json()) == (418, {"own": "KeyMissing"})


def test_handler_that_knows_no_error_of_ours_hides_none(served):
    """As many projects have it, and drf-standardized-errors: what is unknown is a 500."""

    class Own(Plain):
        def get_exception_handler(self):
            def handle(error, context):
                known = views.exception_handler(error, context)
                return known or Response({"detail": "Server error"}, status=500)

            return handle

        def post(self, request):
            return Response(request.data["missing"])

    send = served(Own.as_view())
    missing, short, unknown = send(key=None), send(key="short"), send()

    assert (missing.status_code, missing.json()["type"][-11:]) == (400, "key-missing")
    assert (short.status_code, short.json()["type"][-11:]) == (400, "key-invalid")
    assert (unknown.status_code, unknown.json()) == (500, {"detail": "Server error"})


def test_views_without_protection_tell_our_errors_by_the_handler(served, settings):
    class Bare(APIView):
        authentication_classes = ()

        def get_exception_handler(self):
            return exception_handler

        def post(self, request):
            effect()
            if request.data["a"] == 1:
                raise StaleObject("changed meanwhile")
            raise exceptions.NotFound

    send = served(Bare.as_view())
    assert send().json()["type"].endswith("stale-object")
    assert send(body=b'{"a": 2}').status_code == 404


@committing
class TestAtomicRequests:
    @pytest.fixture(autouse=True)
    def everywhere(self, atomic_requests):
        pass

    def test_claim_is_seen_while_the_action_runs(self, served):
        class Slow(Plain):
            def post(self, request):
                running.set()
                assert done.wait(30)
                return super().post(request)

        running, done = threading.Event(), threading.Event()
        send, answers = served(Slow.as_view()), []

        def first():
            answers.append(send())
            connections.close_all()

        thread = threading.Thread(target=first)
        if connection.vendor == "sqlite":
            pytest.skip("no other writer while one works")
        thread.start()
        assert running.wait(30)
        twin = send()
        done.set()
        thread.join(30)

        assert (twin.status_code, twin.json()["type"][-19:]) == (409, "request-in-progress")
        assert answers[0].status_code == 201
        assert send().content == answers[0].content

    def test_what_is_not_protected_is_in_a_transaction_as_before(self, served):
        class Some(Base):
            idempotent_actions = ("patch",)

            def post(self, request):
                assert connection.in_atomic_block
                effect()
                raise exceptions.ValidationError

            def get(self, request):
                return Response({"in": connection.in_atomic_block})

        send = served(Some.as_view())
        for key in (None, KEY):
            assert send(key=key).status_code == 400
        assert not Effect.objects.exists()
        assert send(method="get", key=None).json() == {"in": True}

    @pytest.mark.parametrize(
        ("method", "key", "status"),
        [("get", None, 200), ("post", None, 400), ("post", KEY, 201), ("patch", KEY, 201)],
    )
    def test_permission_may_lock_rows(self, served, method, key, status):
        class Locking(permissions.BasePermission):
            def has_permission(self, request, view):
                return [*User.objects.select_for_update()] == []

        class Locked(Plain):
            permission_classes = (Locking,)
            idempotent_actions = ("post",)

        assert served(Locked.as_view())(key=key, method=method).status_code == status

    @pytest.mark.parametrize(("method", "key"), [("get", None), ("post", None), ("post", KEY)])
    def test_refusal_keeps_nothing_that_was_written_before_it(self, served, method, key):
        class Counting(permissions.BasePermission):
            def has_permission(self, request, view):
                effect("asked")
                return False

        class Counted(Plain):
            permission_classes = (Counting,)

        assert served(Counted.as_view())(key=key, method=method).status_code == 401
        assert not Effect.objects.exists()

    def test_whole_view_may_handle_its_transactions_itself(self, served):
        class Looking(Base):
            idempotent_options = {"required": False}

            def post(self, request):
                return Response({"in": connection.in_atomic_block})

        inside, outside = (
            Looking.as_view(),
            transaction.non_atomic_requests(Looking.as_view()),
        )
        assert served(inside)(key=None).json() == {"in": True}
        assert served(outside)(key=None).json() == {"in": False}
        assert served(outside)().json() == {"in": True}

    def test_view_that_handles_its_transactions_itself_gets_none(self, served):
        class Own(Base):
            @transaction.non_atomic_requests
            def dispatch(self, *args, **kwargs):
                return super().dispatch(*args, **kwargs)

            def get(self, request):
                return Response({"in": connection.in_atomic_block})

        assert served(Own.as_view())(method="get", key=None).json() == {"in": False}


def test_clients_and_factories_of_the_framework_work(served, settings):
    served(Plain.as_view())
    client = APIClient()
    client.credentials(HTTP_IDEMPOTENCY_KEY=KEY)
    first, second = (client.post("/served/", {"name": "e"}, format="json") for _ in range(2))
    assert first.data == second.data == {"effect": Effect.objects.get().pk}

    request = APIRequestFactory().post("/x/", {"name": "e"}, HTTP_IDEMPOTENCY_KEY=OTHER_KEY)
    user = User.objects.create_user("ada")
    force_authenticate(request, user)
    response = Plain.as_view()(request)
    assert response.status_code == 201
    record = IdempotencyRecord.objects.get(scope=f"user:{user.pk}")
    assert record.operation == "POST tests.test_drf.Plain.post"


@pytest.mark.parametrize(
    "body",
    [b"", bytes(range(256)), "ä".encode("latin-1")],
)
def test_plain_responses_are_replayed_to_the_byte(served, body):
    class Raw(Base):
        def post(self, request):
            response = HttpResponse(body, content_type="application/octet-stream")
            response.set_cookie("a", "b")
            effect()
            return response

    send = served(Raw.as_view())
    first, second = send(), send()

    assert first.content == second.content == body
    assert (list(first.cookies), list(second.cookies)) == (["a"], [])
    assert Effect.objects.count() == 1


@pytest.mark.parametrize("response", KEPT)
def test_every_kind_of_response_is_replayed_exactly(served, response):
    class Any(Base):
        def post(self, request):
            effect()
            return response()

    send = served(Any.as_view())
    expect_exact_replay(send(), send())
    assert Effect.objects.count() == 1


def test_stream_that_is_not_kept_is_not_run_again(served):
    class Streaming(Base):
        def post(self, request):
            effect()
            return StreamingHttpResponse(iter([b"a", b"b"]))

    send = served(Streaming.as_view())
    assert b"".join(send().streaming_content) == b"ab"
    assert send().json()["type"].endswith("replay-unavailable")
    assert Effect.objects.count() == 1


def test_nothing_to_say_is_replayed_as_that(served):
    class Empty(Base):
        def post(self, request):
            effect()
            return Response(status=204)

    client = APIClient(headers={"Idempotency-Key": KEY})
    served(Empty.as_view())
    first, second = (client.post("/served/") for _ in range(2))

    assert (first.status_code, second.status_code) == (204, 204)
    assert (first.content, second.content, second.data) == (b"", b"", None)


def test_middleware_leaves_protected_views_to_themselves(served, settings):
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "idempotency.middleware.IdempotencyMiddleware"]
    send = served(Plain.as_view())

    assert send().content == send().content
    assert IdempotencyRecord.objects.count() == 1


def test_views_that_the_middleware_cannot_protect_are_named(served, settings):
    class Bare(APIView):
        def post(self, request):
            """Do something."""

    class Reading(APIView):
        def get(self, request):
            return Response({})

    settled = {"look/": Reading.as_view(), "ping/": not_idempotent(Bare.as_view())}
    more = [path(at, view) for at, view in settled.items()]
    served(Plain.as_view(), path("bare/", Bare.as_view()), *more)
    assert view_checks.check_views_of_the_middleware() == []
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "idempotency.middleware.IdempotencyMiddleware"]

    (found,) = view_checks.check_views_of_the_middleware()
    assert found.id == "idempotency.E038"
    assert "Bare authenticates inside" in found.msg


def test_decorator_of_plain_views_is_refused_with_the_way_out():
    with pytest.raises(TypeError, match="IdempotentMixin"):
        idempotent_view(Plain.as_view())


# Surprises


def test_routed_names_may_be_those_of_any_method(served):
    class Approving(IdempotentMixin, GenericViewSet):
        idempotent_actions = ("submit", "cancel")

        def submit(self, request):
            return Response(effect())

        def cancel(self, request):
            return Response(effect())

    send = served(Approving.as_view({"post": "submit"}))
    assert send().content == send().content
    assert Effect.objects.count() == 1


@pytest.mark.parametrize("named", [None, "approve", lambda self: "called"])
def test_attribute_called_action_is_the_view_s_own(served, named):
    class Approving(Base):
        action = named
        idempotent_actions = ("post",)

        def post(self, request):
            return Response(effect())

    send = served(Approving.as_view())
    assert send().content == send().content
    assert Effect.objects.count() == 1


def test_views_that_one_view_calls_take_effect_once_each(served):
    class First(Plain):
        pass

    class Second(Plain):
        pass

    def both(request):
        answers = [kind.as_view()(request) for kind in (First, Second)]
        return HttpResponse(b"".join(answer.content for answer in answers))

    send = served(csrf_exempt(both))
    first, second = send(), send()
    assert first.content == second.content
    assert Effect.objects.count() == 2
    operations = set(IdempotencyRecord.objects.values_list("operation", flat=True))
    assert len(operations) == 2
    assert "POST served" in operations


@pytest.mark.parametrize("size", [10, 5_000])
def test_view_that_reads_the_stream_itself_gets_all_of_a_form(served, settings, size):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1_000

    class Streaming(Base):
        idempotent_options = {"fingerprint": lambda request: request.headers["X-Digest"]}

        def post(self, request):
            return Response({**effect(), "read": len(request._request.read())})

    form = encode_multipart(BOUNDARY, {"file": SimpleUploadedFile("a.bin", b"x" * size)})
    send = served(Streaming.as_view())
    options = {"body": form, "content_type": MULTIPART_CONTENT, "headers": {"X-Digest": "a"}}
    first, second = send(**options), send(**options)
    assert (first.json()["read"], second.content) == (len(form), first.content)


class Claims(BaseAuthentication):
    def authenticate(self, request):
        return AnonymousUser(), {"sub": "ada"}


def scope_by_claims(request):
    return f"sub:{request.auth['sub']}"


@pytest.mark.parametrize("is_setting", [False, True])
def test_scope_may_say_who_it_is_where_nobody_else_can(served, settings, is_setting):
    class Claimed(Plain):
        authentication_classes = (Claims,)
        idempotent_options = {} if is_setting else {"scope": scope_by_claims}

    settings.IDEMPOTENCY_SCOPE = f"{__name__}.scope_by_claims" if is_setting else None
    send = served(Claimed.as_view())
    assert [send().status_code for _ in range(2)] == [201, 201]
    assert IdempotencyRecord.objects.get().scope == "sub:ada"


class Nested(MultiPartParser):
    """Reads fields as JSON, as many projects do."""

    def parse(self, *args, **kwargs):
        parsed = super().parse(*args, **kwargs)
        data = {name: json.loads(value) for name, value in parsed.data.items()}
        return DataAndFiles(data, parsed.files)


class NestedLists(Nested):
    def parse(self, *args, **kwargs):
        parsed = super().parse(*args, **kwargs)
        data = QueryDict(mutable=True)
        data.update(parsed.data)
        return DataAndFiles(data, parsed.files)


@pytest.mark.parametrize("parser", [Nested, NestedLists])
@pytest.mark.parametrize("method", ["post", "put"])
@pytest.mark.parametrize("most", [100, 100_000])
def test_parser_of_the_project_is_asked(served, settings, parser, method, most):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = most

    class Parsing(Base):
        parser_classes = (parser,)

        def post(self, request):
            return Response({**effect(), "line": request.data["line"]})

        put = post

    def form(count):
        line = json.dumps({"count": count})
        file = SimpleUploadedFile("a.bin", b"x" * 500)
        return encode_multipart(BOUNDARY, {"line": line, "file": file})

    send = served(Parsing.as_view())
    first, second, other = (
        send(method=method, body=form(count), content_type=MULTIPART_CONTENT) for count in (1, 1, 2)
    )
    assert (first.status_code, first.json()["line"]) == (200, {"count": 1})
    assert (second.content, other.status_code) == (first.content, 422)


def test_handlers_of_an_upload_may_be_chosen_by_the_view(served):
    class Choosing(Base):
        def post(self, request):
            request._request.upload_handlers = [TemporaryFileUploadHandler(request._request)]
            return Response({**effect(), "file": type(request.data["file"]).__name__})

    form = {"file": SimpleUploadedFile("a.bin", b"x")}
    send = served(Choosing.as_view())
    options = {
        "body": encode_multipart(BOUNDARY, form),
        "content_type": MULTIPART_CONTENT,
    }
    first, second = send(**options), send(**options)
    assert (first.json()["file"], second.content) == ("TemporaryUploadedFile", first.content)


def test_large_body_that_a_permission_has_read_is_a_413(served, settings):
    class Reading(permissions.BasePermission):
        def has_permission(self, request, view):
            return bool(request._request.read(10))

    class Read(Plain):
        permission_classes = (Reading,)

    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 10
    answer = served(Read.as_view())(body=b'{"a": "long enough"}')
    assert (answer.status_code, answer.json()["type"][-14:]) == (413, "body-too-large")


class BreaksOff(io.RawIOBase):
    def read(self, *args):
        raise OSError("connection reset")


@pytest.mark.parametrize("content_type", ["application/json", MULTIPART_CONTENT])
@pytest.mark.parametrize("method", ["post", "put"])
def test_body_that_does_not_arrive_is_told_as_that(content_type, method):
    request = getattr(APIRequestFactory(), method)("/", b"x", content_type=content_type)
    request.META["HTTP_IDEMPOTENCY_KEY"] = KEY
    request._stream = BreaksOff()

    answer = Plain.as_view()(request)

    assert (answer.status_code, answer.data["type"][-12:]) == (400, "body-invalid")
    assert not IdempotencyRecord.objects.exists()


@pytest.mark.parametrize("most", [2_621_440, 100])
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_upload_that_is_cut_without_a_word_runs_nothing(served, settings, method, most):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = most
    body = encode_multipart(BOUNDARY, {"name": "e", "file": SimpleUploadedFile("f", b"text")})
    served(Plain.as_view())

    Cutting(MULTIPART_CONTENT, body).expect_one_effect(len(body) - 30, method=method)


def test_view_may_take_arguments_of_its_own_only(served):
    class Strict(Plain):
        def __init__(self, service=None):
            super().__init__()
            made.append(service)

    made = []
    view = Strict.as_view()
    assert made == []
    assert Strict.as_view(**view.initkwargs)
    assert served(view)().status_code == 201


@pytest.mark.parametrize("on_error", ["store", "block"])
def test_representation_that_cannot_be_is_no_outcome(served, on_error):
    class Kept(Plain):
        idempotent_options = {"on_error": on_error, "mode": "lease"}

    send = served(Kept.as_view())
    assert send(headers={"Accept": "image/png"}).status_code == 406
    assert send(headers={"Accept": "application/json"}).status_code == 201


def test_lines_of_json_have_no_data(served):
    class Lines(Base):
        def post(self, request):
            return HttpResponse(b"{}\n{}\n", content_type="application/x-ndjson")

        def dispatch(self, request, *args, **kwargs):
            response = super().dispatch(request, *args, **kwargs)
            assert getattr(response, "data", None) is None
            return response

    send = served(Lines.as_view())
    assert [send().status_code for _ in range(2)] == [200, 200]


@pytest.mark.parametrize(
    "decorate",
    [idempotent_view, method_decorator(idempotent_view)],
)
def test_decorator_around_dispatch_is_refused_at_each_request(served, decorate):
    class Decorated(APIView):
        authentication_classes = (ByName,)

        @decorate
        def dispatch(self, request, *args, **kwargs):
            return super().dispatch(request, *args, **kwargs)

        def post(self, request):
            return Response(effect())

    send = served(Decorated.as_view())
    assert [send(headers={"X-Name": name}).status_code for name in ("ada", "bob")] == [500, 500]
    assert not Effect.objects.exists()


def test_middleware_sees_views_through_partial_functions(served, settings):
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "idempotency.middleware.IdempotencyMiddleware"]
    view = partial(CreateAPIView.as_view(queryset=Effect.objects.all()), kind="x")
    send = served(csrf_exempt(view))
    assert send().status_code == 500
    (found,) = view_checks.check_views_of_the_middleware()
    assert (found.id, "CreateAPIView" in found.msg) == ("idempotency.E038", True)

    assert served(partial(Plain.as_view(), note="x"))(key=None).status_code != 500


def test_set_that_serves_no_unsafe_method_needs_no_protection(served, settings):
    class Reading(ModelViewSet):
        queryset = Effect.objects.order_by("pk")
        serializer_class = EffectSerializer
        http_method_names = ("get", "head", "options")

    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "idempotency.middleware.IdempotencyMiddleware"]
    send = served(Reading.as_view({"get": "list", "post": "create"}))
    assert send().status_code == 405
    assert view_checks.check_views_of_the_middleware() == []
