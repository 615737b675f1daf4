"""Rows that only the newest holder of their lock writes."""

import pickle
from types import SimpleNamespace

import pytest
from django.core import serializers
from django.db import IntegrityError, NotSupportedError, transaction
from django.db.models import Count, F

from idempotency import StaleLock, StaleObject, current_claim, lock, run_once
from idempotency import models as idempotency_models
from idempotency.fencing import FencedModel, guard
from idempotency.locks import current_lock
from tests.conftest import run_async
from tests.models import (
    Effect,
    FencedSheet,
    Meter,
    Place,
    SmartMeter,
    Tank,
    TownMeter,
    Valve,
    VersionedMeter,
)

pytestmark = pytest.mark.django_db
committing = pytest.mark.django_db(transaction=True)

ALL = [Meter, SmartMeter, TownMeter, VersionedMeter, FencedSheet, Valve]
every_model = pytest.mark.parametrize("model", ALL)

OLD, MINE, NEW = (SimpleNamespace(token=token) for token in (5, 6, 7))


def create(model, **values):
    town = {"town": "Rome"} if model is TownMeter else {}
    return model.objects.create(**town, **values)


def other(row):
    """Give a second object for the same row, as another holder would read it."""
    return type(row).objects.get(pk=row.pk)


def stored(row):
    return type(row).objects.values_list("reading", "fence").get(pk=row.pk)


def written_by(row, held, reading=99):
    guard(type(row).objects.filter(pk=row.pk), held).update(reading=reading)


@pytest.fixture
def meter():
    return Meter.objects.create(name="A")


def test_the_model_is_found_beside_the_others():
    assert idempotency_models.FencedModel is FencedModel


# Saves


@every_model
def test_save_writes_the_row_and_its_fence(model):
    row = create(model)
    row.reading = 1

    row.save(held=MINE)

    assert row.fence == 6
    assert stored(row) == (1, 6)


@every_model
@pytest.mark.parametrize("fields", [None, ["reading"]])
def test_save_of_an_older_holder_touches_nothing(model, fields):
    row = create(model)
    row.reading = 1
    written_by(row, NEW)

    with pytest.raises(StaleLock, match=r"token 6 was lost: its holder with token 7"):
        row.save(held=MINE, update_fields=fields)

    assert (row.reading, row.fence) == (1, 0)
    assert stored(row) == (99, 7)


def save(row):
    row.save(held=MINE)


def save_fields(row):
    row.save(held=MINE, update_fields=["reading"])


def save_with_force(row):
    row.save(held=MINE, force_update=True)


def save_expression(row):
    row.reading = F("reading") + 1
    row.save(held=MINE)


def save_async(row):
    run_async(row.asave(held=MINE))


def delete(row):
    row.delete(held=MINE)


def delete_async(row):
    run_async(row.adelete(held=MINE))


def update(row):
    guard(Meter.objects.filter(pk=row.pk), MINE).update(reading=1)


def update_async(row):
    run_async(guard(Meter.objects.filter(pk=row.pk), MINE).aupdate(reading=1))


def update_many(row):
    guard(Meter, MINE).update(reading=1)


def delete_many(row):
    guard(Meter.objects, MINE).delete()


def delete_many_async(row):
    run_async(guard(Meter.objects.all(), MINE).adelete())


SAVES = [save, save_fields, save_with_force, save_expression, save_async]
WRITES = [*SAVES, delete, delete_async, update, update_async]
WRITES += [update_many, delete_many, delete_many_async]
every_write = pytest.mark.parametrize("write", WRITES)


@committing
@every_write
def test_write_of_an_older_holder_is_refused_and_leaves_the_transaction_usable(write):
    row = Meter.objects.create()
    written_by(row, NEW)

    with pytest.raises(StaleLock):
        write(row)
    if "async" not in write.__name__:
        with transaction.atomic():
            Effect.objects.create(name="before")
            with pytest.raises(StaleLock):
                write(row)
            Effect.objects.create(name="after")
        assert Effect.objects.count() == 2

    assert row.fence == 0
    assert stored(row) == (99, 7)


@committing
@every_write
def test_write_of_the_newest_holder_takes_effect(write):
    row = Meter.objects.create()
    written_by(row, OLD)
    row.refresh_from_db()

    write(row)

    left = Meter.objects.filter(pk=row.pk)
    assert left.exists() is ("delete" not in write.__name__)
    assert not left.exclude(fence=6).exists()


