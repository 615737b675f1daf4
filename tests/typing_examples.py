"""Uses of the public names that mypy must understand; never run."""

from typing import assert_type

from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.utils.decorators import method_decorator
from django.views import View

from idempotency import (
    KeyInProgress,
    Outcome,
    RunningClaim,
    arun_once,
    current_claim,
    idempotent,
    idempotent_view,
    run_once,
)
from idempotency.conditional import etag_for, if_match
from idempotency.keys import uuid7
from idempotency.models import IdempotencyRecord, VersionedModel
from idempotency.testing import CrashPoint, Finish, Interleaving, crash_points, interleavings, race


@idempotent_view
def place(request: HttpRequest) -> HttpResponse:
    return HttpResponse(status=201)


@idempotent_view(
    required=False,
    scope=lambda request: "all",
    ignore=("/sent_at",),
    wait=2,
    final=lambda response: response.status_code < 500,
    on_error="store",
)
async def aplace(request: HttpRequest, number: int) -> JsonResponse:
    return JsonResponse({})


@method_decorator(idempotent_view, name="dispatch")
class Place(View):
    def post(self, request: HttpRequest) -> HttpResponseBase:
        return place(request)


def load(request: HttpRequest, number: int) -> VersionedModel:
    raise NotImplementedError


@idempotent_view
@if_match(load, required=False)
def change(request: HttpRequest, row: VersionedModel, number: int) -> HttpResponse:
    return HttpResponse(etag_for(row))


@idempotent(key=lambda number: f"order:{number}")
def handle(number: int) -> str:
    return str(number)


async def use(request: HttpRequest) -> None:
    assert_type(place(request), HttpResponse)
    assert_type(await aplace(request, 1), JsonResponse)
    assert_type(handle(7), str)
    outcome = run_once(lambda: 7, scope="s", operation="o", key=str(uuid7()))
    assert_type(outcome, Outcome[int])
    assert_type(await arun_once(work, scope="s", operation="o", key="k"), Outcome[str])
    assert_type(current_claim(), RunningClaim | None)
    assert_type(IdempotencyRecord.objects.get().state, str)


async def work() -> str:
    try:
        return "done"
    except KeyInProgress as error:
        assert_type(error.retry_after, float | None)
        raise


def prove() -> None:
    for point in crash_points(handle):
        assert_type(point, CrashPoint)
    for interleaving in interleavings(handle, handle):
        assert_type(interleaving, Interleaving)
    assert_type(race(handle, processes=2), list[Finish])
