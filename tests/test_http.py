"""The HTTP contract: what is refused, run, kept and replayed."""

import gzip
import io
import json

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import PermissionDenied
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.files.uploadhandler import FileUploadHandler, StopUpload
from django.core.handlers.wsgi import WSGIRequest
from django.db import connection, connections, transaction
from django.http import (
    FileResponse,
    Http404,
    HttpResponse,
    HttpResponseRedirect,
    JsonResponse,
    StreamingHttpResponse,
)
from django.template import engines
from django.template.response import TemplateResponse
from django.test import Client, RequestFactory
from django.urls import path
from django.utils.translation import gettext
from django.views import View
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.gzip import gzip_page

from idempotency import (
    KeyReused,
    LockUnavailable,
    StaleObject,
    TransitionConflict,
    idempotent_view,
    lock,
)
from idempotency.http.arriving import count_body
from idempotency.http.problems import PROBLEMS
from idempotency.models import IdempotencyRecord
from tests.conftest import KEY, Gate, end_leases, end_retention, standing_at
from tests.models import Effect

pytestmark = pytest.mark.django_db
committing = pytest.mark.django_db(transaction=True)


def effect(request, *args, **kwargs):
    made = Effect.objects.create(name=request.method)
    return JsonResponse({"effect": made.pk}, status=201)


def problem(response):
    assert response["Content-Type"] == "application/problem+json"
    assert response["Cache-Control"] == "no-store"
    told = json.loads(response.content)
    assert told["status"] == response.status_code
    return told["type"].rpartition(":")[2]


def answering(response):
    """Give a view that makes an effect, and answers with what *response* makes."""

    @idempotent_view
    def view(request):
        effect(request)
        return response() if callable(response) else response

    return view


# What is refused.


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (None, "key-missing"),
        ("", "key-invalid"),
        ("   ", "key-invalid"),
        ('""', "key-invalid"),
        ("k" * 300, "key-invalid"),
        ("k" * 10_000, "key-invalid"),
        ("a-long-key-with\x01control", "key-invalid"),
        ("a-long-key-with-é-in-it", "key-invalid"),
        (f"{KEY}, {KEY}", "key-invalid"),
        (f'"{KEY}", "{KEY}"', "key-invalid"),
        (f'"{KEY}', "key-invalid"),
        (f'"{KEY}\\n"', "key-invalid"),
        ("too-short", "key-invalid"),
    ],
)
def test_key_that_is_absent_or_wrong_is_a_400_and_runs_nothing(served, key, kind):
    response = served(idempotent_view(effect))(key)

    assert response.status_code == 400
    assert problem(response) == kind
    assert not key or key.strip('" ') == "" or key not in response.content.decode()
    assert not Effect.objects.exists()
    assert not IdempotencyRecord.objects.exists()


def test_bare_and_quoted_key_are_the_same(served):
    send = served(idempotent_view(effect))

    assert send(KEY).content == send(f'"{KEY}"').content
    assert Effect.objects.count() == 1


@pytest.mark.parametrize("other", [KEY.upper(), f'"{KEY} "', KEY + "-", f'" {KEY}"'])
def test_keys_that_differ_at_all_are_different(served, other):
    send = served(idempotent_view(effect))

    send(KEY)
    send(other)

    assert Effect.objects.count() == 2


def test_refusal_of_a_missing_key_names_the_documentation(served, settings):
    settings.IDEMPOTENCY_DOCS_URL = "https://shop.example/docs"

    response = served(idempotent_view(effect))(None)

    assert response["Link"] == '<https://shop.example/docs>; rel="describedby"'
    assert "retry" not in response.json()


def test_name_of_the_header_may_be_set(served, settings):
    settings.IDEMPOTENCY_HEADER = "X-Request-Key"
    send = served(idempotent_view(effect))

    assert send(KEY).status_code == 400
    assert send(None, headers={"X-Request-Key": KEY}).status_code == 201


def test_key_that_is_not_required_may_be_left_out_but_not_be_wrong(served):
    send = served(idempotent_view(required=False)(effect))

    assert [send(None).status_code, send(None).status_code] == [201, 201]
    assert send("").status_code == 400
    assert Effect.objects.count() == 2
    assert not IdempotencyRecord.objects.exists()


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"{", "application/json"),
        (b"nope", "application/json"),
        (b'{"a": NaN}', "application/json"),
        (b'{"a": "\xff"}', "application/vnd.api+json"),
        (b"[" * 100_000, "application/json"),
        (b"{}", "application/json; charset=nonsense"),
        (b"not multipart", "multipart/form-data; boundary=b"),
        (b"--b\r\nnonsense", "multipart/form-data; boundary=b"),
        (b"--b--", "multipart/form-data"),
    ],
)
def test_body_that_is_not_what_it_says_is_a_400_and_runs_nothing(served, body, content_type):
    response = served(idempotent_view(effect))(KEY, body, content_type=content_type)

    assert response.status_code == 400
    assert problem(response) == "body-invalid"
    assert not Effect.objects.exists()


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", "application/json"),
        (b"", ""),
        (b"", "multipart/form-data; boundary=b"),
        (b"--b--\r\n", "multipart/form-data; boundary=b"),
        (b"a=%ff&a=%zz&&=", "application/x-www-form-urlencoded"),
        (bytes(range(256)), "application/octet-stream"),
        ("{}".encode("utf-8-sig"), "application/json"),
        ('{"a": "é"}'.encode("latin-1"), "application/json; charset=latin-1"),
    ],
)
def test_unusual_body_is_taken_as_it_is(served, body, content_type):
    send = served(idempotent_view(effect))

    first = send(KEY, body, content_type=content_type)
    second = send(KEY, body, content_type=content_type)

    assert (first.status_code, second.status_code) == (201, 201)
    assert Effect.objects.count() == 1