@committing
@pytest.mark.parametrize("write", SAVES)
def test_what_an_earlier_holder_wrote_since_the_read_is_not_overwritten(write):
    row = Meter.objects.create()
    row.reading = 1
    written_by(row, OLD)

    with pytest.raises(StaleObject) as caught:
        write(row)

    assert (caught.value.model, caught.value.pk) == (Meter, row.pk)
    assert row.fence == 0
    assert stored(row) == (99, 5)


def test_delete_of_what_an_earlier_holder_wrote_since_the_read_is_refused(meter):
    written_by(meter, OLD)

    with pytest.raises(StaleObject):
        meter.delete(held=MINE)

    assert stored(meter) == (99, 5)


def test_one_holder_writes_again_and_by_other_objects(meter):
    second = other(meter)
    meter.save(held=MINE)
    meter.save(held=MINE)
    second.reading = 3

    second.save(held=MINE)

    assert stored(meter) == (3, 6)


@every_model
@pytest.mark.parametrize("verb", ["save", "delete"])
def test_write_without_a_lock_says_what_to_do(model, verb):
    row = create(model)

    with pytest.raises(TypeError, match=rf"{verb}\(held=…\)"):
        getattr(row, verb)()

    assert stored(row) == (0, 0)


def test_object_without_a_row_cannot_be_deleted():
    with pytest.raises(ValueError, match="None"):
        Meter().delete(held=MINE)


@pytest.mark.parametrize("held", [None, 7, SimpleNamespace(token="7"), SimpleNamespace(token=True)])
def test_what_has_no_token_guards_nothing(meter, held):
    with pytest.raises(TypeError, match="has none"):
        guard(Meter.objects.filter(pk=meter.pk), held).update(reading=1)

    assert stored(meter) == (0, 0)


@pytest.mark.parametrize("fact", ["lost", "is_over"])
def test_lock_that_is_known_to_be_over_writes_nothing(meter, fact, django_assert_num_queries):
    held = SimpleNamespace(token=7, **{fact: True})

    with django_assert_num_queries(0), pytest.raises(StaleLock, match="no longer held here"):
        guard(Meter.objects.filter(pk=meter.pk), held).update(reading=1)
    with pytest.raises(StaleLock):
        meter.save(held=held)
    with pytest.raises(StaleLock):
        Meter(name="B").save(held=held)

    assert Meter.objects.count() == 1
    assert stored(meter) == (0, 0)


def test_fenced_save_is_two_updates(meter, django_assert_num_queries):
    with django_assert_num_queries(4):  # And the two of a savepoint.
        meter.save(held=MINE)


def test_vanished_row_is_not_inserted_again(meter):
    Meter.objects.all().delete()

    with pytest.raises(StaleObject):
        meter.save(held=MINE)

    assert not Meter.objects.exists()


def test_object_read_without_its_fence_is_not_saved(meter):
    partly = Meter.objects.only("reading").get()

    with pytest.raises(TypeError, match=r"name 'fence' in only\(\)"):
        partly.save(held=MINE)

    Meter.objects.only("reading", "fence").get().save(held=MINE)
    assert stored(meter) == (0, 6)


def test_copy_of_an_object_is_a_new_row(meter):
    meter.pk = None

    meter.save(held=MINE)

    assert sorted(Meter.objects.values_list("fence", flat=True)) == [0, 6]


@pytest.mark.parametrize("model", [VersionedMeter, FencedSheet])
def test_version_and_fence_guard_together(model):
    row = create(model)
    stale = other(row)
    row.reading = 1

    row.save(held=MINE)

    assert (row.version, row.fence) == (2, 6)
    with pytest.raises(StaleObject):
        stale.save(held=MINE)
    with pytest.raises(StaleObject):
        stale.delete(held=MINE)
    with pytest.raises(StaleLock):
        row.save(held=OLD)
    with pytest.raises(StaleLock):
        row.delete(held=OLD)
    assert (stale.version, stale.fence, row.version, row.fence) == (1, 0, 2, 6)
    assert stored(row) == (1, 6)
    assert guard(model.objects.filter(pk=row.pk), MINE).update(reading=2) == 1
    assert guard(model, MINE).update(reading=2) == 1
    row.refresh_from_db()
    assert row.version == 4
    row.delete(held=MINE)
    assert not model.objects.exists()


