"""The schema of an API of Django REST framework says which actions are protected."""

import json

import pytest
from django.urls import path
from drf_spectacular.drainage import GENERATOR_STATS
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.openapi import AutoSchema as TheirSchema
from drf_spectacular.utils import OpenApiParameter, extend_schema
from drf_spectacular.validation import validate_schema
from rest_framework.routers import SimpleRouter
from rest_framework.views import APIView

from idempotency.contrib.spectacular import AutoSchema, IdempotentSchemaMixin
from tests.test_drf import Effects, EffectSerializer, Generic, Plain

PROBLEMS = {"400", "409", "422", "503"}


def schema_of(*patterns):
    GENERATOR_STATS.reset()
    schema = SchemaGenerator(patterns=list(patterns)).get_schema(public=True)
    validate_schema(schema)
    json.dumps(schema)
    return schema["paths"]


def headers_of(operation):
    parameters = operation.get("parameters", [])
    return {one["name"]: one["required"] for one in parameters if one["in"] == "header"}


class Described(Effects):
    schema = AutoSchema()
    idempotent_actions = {"create": {"required": False}, "pay": {}}


@pytest.fixture
def paths():
    router = SimpleRouter()
    router.register("effects", Described, basename="effect")
    return schema_of(*router.urls)


def test_protected_actions_have_the_header_and_the_problems(paths):
    create, pay = paths["/effects/"]["post"], paths["/effects/{id}/pay/"]["post"]

    assert (headers_of(create), headers_of(pay)) == (
        {"Idempotency-Key": False},
        {"Idempotency-Key": True},
    )
    assert set(create["responses"]) == {*PROBLEMS, "201"}
    assert set(create["responses"]["201"]["headers"]) == {"Idempotent-Replayed"}
    assert create["responses"]["409"]["headers"].keys() == {"Retry-After"}


def test_safe_actions_and_unprotected_ones_have_neither(paths):
    safe = paths["/effects/"]["get"]

    assert headers_of(safe) == {}
    assert not PROBLEMS & set(safe["responses"])

    class Chosen(Generic):
        schema = AutoSchema()
        idempotent_actions = ()

    class Bare(APIView):
        schema = AutoSchema()
        serializer_class = EffectSerializer

        def post(self, request):
            """Do something."""

    for view in (Chosen, Bare):
        operation = schema_of(path("x/", view.as_view()))["/x/"]["post"]
        assert headers_of(operation) == {}
        assert not PROBLEMS & set(operation["responses"])


def test_methods_that_may_have_a_key_need_none():
    class Documented(Plain):
        schema = AutoSchema()
        serializer_class = EffectSerializer

    operations = schema_of(path("x/", Documented.as_view()))["/x/"]

    assert {name: headers_of(operation) for name, operation in operations.items()} == {
        "get": {},
        "post": {"Idempotency-Key": True},
        "patch": {"Idempotency-Key": True},
        "put": {"Idempotency-Key": False},
        "delete": {"Idempotency-Key": False},
    }


class Own(TheirSchema):
    def get_tags(self):
        return ["mine"]


class Both(IdempotentSchemaMixin, Own):
    pass


def test_what_a_view_says_itself_stays(settings):
    settings.REST_FRAMEWORK = {"DEFAULT_SCHEMA_CLASS": f"{__name__}.Both"}

    class Extended(Generic):
        schema = Both()

        @extend_schema(responses={201: EffectSerializer, 409: EffectSerializer})
        def post(self, request):
            """Make one."""

    operation = schema_of(path("x/", Extended.as_view()))["/x/"]["post"]

    assert operation["tags"] == ["mine"]
    conflict = operation["responses"]["409"]["content"]
    assert "$ref" in conflict["application/json"]["schema"]
    assert "$ref" not in conflict["application/problem+json"]["schema"]
    assert set(operation["responses"]) == {*PROBLEMS, "201"}


def test_header_that_the_view_names_itself_stands_there_once(settings):
    settings.REST_FRAMEWORK = {"DEFAULT_SCHEMA_CLASS": "idempotency.contrib.spectacular.AutoSchema"}

    class Extended(Generic):
        schema = AutoSchema()

        @extend_schema(parameters=[OpenApiParameter("Idempotency-Key", str, "header")])
        def post(self, request):
            """Make one."""

    operation = schema_of(path("x/", Extended.as_view()))["/x/"]["post"]

    assert [one["name"] for one in operation["parameters"]] == ["Idempotency-Key"]


def test_text_for_authors_is_not_told_to_clients(paths):
    class Said(Effects):
        """What clients are told."""

        schema = AutoSchema()

    router = SimpleRouter()
    router.register("said", Said, basename="said")

    assert "description" not in paths["/effects/"]["post"]
    assert schema_of(*router.urls)["/said/"]["post"]["description"] == "What clients are told."