def test_raw_body_over_the_limit_is_a_413(served, settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1_000

    response = served(idempotent_view(effect))(
        KEY, b"x" * 1_001, content_type="application/octet-stream"
    )

    assert (response.status_code, problem(response)) == (413, "body-too-large")
    assert not Effect.objects.exists()


def test_body_of_a_request_without_protection_is_never_read(served, settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1_000

    @idempotent_view(required=False)
    def read_stream(request):
        return HttpResponse(str(len(request.read())))

    response = served(read_stream)(None, b"x" * 5_000, content_type="application/octet-stream")

    assert response.content == b"5000"


def test_body_that_something_read_before_is_told_to_the_developer(served):
    def reading(request):
        request.read(1)
        return idempotent_view(effect)(request)

    client = Client()
    with pytest.raises(Exception, match="read as a stream before") as caught:
        served(reading, client=client)(KEY)

    assert type(caught.value).__name__ == "ImproperlyConfigured"
    assert not Effect.objects.exists()


# What is run, and when it is the same.


@pytest.mark.parametrize("method", ["get", "head", "options", "trace"])
def test_safe_methods_are_never_protected(served, method):
    send = served(idempotent_view(effect))

    for _ in range(2):
        assert getattr(send.client, method)(
            "/served/", headers={"Idempotency-Key": KEY}
        ).status_code in (201, 405)

    assert not IdempotencyRecord.objects.exists()


@pytest.mark.parametrize("method", ["put", "delete"])
def test_put_and_delete_are_protected_when_they_carry_a_key(served, method):
    send = served(idempotent_view(effect))

    assert send(None, method=method).status_code == 201
    assert [send(KEY, method=method).get("Idempotent-Replayed") for _ in range(2)] == [None, "true"]


def test_methods_that_require_a_key_may_be_set(served, settings):
    settings.IDEMPOTENCY_METHODS = ["PUT"]
    send = served(idempotent_view(effect))

    assert send(None).status_code == 201
    assert send(None, method="put").status_code == 400


def test_method_and_view_are_part_of_the_identity(served):
    send = served(idempotent_view(effect))

    statuses = [
        send(KEY, method="post").status_code,
        send(KEY, method="patch").status_code,
        send(KEY, path="/served/7/").status_code,
    ]

    assert statuses == [201, 201, 201]
    assert set(IdempotencyRecord.objects.values_list("operation", flat=True)) == {
        "POST served",
        "PATCH served",
        "POST numbered",
    }


def test_other_object_under_the_same_view_is_another_request(served):
    send = served(idempotent_view(effect))

    send(KEY, path="/served/1/")
    response = send(KEY, path="/served/2/")

    assert (response.status_code, problem(response)) == (422, "key-reused")
    assert "Retry-After" not in response
    assert response.json()["retry"] == {"same_key": False}


def json_of(value):
    return json.dumps(value).encode(), "application/json"


def form_of(text):
    return text.encode(), "application/x-www-form-urlencoded"


def multipart_of(boundary, *parts):
    lines = []
    for name, content, file_name in parts:
        filed = f'; filename="{file_name}"' if file_name else ""
        lines.append(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{filed}\r\n\r\n'
            f"{content}\r\n"
        )
    return (
        f"{''.join(lines)}--{boundary}--\r\n".encode(),
        f"multipart/form-data; boundary={boundary}",
    )


SAME = [
    (json_of({"a": 1, "b": [1, 2]}), (b' {"b":[1.0,2e0],\n"a":1}', "application/json")),
    (json_of({"a": "é"}), ('{"a": "é"}'.encode(), "application/json; charset=utf-8")),
    (form_of("a=1&b=2&b=3"), form_of("b=2&a=1&b=3")),
    (
        multipart_of("x", ("a", "1", ""), ("f", "content", "f.txt")),
        multipart_of("yy", ("f", "content", "f.txt"), ("a", "1", "")),
    ),
]
OTHER = [
    (json_of({"a": 1}), json_of({"a": 2})),
    (json_of({"a": 1}), json_of({"a": "1"})),
    (json_of({"a": 1}), json_of({"a": True})),
    (json_of({"a": 1}), json_of({"a": 1, "b": None})),
    (json_of([1, 2]), json_of([2, 1])),
    ((b"12345678901234567890", "application/json"), (b"12345678901234567891", "application/json")),
    (json_of({"a": 1}), (b'{"a": 1}', "text/plain")),
    (form_of("a=1"), json_of({"a": "1"})),
    (form_of("b=2&b=3"), form_of("b=3&b=2")),
    ((b"raw", "text/plain"), (b"raw ", "text/plain")),
    (multipart_of("x", ("f", "content", "f.txt")), multipart_of("x", ("f", "other", "f.txt"))),
    (multipart_of("x", ("f", "content", "f.txt")), multipart_of("x", ("f", "content", "g.txt"))),
    (multipart_of("x", ("f", "content", "f.txt")), multipart_of("x", ("f", "content", ""))),
    (multipart_of("x", ("a", "1", "")), multipart_of("x", ("a", "1", ""), ("a", "1", ""))),
]


@pytest.mark.parametrize(("first", "second"), SAME)
def test_same_input_in_other_words_is_replayed(served, first, second):
    send = served(idempotent_view(effect))

    send(KEY, first[0], content_type=first[1])
    response = send(KEY, second[0], content_type=second[1])

    assert response["Idempotent-Replayed"] == "true"
    assert Effect.objects.count() == 1


@pytest.mark.parametrize(("first", "second"), OTHER)
def test_other_input_with_the_same_key_is_refused(served, first, second):
    send = served(idempotent_view(effect))

    send(KEY, first[0], content_type=first[1])
    response = send(KEY, second[0], content_type=second[1])

    assert (response.status_code, problem(response)) == (422, "key-reused")
    assert Effect.objects.count() == 1


def test_query_counts_but_not_its_order(served):
    send = served(idempotent_view(effect))

    assert send(path="/served/?dry=1&b=2").status_code == 201
    assert send(path="/served/?b=2&dry=1")["Idempotent-Replayed"] == "true"
    assert send(path="/served/").status_code == 422
    assert send(path="/served/?dry=2&b=2").status_code == 422


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (json_of({"a": 1, "sent_at": 1}), json_of({"a": 1, "sent_at": 2})),
        (json_of({"a": 1}), json_of({"a": 1, "sent_at": 2})),
        (form_of("a=1&sent_at=1"), form_of("a=1&sent_at=2")),
        (multipart_of("x", ("sent_at", "1", "")), multipart_of("x", ("sent_at", "2", ""))),
    ],
)
def test_what_is_to_be_ignored_may_differ(served, first, second):
    send = served(idempotent_view(ignore=["/sent_at"])(effect))

    assert send(KEY, first[0], content_type=first[1]).status_code in (201, 400)
    if Effect.objects.exists():
        assert send(KEY, second[0], content_type=second[1])["Idempotent-Replayed"] == "true"