def test_transition_leaves_the_fence_alone_and_save_the_state():
    row = create(Valve)
    early = other(row)
    row.save(held=MINE)

    row.shut()
    row.refresh_from_db()
    row.save(held=MINE)
    assert (row.state, row.reading, row.fence) == ("shut", 1, 6)

    with pytest.raises(StaleLock):
        early.save(held=OLD)
    early.save(held=MINE)
    assert stored(row) == (0, 6)
    assert other(row).state == "shut"


# New rows


@every_model
def test_new_row_needs_no_lock_and_keeps_that_of_its_maker(model):
    first = create(model)
    values = {"town": "Oslo"} if model is TownMeter else {}
    second = model(**values)
    second.save(held=MINE)

    assert (stored(first), stored(second)) == ((0, 0), (0, 6))


@committing
@every_model
@pytest.mark.parametrize("held", [None, NEW])
def test_object_that_was_not_read_overwrites_nothing(model, held):
    row = create(model)
    row.save(held=MINE)
    values = {"town": "Oslo"} if model is TownMeter else {}
    made = model(pk=row.pk, reading=7, **values)

    with pytest.raises((IntegrityError, StaleObject)):
        made.save(held=held)

    assert made.fence == 0
    assert stored(row) == (0, 6)


@committing
def test_insert_that_is_rolled_back_can_be_made_again():
    row = Meter(name="A")
    with transaction.atomic():
        row.save(held=MINE)
        transaction.set_rollback(True)
    assert (row.pk, row.fence) == (None, 0)

    row.save(held=MINE)

    assert stored(row) == (0, 6)


def test_parent_may_be_there_before_a_child_with_the_fence():
    place = Place.objects.create(town="Oslo")
    child = TownMeter(pk=place.pk, town="Bergen")

    child.save(held=MINE)

    assert stored(child) == (0, 6)
    assert Place.objects.get().town == "Bergen"


# Memory


@committing
def test_rolled_back_write_leaves_the_fence_as_it_was_read():
    row = Meter.objects.create()
    row.save(held=OLD)

    with transaction.atomic():
        row.save(held=MINE)
        row.save(held=NEW)
        transaction.set_rollback(True)

    assert row.fence == 5
    row.save(held=MINE)
    assert stored(row) == (0, 6)


@committing
def test_failed_save_leaves_all_as_it_was():
    row = Meter.objects.create(name="A")
    row.reading = "many"

    with pytest.raises(ValueError, match="many"):
        row.save(held=MINE)

    assert row.fence == 0
    assert stored(row) == (0, 0)


def test_object_in_a_cache_keeps_its_fence(meter):
    meter.save(held=OLD)
    early = pickle.loads(pickle.dumps(meter))  # noqa: S301 - our own.
    written_by(meter, NEW)

    with pytest.raises(StaleLock):
        early.save(held=MINE)


def test_stale_object_never_lowers_the_fence(meter):
    early = other(meter)
    meter.save(held=NEW)

    early.save(held=NEW)

    assert stored(meter) == (0, 7)


def test_fixture_is_loaded_as_it_is(meter):
    meter.save(held=NEW)
    text = serializers.serialize("json", [other(meter)])
    Meter.objects.all().delete()

    for loaded in serializers.deserialize("json", text):
        loaded.save()

    assert stored(meter) == (0, 7)


# Guarded querysets


def test_guard_of_one_row_is_one_statement(meter, django_assert_num_queries):
    with django_assert_num_queries(1):
        assert guard(Meter.objects.filter(pk=meter.pk), MINE).update(reading=F("reading") + 1) == 1

    assert stored(meter) == (1, 6)


@pytest.mark.parametrize("vanished", [True, False])
def test_row_that_is_gone_or_does_not_match_is_not_stale(meter, vanished):
    rows = Meter.objects.filter(pk=-1) if vanished else Meter.objects.filter(name="Z")

    assert guard(rows, MINE).update(reading=1) == 0
    assert guard(rows, MINE).delete() == 0
    assert stored(meter) == (0, 0)


def test_guard_without_values_lets_the_row_meet_its_holder(meter):
    assert guard(Meter.objects.filter(pk=meter.pk), NEW).update() == 1

    with pytest.raises(StaleLock):
        guard(Meter.objects.filter(pk=meter.pk), MINE).update(reading=1)
    assert stored(meter) == (0, 7)


