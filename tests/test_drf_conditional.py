"""Django REST framework: only the version that the client has seen is changed."""

from __future__ import annotations

import json

import pytest
from django.core.exceptions import ImproperlyConfigured
from rest_framework import serializers
from rest_framework.routers import SimpleRouter
from rest_framework.test import APIRequestFactory
from rest_framework.viewsets import ModelViewSet

from idempotency.contrib.drf import (
    ConditionalMixin,
    IdempotentMixin,
    VersionedSerializerMixin,
)
from tests.conftest import KEY
from tests.models import Account, Effect

pytestmark = pytest.mark.django_db


class AccountSerializer(VersionedSerializerMixin, serializers.ModelSerializer):
    class Meta:
        model = Account
        fields = ("id", "name", "balance", "version")


class Accounts(ConditionalMixin, ModelViewSet):
    queryset = Account.objects.order_by("pk")
    serializer_class = AccountSerializer


class Unconditional(IdempotentMixin, ModelViewSet):
    queryset = Account.objects.order_by("pk")
    serializer_class = AccountSerializer


class Both(IdempotentMixin, Accounts):
    pass


@pytest.fixture
def account():
    return Account.objects.create(name="a", balance=5)


@pytest.fixture
def send(served):
    router = SimpleRouter()
    for name, view in {"accounts": Accounts, "plain": Unconditional, "both": Both}.items():
        router.register(name, view, basename=name)
    sender = served(lambda request: None, *router.urls)

    def send(method, path, body=None, etag=None, key=None):
        headers = {} if etag is None else {"If-Match": etag}
        content = b"" if body is None else json.dumps(body)
        return sender(key, content, method=method, path=path, headers=headers)

    return send


def at(account, kind="accounts"):
    return f"/{kind}/{account.pk}/"


class TestIfMatch:
    def test_answers_about_a_row_have_its_etag(self, send, account):
        made = send("post", "/accounts/", {"name": "b"})
        shown = send("get", at(account))

        assert (made.status_code, shown.status_code) == (201, 200)
        assert made["ETag"].endswith('-1"')
        assert shown["ETag"] == f'"account-{account.pk}-1"'
        assert "ETag" not in send("get", "/accounts/")

    @pytest.mark.parametrize("method", ["put", "patch"])
    def test_change_of_the_version_that_was_seen_is_made(self, send, account, method):
        etag = send("get", at(account))["ETag"]
        response = send(method, at(account), {"balance": 6}, etag)

        assert (response.status_code, response.json()["balance"]) == (200, 6)
        assert response["ETag"] == f'"account-{account.pk}-2"'
        assert response.json()["version"] == 2

    @pytest.mark.parametrize("method", ["put", "patch", "delete"])
    def test_change_of_another_version_is_refused_with_the_current_one(self, send, account, method):
        etag = send("get", at(account))["ETag"]
        account.save()
        response = send(method, at(account), {"balance": 6}, etag)

        assert response.status_code == 412
        assert response["Content-Type"] == "application/problem+json"
        assert response["ETag"] == f'"account-{account.pk}-2"'
        assert Account.objects.get().balance == 5

    @pytest.mark.parametrize("method", ["put", "patch", "delete"])
    def test_condition_is_required_and_has_to_be_one(self, send, account, method):
        assert send(method, at(account), {"balance": 6}).status_code == 428
        assert send(method, at(account), {"balance": 6}, "nonsense").status_code == 400

    def test_row_that_is_gone_has_no_version(self, send, account):
        path = at(account)
        account.delete()

        assert send("patch", path, {}, "*").status_code == 412
        assert send("get", path).status_code == 404

    def test_row_is_deleted_once(self, send, account):
        etag = send("get", at(account))["ETag"]

        deleted = send("delete", at(account), None, etag)
        assert (deleted.status_code, "ETag" in deleted) == (204, False)
        assert send("delete", at(account), None, etag).status_code == 412

    def test_change_that_came_in_between_is_told_as_a_failed_condition(self, served, account):
        class Slow(Accounts):
            def perform_update(self, serializer):
                Account.objects.get(pk=account.pk).save()
                super().perform_update(serializer)

        router = SimpleRouter()
        router.register("slow", Slow, basename="slow")
        sender = served(lambda request: None, *router.urls)

        def change(etag):
            return sender(
                None,
                b'{"balance": 6}',
                method="patch",
                path=f"/slow/{account.pk}/",
                headers={"If-Match": etag},
            )

        assert change(f'"account-{account.pk}-1"').status_code == 412
        told = change("*")
        assert (told.status_code, told.json()["type"][-12:]) == (409, "stale-object")
        assert told["ETag"] == f'"account-{account.pk}-3"'

    def test_view_of_rows_without_a_version_is_refused_loudly(self):
        class Wrong(Accounts):
            queryset = Effect.objects.all()

        view = Wrong.as_view({"get": "retrieve"})
        with pytest.raises(TypeError, match="has no version"):
            view(APIRequestFactory().get("/"), pk=Effect.objects.create(name="e").pk)


class TestSerializer:
    def test_version_goes_out_and_comes_in(self, send, account):
        shown = send("get", at(account, "plain")).json()
        first = send("patch", at(account, "plain"), {**shown, "balance": 6}, key=KEY)
        second = send("patch", at(account, "plain"), {**shown, "balance": 6}, key=KEY)

        assert (first.status_code, first.json()["version"]) == (200, 2)
        assert second.content == first.content
        assert Account.objects.get().version == 2

    def test_stale_version_is_refused(self, send, account):
        shown = send("get", at(account, "plain")).json()
        account.save()
        response = send("patch", at(account, "plain"), {**shown, "balance": 6}, key=KEY)

        assert (response.status_code, response.json()["type"][-12:]) == (409, "stale-object")
        assert response["ETag"] == f'"account-{account.pk}-2"'
        assert Account.objects.get().balance == 5

    @pytest.mark.parametrize("method", ["put", "patch"])
    @pytest.mark.parametrize("version", [None, 0, "x"])
    def test_version_cannot_be_left_out(self, send, account, method, version):
        body = {"name": "b", "balance": 6} | ({} if version is None else {"version": version})
        response = send(method, at(account, "plain"), body, key=KEY)

        assert (response.status_code, list(response.json())) == (400, ["version"])
        assert Account.objects.get().balance == 5

    def test_new_row_begins_at_one(self, send):
        made = send("post", "/plain/", {"name": "b", "version": 7}, key=KEY)

        assert (made.status_code, made.json()["version"]) == (201, 1)

    def test_serializer_without_the_version_is_refused(self):
        class Without(AccountSerializer):
            class Meta(AccountSerializer.Meta):
                fields = ("id", "name")

        class Unversioned(VersionedSerializerMixin, serializers.ModelSerializer):
            class Meta:
                model = Effect
                fields = ("id",)

        for wrong in (Without, Unversioned):
            with pytest.raises(ImproperlyConfigured, match="version"):
                wrong().get_fields()


def test_retry_of_a_conditional_change_gets_its_first_answer(send, account):
    etag = f'"account-{account.pk}-1"'
    first, second = (send("patch", at(account, "both"), {"balance": 6}, etag, KEY) for _ in "12")

    assert (first.status_code, second.status_code) == (200, 200)
    assert (second.content, second["ETag"]) == (first.content, first["ETag"])
    assert second["Idempotent-Replayed"] == "true"
    assert send("patch", at(account, "both"), {"balance": 7}, etag, KEY + "2").status_code == 412