def test_fingerprint_may_be_given_by_a_function_that_leaves_the_body_alone(served):
    def read_stream(request):
        return HttpResponse(request.read())

    view = idempotent_view(fingerprint=lambda request: request.headers["X-Amount"])(read_stream)
    send = served(view)

    first = send(KEY, b"one", headers={"X-Amount": "1"})
    assert first.content == b"one"
    assert send(KEY, b"two", headers={"X-Amount": "1"}).content == b"one"
    assert send(KEY, b"one", headers={"X-Amount": "2"}).status_code == 422


def test_fingerprint_of_ones_own_never_mixes_objects_up(served):
    send = served(idempotent_view(fingerprint=lambda request: request.body)(effect))

    send(path="/served/1/")

    assert send(path="/served/2/").status_code == 422


def test_large_upload_is_compared_without_being_held_in_memory(served, settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 100_000
    settings.FILE_UPLOAD_MAX_MEMORY_SIZE = 10_000

    @idempotent_view
    def keep(request):
        upload = request.FILES["f"]
        return HttpResponse(f"{upload.size} {upload.read()[:3]!r} {hasattr(upload, 'file')}")

    served(keep)
    client = Client(headers={"Idempotency-Key": KEY})
    content = b"abc" * 200_000

    def upload(content):
        return client.post("/served/", {"f": SimpleUploadedFile("f.bin", content), "a": "1"})

    assert upload(content).content == b"600000 b'abc' True"
    assert upload(content)["Idempotent-Replayed"] == "true"
    assert upload(content[:-1] + b"x").status_code == 422


@pytest.mark.parametrize("read", ["POST", "body", "FILES"])
def test_small_upload_may_be_read_before_and_after(served, read):
    @idempotent_view
    def keep(request):
        return HttpResponse(f"{request.POST['a']} {request.FILES['f'].read()}")

    def early(request):
        getattr(request, read)
        return keep(request)

    served(early)
    client = Client(headers={"Idempotency-Key": KEY})

    def upload(content):
        return client.post("/served/", {"f": SimpleUploadedFile("f.bin", content), "a": "1"})

    assert upload(b"one").content == b"1 b'one'"
    assert upload(b"one")["Idempotent-Replayed"] == "true"
    assert upload(b"two").status_code == 422


def test_small_upload_leaves_the_body_to_the_view(served):
    @idempotent_view
    def keep(request):
        return HttpResponse(str(len(request.body) > 100))

    served(keep)
    client = Client(headers={"Idempotency-Key": KEY})

    response = client.post("/served/", {"f": SimpleUploadedFile("f.bin", b"one")})

    assert response.content == b"True"


# Who shares keys.


def test_users_do_not_share_keys(served, client):
    ann, bob = (User.objects.create_user(name) for name in ("ann", "bob"))
    send = served(idempotent_view(effect), client=client)

    client.force_login(ann)
    first = send("short")
    client.force_login(bob)
    second = send("short")
    client.force_login(ann)
    again = send("short")

    assert first.json() != second.json()
    assert (again.json(), again["Idempotent-Replayed"]) == (first.json(), "true")
    assert set(IdempotencyRecord.objects.values_list("scope", flat=True)) == {
        f"user:{ann.pk}",
        f"user:{bob.pk}",
    }


def test_anonymous_callers_share_keys_whatever_address_they_claim(served):
    send = served(idempotent_view(effect))

    send(KEY, headers={"X-Forwarded-For": "10.0.0.1"})
    response = send(KEY, headers={"X-Forwarded-For": "10.0.0.2"})

    assert response["Idempotent-Replayed"] == "true"


@pytest.mark.parametrize(
    "header",
    [
        "Authorization",
        "X-API-Key",
        "Api-Key",
        "X-Session-Token",
        "X-Shopify-Access-Token",
        "X-Token",
    ],
)
@pytest.mark.parametrize("protected", ["decorator", "middleware"])
def test_view_that_finds_out_inside_who_calls_gives_no_answer_to_another(
    served, protections, protected, header
):
    def view(request):
        name = {"Bearer a": "ann", "Bearer b": "bob"}.get(request.headers.get(header))
        if name is None:
            return HttpResponse(status=401)
        return JsonResponse({"of": name, **json.loads(effect(request).content)})

    send = served(csrf_exempt(protections(protected, view)))
    shown = ["Bearer a", "Bearer b", "Bearer wrong", "", "Bearer a"]
    first, bob, wrong, nobody, again = (send(headers={header: one} if one else {}) for one in shown)

    assert (first.json()["of"], bob.json()["of"]) == ("ann", "bob")
    assert (wrong.status_code, nobody.status_code) == (401, 401)
    assert again.content == first.content
    assert again["Idempotent-Replayed"] == "true"
    assert not IdempotencyRecord.objects.filter(scope__contains="Bearer").exists()
    assert send("short", headers={header: "Bearer a"}).status_code == 400


@pytest.mark.parametrize(
    "signed",
    [
        "AWS4-HMAC-SHA256 Credential=a/20261127/eu, Signature={}",
        'Digest username="ann", nc={}',
        'OAuth oauth_consumer_key="a", oauth_nonce="{}"',
        "HMAC a:{}",
        "SharedKey account:{}",
        "Hawk id={}",
        'Signature keyId="a",signature="{}"',
    ],
)
def test_retry_that_is_signed_anew_is_still_the_same_call(served, signed):
    send = served(idempotent_view(effect))

    first, second = (send(headers={"Authorization": signed.format(sign)}) for sign in (1, 2))

    assert second["Idempotent-Replayed"] == "true"
    assert first.content == second.content


@pytest.mark.parametrize(
    "scheme",
    ["Bearer", "Token", "Bot", "SSWS", "GenieKey", "Session", "Zoho-oauthtoken", "Klaviyo-API-Key"],
)
def test_tokens_of_any_scheme_tell_callers_apart(served, scheme):
    send = served(idempotent_view(effect))

    first, other, again = (
        send(headers={"Authorization": f"{scheme} {one}"}) for one in ("hmac-a", "b==", "hmac-a")
    )

    assert first.content != other.content
    assert again.content == first.content


def test_object_that_is_no_user_shares_no_keys_with_one(rf):
    view = idempotent_view(effect)

    def ask(caller):
        request = rf.post("/", headers={"Idempotency-Key": KEY})
        request.user = caller
        return view(request).content

    client = Effect(pk=7)
    client.is_authenticated = True
    assert ask(client) != ask(User(pk=7))


def test_tenants_with_a_schema_each_share_no_keys(served, monkeypatch):
    """As django-tenants says whose request it is; users are numbered anew in each schema."""
    ann = User.objects.create_user("ann")
    client = Client()
    client.force_login(ann)
    send = served(idempotent_view(effect), client=client)

    for schema in ("public", "a", "b"):
        monkeypatch.setattr(connections["default"], "schema_name", schema, raising=False)
        assert [send().has_header("Idempotent-Replayed") for _ in range(2)] == [False, True]

    assert set(IdempotencyRecord.objects.values_list("scope", flat=True)) == {
        f"user:{ann.pk}",
        f"a:user:{ann.pk}",
        f"b:user:{ann.pk}",
    }


def other_effect(request):
    return effect(request)


class OfOneHost(View):
    def post(self, request):
        return effect(request)


class OfAnother(OfOneHost):
    pass


def choosing(get_response):
    def choose(request):
        request.urlconf = (path("served/", HOSTS[request.headers["X-Host"]], name="served"),)
        return get_response(request)

    return choose


HOSTS = {}


@pytest.mark.parametrize("protected", ["decorator", "middleware"])
@pytest.mark.parametrize(
    "views", [(OfOneHost, OfAnother), (effect, lambda request: effect(request))]
)
def test_views_of_two_sets_of_urls_share_no_keys(served, settings, protections, protected, views):
    """As django-hosts chooses the URLs by the name of the host."""
    views = [getattr(view, "as_view", lambda view=view: view)() for view in views]
    served_there = [csrf_exempt(protections(protected, view)) for view in views]
    HOSTS.update(zip("ab", served_there, strict=True))
    settings.MIDDLEWARE = [f"{__name__}.choosing", *dict.fromkeys(settings.MIDDLEWARE)]
    send = served(effect)

    first, second, again = (send(headers={"X-Host": host}) for host in "aba")

    assert first.json() != second.json()
    assert again.content == first.content
    assert Effect.objects.count() == 2


@pytest.mark.parametrize("kind", ["form", "multipart"])
def test_token_of_a_form_may_be_another_one_at_a_retry(served, kind):
    def form(token):
        if kind == "form":
            options = {"content_type": "application/x-www-form-urlencoded"}
            return {"body": f"a=1&csrfmiddlewaretoken={token}".encode(), **options}
        body, content_type = multipart_of("x", ("a", "1", ""), ("csrfmiddlewaretoken", token, ""))
        return {"body": body, "content_type": content_type}

    send = served(idempotent_view(effect))

    assert send(**form("one")).content == send(**form("another")).content


def test_final_may_undo_what_the_view_wrote(served):
    """As for GraphQL, whose errors are told by 200."""

    def is_without_errors(response):
        if "errors" not in json.loads(response.content):
            return True
        transaction.set_rollback(True)
        return False

    def view(request):
        effect(request)
        return JsonResponse(answers.pop())

    answers = [{"data": 1}, {"errors": ["why"]}]
    send = served(idempotent_view(final=is_without_errors)(view))
    first, second, third = send(), send(), send()

    assert (first.json(), second.json()) == ({"errors": ["why"]}, {"data": 1})
    assert third["Idempotent-Replayed"] == "true"
    assert Effect.objects.count() == 1


def tenant(request):
    return f"tenant:{request.headers['X-Tenant']}"


def test_scope_may_be_set_for_all_and_for_one_view(served, settings):
    settings.IDEMPOTENCY_SCOPE = "tests.test_http.tenant"
    send = served(idempotent_view(effect))

    send("short", headers={"X-Tenant": "a"})
    send("short", headers={"X-Tenant": "b"})
    served(idempotent_view(scope=lambda request: "all")(effect))
    send("short")

    assert set(IdempotencyRecord.objects.values_list("scope", flat=True)) == {
        "tenant:a",
        "tenant:b",
        "all",
    }


def test_request_without_a_user_is_anonymous(rf):
    view = idempotent_view(effect)
    request = rf.post("/", headers={"Idempotency-Key": KEY})

    assert view(request).status_code == 201
    request.user = AnonymousUser()
    assert IdempotencyRecord.objects.get().scope == "anonymous"


# What is kept.


def file_of(content):
    return FileResponse(io.BytesIO(content), filename="f.bin", as_attachment=True)


def template():
    response = TemplateResponse(None, engines["django"].from_string("<b>{{ a }}</b>"), {"a": 1})
    response["X-Own"] = "yes"
    return response


KEPT = [
    lambda: JsonResponse({"a": "é"}, status=201, headers={"Location": "/a/1/", "ETag": '"1"'}),
    lambda: HttpResponse(status=202, headers={"Location": "/jobs/1/"}),
    lambda: HttpResponse(status=204),
    lambda: HttpResponse(b"", status=303, headers={"Location": "/there/"}),
    lambda: HttpResponseRedirect("/there/"),
    lambda: JsonResponse({"no": 1}, status=406),
    lambda: JsonResponse({"no": 1}, status=400),
    lambda: JsonResponse({"no": 1}, status=404),
    lambda: JsonResponse({"no": 1}, status=422),
    lambda: HttpResponse(bytes(range(256)), content_type="application/octet-stream"),
    lambda: HttpResponse("é".encode("latin-1"), content_type="text/plain; charset=latin-1"),
    lambda: HttpResponse('{"a":1}', content_type="application/vnd.api+json"),
    lambda: HttpResponse(b"x" * 5_000_000, content_type="text/plain"),
    lambda: HttpResponse("x", headers={"Vary": "Accept-Language", "Content-Language": "de"}),
    lambda: file_of(b"content of a file"),
    template,
]


@pytest.mark.parametrize("response", KEPT)
def test_replay_is_exact(served, response):
    send = served(answering(response))

    expect_exact_replay(send(), send())
    assert Effect.objects.count() == 1


def expect_exact_replay(first, second):
    assert second.status_code == first.status_code
    assert body_of(second) == body_of(first)
    marked = {**first.headers, "Idempotent-Replayed": "true"}
    assert dict(second.headers) == {**marked, "Content-Length": second["Content-Length"]}


LOCALE = "django.middleware.locale.LocaleMiddleware"


def greeting():
    return HttpResponse(gettext("Yes"))


def test_replay_is_in_the_language_of_the_first_answer_and_says_so(served, settings):
    session = "django.contrib.sessions.middleware.SessionMiddleware"
    place = settings.MIDDLEWARE.index(session) + 1
    settings.MIDDLEWARE = [*settings.MIDDLEWARE[:place], LOCALE, *settings.MIDDLEWARE[place:]]
    send = served(answering(greeting))

    first = send(headers={"Accept-Language": "de"})
    second = send(headers={"Accept-Language": "fr"})

    assert (first.text, second.text) == ("Ja", "Ja")
    assert first["Content-Language"] == second["Content-Language"] == "de"
    assert first["Vary"] == second["Vary"]


@pytest.mark.parametrize("place", ["first", "last"])
@pytest.mark.parametrize(
    "name",
    [
        "django.middleware.gzip.GZipMiddleware",
        "django.middleware.http.ConditionalGetMiddleware",
        "django.middleware.cache.UpdateCacheMiddleware",
        LOCALE,
    ],
)
def test_replay_goes_through_whatever_is_around_the_view(served, settings, name, place):
    rest = settings.MIDDLEWARE
    settings.MIDDLEWARE = [name, *rest] if place == "first" else [*rest, name]
    send = served(answering(lambda: JsonResponse({"long": "x" * 5_000}, headers={"ETag": '"1"'})))

    first, second = (send(headers={"Accept-Encoding": "gzip"}) for _ in range(2))
    plain = send(headers={"Accept-Encoding": "identity"})

    assert [one.status_code for one in (first, second, plain)] == [200] * 3
    assert first.get("Content-Encoding") == second.get("Content-Encoding")
    assert inflated(first) == inflated(second) == plain.content
    assert "Content-Encoding" not in plain
    assert Effect.objects.count() == 1


def inflated(response):
    return gzip.decompress(response.content) if "Content-Encoding" in response else response.content


def body_of(response):
    return b"".join(response.streaming_content) if response.streaming else response.content


def test_headers_of_one_answer_or_one_connection_are_not_kept(served, settings):
    settings.IDEMPOTENCY_DROP_HEADERS = ["X-Trace"]
    dropped = {
        "Date": "Mon, 01 Jan 2001 00:00:00 GMT",
        "Server": "s",
        "WWW-Authenticate": "Basic",
        "Connection": "close",
        "Transfer-Encoding": "chunked",
        "X-Trace": "1",
    }

    def response():
        response = HttpResponse("x", headers={**dropped, "X-Own": "yes"})
        response.set_cookie("session", "secret")
        return response

    send = served(answering(response))
    send()
    replay = send()

    assert not set(dropped) & set(replay.headers)
    assert not replay.cookies
    assert replay["X-Own"] == "yes"
    assert "secret" not in str(IdempotencyRecord.objects.values())


def test_rate_limits_and_request_ids_are_not_kept_by_default(served):
    headers = {"X-Request-ID": "1", "RateLimit-Remaining": "9", "X-RateLimit-Limit": "10"}
    send = served(answering(lambda: HttpResponse("x", headers=headers)))
    send()

    assert not set(headers) & set(send().headers)


def test_view_that_compresses_is_kept_as_it_was_before(served):
    view = idempotent_view(gzip_page(lambda request: HttpResponse(b"long " * 200)))
    send = served(view)

    first = send(headers={"Accept-Encoding": "gzip"})
    second = send()

    assert gzip.decompress(first.content) == second.content == b"long " * 200
    assert "Content-Encoding" not in second


@pytest.mark.parametrize(
    "response",
    [
        lambda: HttpResponse(b"??", headers={"Content-Encoding": "br"}),
        lambda: HttpResponse(b"not gzip", headers={"Content-Encoding": "gzip"}),
        lambda: HttpResponse(b"x" * 101),
        lambda: StreamingHttpResponse([b"a", b"b"]),
        lambda: file_of(b"x" * 101),
    ],
)
def test_body_that_cannot_be_kept_is_never_run_again(served, settings, response):
    settings.IDEMPOTENCY_MAX_BODY = 100
    send = served(answering(response))

    assert body_of(send()) == body_of(response())
    replay = send()

    assert (replay.status_code, problem(replay)) == (409, "replay-unavailable")
    assert replay.json()["retry"] == {"same_key": False}
    assert Effect.objects.count() == 1


def test_body_that_cannot_be_kept_is_found_where_it_was_made(served, settings):
    settings.IDEMPOTENCY_MAX_BODY = 10
    headers = {"Location": "/orders/1/"}
    send = served(answering(lambda: HttpResponse(b"x" * 11, status=201, headers=headers)))
    send()

    replay = send()

    assert (replay.status_code, replay["Location"]) == (303, "/orders/1/")
    assert replay["Idempotent-Replayed"] == "true"


def test_stream_is_kept_if_it_is_to_be_read(served, settings):
    view = idempotent_view(buffer=True)(lambda request: StreamingHttpResponse([b"a", b"b"]))
    send = served(view)

    assert body_of(send()) == b"ab"
    assert send().content == b"ab"

    settings.IDEMPOTENCY_MAX_BODY = 1
    assert body_of(send("another-key-to-be-sent")) == b"ab"
    assert send("another-key-to-be-sent").status_code == 409


def test_stream_that_is_not_kept_is_not_read_either(served):
    read = []

    def stream():
        read.append(Effect.objects.count())
        yield b"a"

    send = served(answering(lambda: StreamingHttpResponse(stream())))
    response = send()

    assert read == []
    assert body_of(response) == b"a"


# What is released.

FREEING = [401, 403, 407, 408, 409, 413, 415, 423, 425, 429]


@pytest.mark.parametrize("mode", ["atomic", "lease"])
@pytest.mark.parametrize("status", FREEING)
def test_answer_that_another_try_may_change_releases_the_key_and_keeps_its_writes(
    served, status, mode
):
    @idempotent_view(mode=mode)
    def view(request):
        effect(request)
        return HttpResponse(status=status)

    send = served(view)

    assert [send().status_code, send().status_code] == [status, status]
    assert Effect.objects.count() == 2
    assert IdempotencyRecord.objects.get().state == "released"


@pytest.mark.parametrize("mode", ["atomic", "lease"])
@pytest.mark.parametrize("failure", [500, 503, Http404, PermissionDenied, ZeroDivisionError])
def test_failure_undoes_its_writes_and_releases_the_key(served, failure, mode):
    answers = iter([failure, 201])

    @idempotent_view(mode=mode)
    def view(request):
        effect(request)
        answer = next(answers)
        if isinstance(answer, int):
            return HttpResponse(status=answer)
        raise answer

    send = served(view)
    first = send()
    assert first.status_code in (500, 503, 404, 403)
    assert not Effect.objects.exists()

    assert send().status_code == 201
    assert Effect.objects.count() == 1


@pytest.mark.parametrize("mode", ["atomic", "lease"])
@pytest.mark.parametrize(("failure", "status"), [(503, 503), (Http404, 404), (ValueError, 500)])
def test_failure_is_replayed_if_it_is_to_be_stored(served, failure, status, mode):
    calls = []

    @idempotent_view(mode=mode, on_error="store")
    def view(request):
        calls.append(effect(request))
        if isinstance(failure, int):
            return HttpResponse("failed", status=failure)
        raise failure

    send = served(view)
    first, second = send(), send()

    assert (first.status_code, second.status_code) == (status, status)
    assert second.content == first.content
    assert second["Idempotent-Replayed"] == "true"
    assert len(calls) == 1
    assert not Effect.objects.exists()


@pytest.mark.parametrize("mode", ["atomic", "lease"])
def test_failure_is_unknown_if_it_is_to_block(served, mode):
    send = served(idempotent_view(mode=mode, on_error="block")(lambda request: 1 / 0))

    assert send().status_code == 500
    second = send()

    assert (second.status_code, problem(second)) == (409, "outcome-unknown")
    assert second.json()["retry"] == {"same_key": True}


@pytest.mark.parametrize(
    ("status", "final", "runs"), [(409, True, 1), (201, False, 2), (500, True, 1)]
)
def test_final_decides_in_place_of_the_table(served, status, final, runs):
    @idempotent_view(final=lambda response: final)
    def view(request):
        effect(request)
        return HttpResponse(status=status)

    send = served(view)
    send()
    send()

    assert Effect.objects.count() == runs


def test_view_that_answers_nothing_undoes_its_writes(served):
    send = served(idempotent_view(lambda request: effect(request) and None))

    assert send().status_code == 500
    assert not Effect.objects.exists()


# What happens at once.


@committing
@pytest.mark.parametrize("mode", ["atomic", "lease"])
def test_twin_is_turned_away_until_the_first_is_through(served, mode):
    if connection.vendor == "sqlite" and mode == "atomic":
        pytest.skip("SQLite lets the twin wait until the first is through")
    gate = Gate()

    @idempotent_view(mode=mode)
    def view(request):
        gate.pass_through()
        return effect(request)

    send = served(view)
    with standing_at(gate, send) as results:
        twin = send()
        other = send(body=b'{"a": 2}')
    after, other_after = send(), send(body=b'{"a": 2}')

    assert (twin.status_code, problem(twin)) == (409, "request-in-progress")
    assert int(twin["Retry-After"]) == twin.json()["retry"]["after"] >= 1
    assert twin.json()["retry"]["same_key"] is True
    assert other.status_code == (422 if mode == "lease" else 409)
    assert after.content == results[0].content
    assert other_after.status_code == 422
    assert Effect.objects.count() == 1


def test_expired_answer_makes_the_request_new(served):
    send = served(idempotent_view(effect))
    send()
    end_retention()

    assert "Idempotent-Replayed" not in send(body=b'{"a": 2}')
    assert Effect.objects.count() == 2


@committing
def test_store_that_is_away_is_a_503(served, store_away, caplog):
    send = served(idempotent_view(effect))
    store_away()

    response = send()

    assert (response.status_code, problem(response)) == (503, "idempotency-unavailable")
    assert (response["Retry-After"], response.json()["retry"]) == (
        "1",
        {"same_key": True, "after": 1},
    )
    assert not Effect.objects.exists()
    ours = [each for each in caplog.records if each.name == "idempotency"]
    assert [each.levelname for each in ours] == ["WARNING"]
    assert "column" in ours[0].message  # What the database said.
    assert KEY not in caplog.text


@committing
def test_store_that_is_not_migrated_is_a_500_for_the_operator(served, not_migrated, caplog):
    response = served(idempotent_view(effect))()

    assert (response.status_code, response.get("Retry-After")) == (500, None)
    assert "manage.py migrate idempotency --database default" in caplog.text
    assert not Effect.objects.exists()


@committing
def test_lock_that_is_not_migrated_is_a_500_for_the_operator(served, not_migrated, caplog):
    response = served(lock("served")(effect))()

    assert (response.status_code, response.get("Retry-After")) == (500, None)
    assert "manage.py migrate idempotency --database default" in caplog.text
    assert not Effect.objects.exists()


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (LockUnavailable(retry_after=3), 409, "locked"),
        (StaleObject(), 409, "stale-object"),
        (TransitionConflict(), 409, "transition-conflict"),
    ],
)
def test_errors_of_ours_from_the_view_are_told_as_problems(served, error, status, kind):
    def view(request):
        effect(request)
        raise error

    response = served(idempotent_view(view))()

    assert (response.status_code, problem(response)) == (status, kind)
    assert not Effect.objects.exists()