def test_rows_whose_key_is_another_column_are_many():
    rows = [create(Meter) for _ in range(2)]
    written_by(rows[1], NEW)
    Meter.objects.update(reading=F("pk"))

    with pytest.raises(StaleLock):
        guard(Meter.objects.filter(pk=F("reading")), MINE).update(name="Z")

    assert not Meter.objects.filter(name="Z").exists()


def test_of_many_rows_all_are_written_or_none():
    rows = [create(Meter) for _ in range(3)]
    written_by(rows[1], NEW)
    all_rows = Meter.objects.order_by("-name")

    with pytest.raises(StaleLock):
        guard(all_rows, MINE).update(reading=1)
    with pytest.raises(StaleLock):
        guard(all_rows, MINE).delete()

    assert [stored(row) for row in rows] == [(0, 0), (99, 7), (0, 0)]
    assert guard(Meter.objects.filter(reading=0), MINE).update(reading=2) == 2
    assert guard(all_rows, NEW).update(reading=3) == 3
    assert guard(all_rows, NEW).delete() == 3


def test_rows_of_two_tables_and_of_relations_are_guarded():
    place = Place.objects.create(town="Rome")
    rows = [create(SmartMeter, place=place), create(SmartMeter)]
    of_rome = SmartMeter.objects.filter(place__town="Rome").select_related("place")

    assert guard(of_rome, MINE).update(reading=1, firmware=2) == 1
    with pytest.raises(StaleLock):
        guard(SmartMeter.objects.filter(pk=rows[0].pk), OLD).update(firmware=3)
    with pytest.raises(StaleLock):
        guard(of_rome, OLD).delete()

    read = SmartMeter.objects.order_by("pk").values_list("reading", "firmware", "fence")
    assert list(read) == [(1, 2, 6), (0, 0, 0)]
    assert guard(of_rome, MINE).delete() == 1


def test_fence_may_have_another_name_and_be_empty():
    Tank.objects.create()

    assert guard(Tank.objects.filter(level=0), MINE, field="seen").update(level=1) == 1
    assert guard(Tank.objects.filter(pk=Tank.objects.get().pk), MINE, field="seen").update() == 1
    with pytest.raises(StaleLock):
        guard(Tank, OLD, field="seen").update(level=2)

    assert Tank.objects.values_list("level", "seen").get() == (1, 6)


@pytest.mark.parametrize("field", ["fence", "small", "meter"])
def test_what_keeps_no_token_is_no_fence(field):
    with pytest.raises(TypeError, match=r"keeps no fencing token .* add FencedModel"):
        guard(Tank.objects.all(), MINE, field=field)


def test_fence_is_not_among_the_values(meter):
    with pytest.raises(TypeError, match="written by the guard"):
        guard(Meter, MINE).update(fence=1)


@pytest.mark.parametrize(
    "rows",
    [
        lambda: Meter.objects.all()[:1],
        lambda: Meter.objects.filter(pk=1)[:1],
        lambda: Meter.objects.filter(pk=1).distinct(),
        lambda: Meter.objects.filter(pk=1).union(Meter.objects.filter(pk=2)),
        lambda: Meter.objects.values("name"),
        lambda: Meter.objects.annotate(count=Count("place__meter")),
        lambda: Meter.objects.exclude(place__town="Rome"),
        lambda: "meters",
    ],
)
def test_what_is_not_rows_of_one_table_is_refused(rows):
    with pytest.raises((TypeError, NotSupportedError)):
        guard(rows(), MINE).update(reading=1)


# Locks and claims


@committing
def test_decorated_function_writes_under_its_lock():
    row = Meter.objects.create()

    @lock("meter:{pk}")
    def read_off(pk):
        row = Meter.objects.get(pk=pk)
        row.reading += 1
        row.save(held=current_lock())
        return current_lock().token

    first, second = read_off(row.pk), read_off(row.pk)

    assert first < second
    assert stored(row) == (2, second)


@committing
def test_work_under_a_claim_writes_by_its_token():
    row = Meter.objects.create()

    def work():
        written_by(row, current_claim(), reading=1)
        return current_claim().token

    token = run_once(work, scope="s", operation="o", key="key").result

    assert stored(row) == (1, token)


@committing
def test_lock_that_was_released_writes_nothing():
    row = Meter.objects.create()
    with lock("meter") as held:
        pass

    with pytest.raises(StaleLock):
        row.save(held=held)
