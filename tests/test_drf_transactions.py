"""Django REST framework under ATOMIC_REQUESTS: a key changes nothing of what belongs together."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.db import connection, connections, transaction
from django.http import HttpResponse
from rest_framework import exceptions, permissions, throttling
from rest_framework.response import Response

from idempotency.models import IdempotencyRecord
from idempotency.signals import record_completed
from tests.conftest import KEY, elsewhere
from tests.models import Effect
from tests.test_drf import Base, effect

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("atomic_requests"),
]
modes = pytest.mark.parametrize("mode", ["atomic", "lease"])
keys = pytest.mark.parametrize("key", [None, KEY])


class Made(Base):
    idempotent_options = {"required": False}

    def post(self, request):
        return Response(effect(), status=201)


def names():
    return sorted(Effect.objects.values_list("name", flat=True))


@keys
@pytest.mark.parametrize("place", ["initial", "dispatch", "initialize_request", "handler"])
def test_error_undoes_whatever_the_view_wrote_before_it(served, key, place):
    class Writing(Made):
        def initial(self, request, *args, **kwargs):
            super().initial(request, *args, **kwargs)
            self.write("initial")

        def dispatch(self, request, *args, **kwargs):
            self.write("dispatch")
            return super().dispatch(request, *args, **kwargs)

        def initialize_request(self, request, *args, **kwargs):
            self.write("initialize_request")
            return super().initialize_request(request, *args, **kwargs)

        def write(self, where):
            if where == place:
                list(User.objects.select_for_update())
                effect(where)

        def post(self, request):
            self.write("handler")
            raise exceptions.ValidationError

    assert served(Writing.as_view())(key=key).status_code == 400
    assert names() == []
    assert not IdempotencyRecord.objects.exists()


@keys
def test_error_after_the_answer_undoes_it(served, key):
    class Late(Made):
        is_broken = True

        def dispatch(self, request, *args, **kwargs):
            response = super().dispatch(request, *args, **kwargs)
            if Late.is_broken:
                raise RuntimeError
            return response

    told = []

    def tell(sender, event, **kwargs):
        told.append(event.outcome)

    record_completed.connect(tell)
    send = served(Late.as_view())
    assert send(key=key).status_code == 500
    Late.is_broken = False
    assert (names(), told) == ([], [])
    assert send(key=key).status_code == 201
    assert (names(), told) == (["e"], ["executed"] * (key is not None))


@keys
def test_handler_of_errors_may_lock_rows(served, key):
    class Locking(Made):
        def handle_exception(self, error):
            list(User.objects.select_for_update())
            return super().handle_exception(error)

        def post(self, request):
            raise exceptions.NotFound

    assert served(Locking.as_view())(key=key).status_code == 404


@keys
@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="a notion of PostgreSQL")
def test_setting_of_the_transaction_lasts_until_its_end(served, key):
    class Tenant(permissions.BasePermission):
        def has_permission(self, request, view):
            with connection.cursor() as cursor:
                cursor.execute("SELECT set_config('app.tenant', '7', true)")
            return True

    class Seeing(Made):
        permission_classes = (Tenant,)

        def post(self, request):
            with connection.cursor() as cursor:
                cursor.execute("SELECT current_setting('app.tenant')")
                return Response(cursor.fetchone())

    assert served(Seeing.as_view())(key=key).json() == ["7"]


@keys
def test_what_waits_for_the_commit_is_dropped_with_it(served, key):
    calls = []

    class Telling(permissions.BasePermission):
        def has_permission(self, request, view):
            transaction.on_commit(lambda: calls.append(1))
            return True

    class Refusing(Made):
        permission_classes = (Telling,)

        def post(self, request):
            raise exceptions.ValidationError

    assert served(Refusing.as_view())(key=key).status_code == 400
    assert calls == []


@modes
def test_what_came_before_is_kept_with_a_replay_and_undone_with_a_refusal(served, mode):
    class Counting(throttling.BaseThrottle):
        def allow_request(self, request, view):
            return bool(effect("asked"))

    class Counted(Made):
        throttle_classes = (Counting,)
        idempotent_options = {"mode": mode}

    send = served(Counted.as_view())
    answers = [send(), send()]
    assert [one.status_code for one in answers] == [201, 201]
    assert answers[1].content == answers[0].content
    assert names() == ["asked", "asked", "e"]
    assert send(body=b'{"other": 1}').status_code == 422
    assert send(key=None).status_code == 400
    # A claim with a lease comes after the end of what was before it.
    assert names() == ["asked", "asked", *["asked"] * (mode == "lease"), "e"]


@pytest.mark.parametrize("on_error", ["block", "store"])
@pytest.mark.parametrize("status", [400, 500])
def test_error_that_is_to_be_kept_outlives_the_transaction(served, on_error, status):
    class Failing(Made):
        idempotent_options = {"on_error": on_error}

        def post(self, request):
            effect()
            raise exceptions.ValidationError if status == 400 else RuntimeError

    send = served(Failing.as_view())
    answers = [send(), send()]
    expected = status if on_error == "store" else 409
    assert [one.status_code for one in answers] == [status, expected]
    assert names() == []


@pytest.mark.parametrize("returned", [503, 409])
def test_returned_status_undoes_or_keeps_as_without_the_setting(served, returned):
    class Returning(Made):
        def post(self, request):
            effect()
            return Response(status=returned)

    send = served(Returning.as_view())
    assert [send().status_code for _ in range(2)] == [returned] * 2
    assert names() == ([] if returned == 503 else ["e", "e"])


@pytest.mark.django_db(databases=["default", "other"], transaction=True)
@pytest.mark.parametrize("store", ["default", "elsewhere"])
def test_error_undoes_what_was_written_to_each_database(served, settings, monkeypatch, store):
    monkeypatch.setitem(connections["other"].settings_dict, "ATOMIC_REQUESTS", True)
    settings.IDEMPOTENCY_STORES = {"default": {}, "elsewhere": {"OPTIONS": {"using": "other"}}}

    class Both(Made):
        idempotent_options = {"store": store}
        is_broken = True

        def post(self, request):
            for alias in ("default", "other"):
                Effect.objects.using(alias).create(name=alias)
            if Both.is_broken:
                raise exceptions.ValidationError
            return Response(status=201)

    send = served(Both.as_view())
    assert [send().status_code for _ in range(2)] == [400, 400]
    Both.is_broken = False
    assert [send().status_code for _ in range(2)] == [201, 201]
    for alias in ("default", "other"):
        assert Effect.objects.using(alias).count() == 1


@pytest.mark.skipif("connection.vendor == 'sqlite'", reason="a file has no connection to lose")
def test_commit_that_nobody_knows_of_is_told_as_that(served, monkeypatch):
    class Losing(Made):
        def dispatch(self, request, *args, **kwargs):
            response = super().dispatch(request, *args, **kwargs)
            monkeypatch.setattr(own, "commit", lose)
            return response

    def lose():
        own.connection.close()
        commit()

    own = connections[connection.alias]
    commit = own.commit
    answer = served(Losing.as_view())()
    monkeypatch.setattr(own, "commit", commit)

    assert (answer.status_code, answer.json()["type"][-11:]) == (503, "unavailable")
    assert "may have taken place" in answer.json()["detail"]
    assert names() == []


def test_view_inside_of_another_one_opens_nothing(served):
    class Inner(Base):
        idempotent_options = {"required": False}

        def post(self, request):
            raise exceptions.ValidationError

    class Outer(Base):
        idempotent_options = {"required": False}

        def post(self, request):
            effect()
            inner = Inner.as_view()(request._request)
            return Response({"inner": inner.status_code})

    assert served(Outer.as_view())(key=None).json() == {"inner": 400}
    assert names() == []


class TestInATestCase:
    """Errors undo what the view did, and not the test around it."""

    pytestmark = pytest.mark.django_db

    @keys
    @modes
    @pytest.mark.django_db(transaction=False)
    def test_test_goes_on_after_an_error(self, served, key, mode):
        class Failing(Made):
            idempotent_options = {"mode": mode, "required": False}

            def post(self, request):
                effect()
                raise exceptions.ValidationError

        Effect.objects.create(name="before")
        send = served(Failing.as_view())
        assert [send(key=key).status_code for _ in range(2)] == [400, 400]
        assert names() == ["before"]


def test_claim_is_seen_by_others_while_the_view_runs(served):
    if connection.vendor == "sqlite":
        pytest.skip("no other writer while one works")
    answers = []

    class Twice(Made):
        def post(self, request):
            elsewhere(lambda: answers.append(send()))
            return super().post(request)

    send = served(Twice.as_view())
    assert send().status_code == 201
    assert [(one.status_code, one.json()["type"][-19:]) for one in answers] == [
        (409, "request-in-progress")
    ]
    assert send(method="get", key=None).status_code == 405
    assert isinstance(send(), HttpResponse)