def test_lost_claim_is_told_as_a_request_in_progress(served):
    if connection.vendor == "sqlite":
        pytest.skip("no other writer while one works")

    @idempotent_view(mode="lease")
    def view(request):
        end_leases()
        IdempotencyRecord.objects.update(token=1)
        return effect(request)

    response = served(view)()

    assert (response.status_code, problem(response)) == (409, "request-in-progress")
    assert not Effect.objects.exists()


def test_every_error_has_a_problem_of_its_own():
    from idempotency import exceptions

    errors = {
        getattr(exceptions, name)
        for name in exceptions.__all__
        if name not in ("IdempotencyError", "InvalidBackend", "LockReentered")
    }

    assert errors == set(PROBLEMS)
    assert issubclass(KeyReused, exceptions.IdempotencyError)


def test_view_and_what_surrounds_it_may_ask_for_the_key(served):
    told = []

    def around(request):
        response = view(request)
        told.append((request.idempotency.key, request.idempotency.replayed))
        return response

    @idempotent_view
    def view(request):
        told.append(request.idempotency.replayed)
        return effect(request)

    send = served(around)
    send()
    send()

    assert told == [False, (KEY, False), (KEY, True)]


def test_view_that_is_called_again_after_its_run_is_replayed(served):
    protected = idempotent_view(effect)

    def twice(request):
        request.idempotency = "something of the project's own"
        first = protected(request)
        return JsonResponse({"same": first.content == protected(request).content})

    assert served(twice)().json() == {"same": True}
    assert Effect.objects.count() == 1


