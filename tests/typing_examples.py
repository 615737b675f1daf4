"""Uses of the public names that mypy must understand; never run."""

from typing import ClassVar, assert_type

from django.db import models
from django.db.models import QuerySet
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
from idempotency.fencing import guard
from idempotency.keys import uuid7
from idempotency.locks import current_lock
from idempotency.models import FencedModel, IdempotencyRecord, VersionedManager, VersionedModel
from idempotency.optimistic import VersionField, retry_stale
from idempotency.pessimistic import (
    atomic_retry,
    declare_effect,
    get_or_create_locked,
    lock_row,
    lock_rows,
    lock_timeout,
)
from idempotency.testing import CrashPoint, Finish, Interleaving, crash_points, interleavings, race
from idempotency.transitions import (
    TransitionLog,
    TransitionOutcome,
    TransitionsMixin,
    log_of,
    state_chart,
    transition,
)


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


class Shelf(VersionedModel):
    stock = models.IntegerField(default=0)

    def __str__(self) -> str:
        return str(self.stock)


class SheetManager(VersionedManager["Sheet"]):
    pass


class Sheet(VersionedModel):
    version = None  # type: ignore[assignment]
    revision = VersionField()

    objects = SheetManager()

    def __str__(self) -> str:
        return str(self.revision)


@retry_stale
def restock(shelf: int, *, by: int) -> int:
    row = Shelf.objects.get(pk=shelf)
    row.stock += by
    row.save()
    assert_type(row.version, int)
    row.touch()
    assert_type(Shelf.objects.bulk_update([row], ["stock"]), list[Shelf])
    return row.stock


@retry_stale(attempts=9, using="other")
def rename(sheet: Sheet) -> str:
    assert_type(sheet.revision, int)
    return str(sheet)


@atomic_retry
def move(source: int, target: int) -> list[Shelf]:
    with lock_timeout(2, using="default"):
        rows = lock_rows(Shelf.objects.filter(pk__in=[source, target]), wait=1)
    declare_effect("a mail was sent")
    return rows


@atomic_retry(attempts=9)
def lock(shelf: Shelf) -> None:
    assert_type(lock_row(shelf), Shelf)
    assert_type(lock_row(Shelf, pk=1, wait=0), Shelf)
    assert_type(lock_row(Shelf.objects, pk=1), Shelf)
    assert_type(lock_row(Shelf.objects.filter(stock=1), many=True, skip_locked=True), Shelf | None)
    assert_type(lock_rows(Shelf), list[Shelf])
    assert_type(get_or_create_locked(Shelf, pk=1, defaults={"stock": 1}), tuple[Shelf, bool])


def change_rows(shelf: Shelf, sheet: Sheet) -> None:
    assert_type(restock(1, by=2), int)
    assert_type(rename(sheet), str)
    assert_type(move(1, 2), list[Shelf])
    lock(shelf)
    restock("1", by=2)  # type: ignore[arg-type]


def prove() -> None:
    for point in crash_points(handle):
        assert_type(point, CrashPoint)
    for interleaving in interleavings(handle, handle):
        assert_type(interleaving, Interleaving)
    assert_type(race(handle, processes=2), list[Finish])


def is_due(order: VersionedModel) -> bool:
    return True


class Order(TransitionsMixin, VersionedModel):
    class Meta:
        app_label = "orders"

    @transition("status", source="open", target="paid", conditions=[is_due])
    def pay(self, amount: int) -> str:
        return str(amount)


def pay_order(order: Order) -> None:
    outcome: TransitionOutcome = order.pay(1, by="bank", note="transfer 77")
    assert_type(outcome.repeated, bool)
    assert_type(log_of(order), QuerySet[TransitionLog])
    assert_type(state_chart(Order, "status"), str)


class Counter(FencedModel):
    last = models.IntegerField(default=0)

    objects: ClassVar[models.Manager["Counter"]] = models.Manager()

    class Meta:
        app_label = "orders"

    def __str__(self) -> str:
        return str(self.last)


def count_up(counter: Counter, claim: RunningClaim) -> None:
    held = current_lock()
    assert held is not None
    counter.save(held=held, update_fields=["last"])
    assert_type(guard(Counter.objects.filter(pk=1), held).update(last=2), int)
    assert_type(guard(Counter, claim, field="seen_token").delete(), int)
    assert_type(counter.fence, int)
    counter.delete(held=claim)
    counter.save(held="a lock")  # type: ignore[arg-type]


async def acount_up(counter: Counter, claim: RunningClaim) -> None:
    await counter.asave(held=claim)
    assert_type(await guard(Counter.objects, claim).aupdate(last=2), int)