# Transactions.


@committing
@pytest.mark.parametrize("requests", ["atomic", "plain"])
@pytest.mark.parametrize("mode", ["atomic", "lease"])
def test_answer_leaves_after_its_effects_were_committed(request, served, requests, mode):
    if requests == "atomic":
        request.getfixturevalue("atomic_requests")

    @idempotent_view(mode=mode)
    def view(request):
        assert len(connection.savepoint_ids) == 0
        assert connection.in_atomic_block
        return effect(request)

    send = served(view)

    assert send().status_code == 201
    assert not connection.in_atomic_block
    assert send()["Idempotent-Replayed"] == "true"


@committing
def test_twin_is_turned_away_under_atomic_requests_too(served, atomic_requests):
    test_twin_is_turned_away_until_the_first_is_through(served, "lease")


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
@pytest.mark.parametrize("failure", [400, 500, ValueError])
def test_failure_under_atomic_requests_undoes_writes_in_every_database(
    served, atomic_requests, monkeypatch, failure
):
    monkeypatch.setitem(connections["other"].settings_dict, "ATOMIC_REQUESTS", True)
    answers = iter([failure, 201])

    @idempotent_view
    def view(request):
        Effect.objects.create(name="default")
        Effect.objects.using("other").create(name="other")
        answer = next(answers)
        if isinstance(answer, int):
            return HttpResponse(status=answer)
        raise answer

    send = served(view)
    first, second = send(), send()

    counts = {Effect.objects.using(alias).count() for alias in connections}
    assert counts == {1}
    if failure == 400:
        assert (second.status_code, second["Idempotent-Replayed"]) == (first.status_code, "true")
    else:
        assert second.status_code == 201


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_request_without_a_key_keeps_the_transaction_of_atomic_requests(served, atomic_requests):
    def view(request):
        assert connection.in_atomic_block
        assert not connections["other"].in_atomic_block
        effect(request)
        raise ZeroDivisionError

    send = served(idempotent_view(required=False)(view))

    assert send(None).status_code == 500
    assert not Effect.objects.exists()


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_store_in_another_database_takes_part_in_its_transaction(served, settings):
    settings.IDEMPOTENCY_STORES = {"default": {}, "second": {"OPTIONS": {"using": "other"}}}

    @idempotent_view(store="second")
    def view(request):
        Effect.objects.using("other").create(name="other")
        return HttpResponse(status=500)

    assert served(view)().status_code == 500
    assert not Effect.objects.using("other").exists()
    assert not IdempotencyRecord.objects.using("other").exists()


def test_urls_without_a_name_have_an_operation_too(served):
    send = served(idempotent_view(effect), path("nameless/", idempotent_view(effect)))

    assert send(path="/nameless/").status_code == 201
    assert IdempotencyRecord.objects.get().operation == "POST tests.test_http.effect"


def test_upload_that_breaks_off_is_a_400_and_runs_nothing(served):
    class Broken(io.BytesIO):
        def read(self, *args):
            raise OSError("reset by peer")

    view = idempotent_view(effect)
    served(view)
    for content_type, length in [
        ("application/json", "10"),
        ("multipart/form-data; boundary=b", "10"),
        ("multipart/form-data; boundary=b", "9000000"),
    ]:
        request = RequestFactory().post("/", headers={"Idempotency-Key": KEY})
        environ = {**request.environ, "wsgi.input": Broken()}
        environ |= {"CONTENT_TYPE": content_type, "CONTENT_LENGTH": length}

        response = view(WSGIRequest(environ))

        assert (response.status_code, problem(response)) == (400, "body-invalid")
    assert not Effect.objects.exists()


class Cutting:
    """Serves a view as wsgiref, gunicorn and granian do: they cut a body without a word."""

    def __init__(self, content_type, body):
        self.content_type, self.body = content_type, body
        self.client = Client(raise_request_exception=False)

    def post(self, arrived, method="POST", **headers):
        headers |= {"Idempotency-Key": KEY}
        environ = {"CONTENT_TYPE": self.content_type, "CONTENT_LENGTH": str(len(self.body))}
        environ["wsgi.input"] = io.BytesIO(self.body[:arrived])
        return self.client.generic(method, "/served/", headers=headers, **environ)

    def expect_one_effect(self, arrived, **options):
        cut, first, again = (self.post(size, **options) for size in (arrived, None, None))

        assert (cut.status_code, problem(cut)) == (400, "body-invalid")
        assert (first.status_code, again.content) == (201, first.content)
        assert again["Idempotent-Replayed"] == "true"
        assert Effect.objects.count() == 1


FORM, FORM_TYPE = multipart_of("x", ("a", "1", ""), ("f", "text", "f.txt"))


@pytest.fixture
def protections(settings):
    def protect(kind, view):
        if kind == "middleware":
            ours = "idempotency.middleware.IdempotencyMiddleware"
            settings.MIDDLEWARE = [*settings.MIDDLEWARE, ours]
            return view
        own = {"fingerprint": lambda request: request.POST.get("a")} if kind != "decorator" else {}
        return idempotent_view(**own)(view)

    return protect


@pytest.mark.parametrize("protected", ["decorator", "middleware", "fingerprint"])
@pytest.mark.parametrize(
    ("content_type", "body", "arrived"),
    [
        ("application/json", b'{"a": 1}  ', 8),
        ("application/x-www-form-urlencoded", b"name=ann&age=41", 14),
        ("text/plain", b"all of it", 5),
        ("", b"all of it", 0),
        *[(FORM_TYPE, FORM, len(FORM) - missing) for missing in (1, 8, 40)],
    ],
)
def test_body_that_is_cut_without_a_word_runs_nothing(
    served, protections, protected, content_type, body, arrived
):
    served(csrf_exempt(protections(protected, effect)))

    Cutting(content_type, body).expect_one_effect(arrived)


@pytest.mark.parametrize("protected", ["decorator", "middleware", "fingerprint"])
@pytest.mark.parametrize("missing", [1, 8, 40])
@pytest.mark.parametrize("most", [4, 2_621_440])
@pytest.mark.parametrize("is_read_before", [False, True])
def test_upload_that_is_cut_runs_nothing_whoever_has_read_it(
    served, settings, protections, protected, missing, most, is_read_before
):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = most
    served(csrf_exempt(protections(protected, effect)))
    if is_read_before:
        settings.MIDDLEWARE = [f"{__name__}.ReadsForms", *settings.MIDDLEWARE]

    Cutting(FORM_TYPE, FORM).expect_one_effect(len(FORM) - missing)


def test_form_that_is_cut_under_the_check_for_csrf_runs_nothing(served):
    served(idempotent_view(effect))
    token = "a" * 32
    cutting = Cutting(FORM_TYPE, FORM)
    cutting.client = Client(enforce_csrf_checks=True)
    cutting.client.cookies["csrftoken"] = token

    cutting.expect_one_effect(len(FORM) - 40, **{"X-CSRFToken": token})


class ReadsForms:
    """Reads a form before the view is called, as the check for CSRF does."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        return self.get_response(request)

    def process_view(self, request, *args):
        request.POST.get("token")


@pytest.mark.parametrize("read", ["read", "readline", "pieces"])
@pytest.mark.parametrize("mode", ["atomic", "lease"])
def test_what_a_view_itself_has_read_of_a_cut_body_is_undone(served, settings, read, mode):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 4

    @idempotent_view(fingerprint=lambda request: request.headers.get("Digest"), mode=mode)
    def view(request):
        effect(request)
        if read == "pieces":
            while request.read(4):
                pass
        elif read == "readline":
            list(request)
        else:
            request.read()
        return HttpResponse(status=201)

    served(csrf_exempt(view))

    Cutting("text/plain", b"a line\nand another one\n").expect_one_effect(9)


@pytest.mark.django_db(transaction=True)
def test_cut_body_that_an_asynchronous_view_has_read_keeps_no_answer(served, settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 4

    @idempotent_view(fingerprint=lambda request: request.headers.get("Digest"))
    async def view(request):
        return HttpResponse(request.read(), status=201)

    served(csrf_exempt(view))
    cutting = Cutting("text/plain", b"all of it")

    cut, first, again = (cutting.post(size) for size in (6, None, None))

    assert (cut.status_code, problem(cut)) == (400, "body-invalid")
    assert first.content == again.content == b"all of it"


def test_body_that_is_counted_is_still_what_the_server_gives():
    given = io.BytesIO(b"one\ntwo\nthree")
    environ = {"HTTP_IDEMPOTENCY_KEY": KEY, "CONTENT_LENGTH": "13", "wsgi.input": given}
    count_body(environ)
    counted = environ["wsgi.input"]

    assert (counted.read(2), counted.readline(), list(counted)) == (
        b"on",
        b"e\n",
        [b"two\n", b"three"],
    )
    assert counted.tell() == 13
    assert (counted.missing, counted.has_ended) == (0, True)


@pytest.mark.parametrize("body", [b'{"a":null,"b":1}', b'{"b":1}'])
def test_body_that_a_middleware_makes_shorter_is_whole(served, settings, body):
    settings.MIDDLEWARE = [f"{__name__}.without_nulls", *settings.MIDDLEWARE]
    send = served(idempotent_view(effect))

    assert [send(body=body).status_code for _ in range(2)] == [201, 201]
    assert send(body=b'{"b":1}')["Idempotent-Replayed"] == "true"


def without_nulls(get_response):
    def leave_out(request):
        kept = {name: value for name, value in json.loads(request.body).items() if value}
        request._body = json.dumps(kept).encode()
        return get_response(request)

    return leave_out


class Stopping(FileUploadHandler):
    def receive_data_chunk(self, raw_data, start):
        raise StopUpload(connection_reset=True)

    def file_complete(self, file_size):
        """Give no file."""


def stopping(get_response):
    def stop(request):
        request.upload_handlers = [Stopping(request)]
        return get_response(request)

    return stop


def test_upload_that_a_handler_stops_is_left_to_the_view(served, settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 40
    settings.MIDDLEWARE = [f"{__name__}.stopping", *settings.MIDDLEWARE]
    body, content_type = multipart_of("x", ("a", "1", ""), ("f", "text" * 50_000, "f.txt"))
    send = served(idempotent_view(lambda request: HttpResponse(status=413)))

    response = send(body=body, content_type=content_type)

    assert (response.status_code, response.content) == (413, b"")


def test_body_that_was_unpacked_on_its_way_may_be_shorter(served, settings):
    settings.MIDDLEWARE = [f"{__name__}.unpacking", *settings.MIDDLEWARE]
    send = served(idempotent_view(effect))

    assert [send(body=gzip.compress(b"{}")).status_code for _ in range(2)] == [201, 201]


def unpacking(get_response):
    def unpack(request):
        request._stream = io.BytesIO(gzip.decompress(request.read()))
        request._read_started = False
        return get_response(request)

    return unpack


def test_upload_with_too_many_fields_is_a_400(served, settings):
    settings.DATA_UPLOAD_MAX_NUMBER_FIELDS = 1
    body, content_type = multipart_of("x", ("a", "1", ""), ("b", "2", ""))

    response = served(idempotent_view(effect))(KEY, body, content_type=content_type)

    assert (response.status_code, problem(response)) == (400, "body-invalid")


def test_field_of_an_upload_that_is_too_large_is_a_413(served, settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 100
    body, content_type = multipart_of("x", ("a", "1" * 200, ""))

    response = served(idempotent_view(effect))(KEY, body, content_type=content_type)

    assert (response.status_code, problem(response)) == (413, "body-too-large")


def test_large_upload_without_parts_is_a_400(served, settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 10

    response = served(idempotent_view(effect))(
        KEY, b"x" * 100, content_type="multipart/form-data; boundary=b"
    )

    assert (response.status_code, problem(response)) == (400, "body-invalid")


@pytest.mark.parametrize("depth", [100, 900, 5_000])
def test_deep_body_is_run_or_refused_but_never_a_500(served, depth):
    body = b"[" * depth + b"]" * depth

    response = served(idempotent_view(effect))(KEY, body)

    assert response.status_code in (201, 400)
    assert Effect.objects.count() == (response.status_code == 201)


def test_interruption_of_a_view_that_stores_errors_releases_the_key(served):
    def interrupted(request):
        raise KeyboardInterrupt

    send = served(idempotent_view(on_error="store")(interrupted), client=Client())

    with pytest.raises(KeyboardInterrupt):
        send()
    assert IdempotencyRecord.objects.get().state == "released"
