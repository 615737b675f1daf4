"""Rows of which no change is lost, whatever kind of write makes it."""

import pickle
from contextlib import contextmanager, suppress

import pytest
from django.core import serializers
from django.db import DatabaseError, IntegrityError, connection, models, transaction
from django.db.models import F
from django.db.models.signals import post_save
from django.db.transaction import TransactionManagementError
from django.test import TestCase
from django.test.utils import isolate_apps
from django_fsm import ConcurrentTransitionMixin, FSMField

from idempotency import StaleObject
from idempotency.models import VersionedManager, VersionedModel
from idempotency.optimistic import retry_stale
from tests.conftest import run_async
from tests.models import Account, Branch, Place, Savings, Sheet

pytestmark = pytest.mark.django_db
committing = pytest.mark.django_db(transaction=True)


@pytest.fixture
def account():
    return Account.objects.create(name="A")


def other(row):
    """Give a second object for the same row, as another request would read it."""
    return type(row).objects.get(pk=row.pk)


def stored(row):
    return type(row).objects.filter(pk=row.pk).values_list("version", flat=True).get()


def changed_meanwhile(row):
    Account.objects.filter(pk=row.pk).update(balance=99)


def test_new_row_has_version_1(account):
    assert (account.version, stored(account)) == (1, 1)


def test_save_is_one_statement_and_counts_up(account, django_assert_num_queries):
    with django_assert_num_queries(1):
        account.save()

    assert (account.version, stored(account)) == (2, 2)


def save(row):
    row.save()


def save_fields(row):
    row.save(update_fields=["balance"])


def save_nothing_but_the_version(row):
    row.save(update_fields=["version"])


def save_with_force(row):
    row.save(force_update=True)


def save_expression(row):
    row.balance = F("balance") + 1
    row.save()


def save_async(row):
    run_async(row.asave())


def touch(row):
    row.touch()


def touch_async(row):
    run_async(row.atouch())


def delete(row):
    row.delete()


WRITES = [
    save,
    save_fields,
    save_nothing_but_the_version,
    save_with_force,
    save_expression,
    touch,
    delete,
]


@pytest.mark.parametrize("write", WRITES)
def test_stale_write_is_refused_and_changes_nothing(account, write):
    stale = other(account)
    stale.balance = 7
    changed_meanwhile(account)

    with pytest.raises(StaleObject) as caught:
        write(stale)

    error = caught.value
    assert (error.model, error.pk, error.expected, error.actual) == (Account, account.pk, 1, 2)
    assert stale.version == 1
    assert other(account).balance == 99


@committing
@pytest.mark.parametrize("write", [save_async, touch_async])
def test_stale_asynchronous_write_is_refused(write):
    row = Account.objects.create(name="A")
    changed_meanwhile(row)

    with pytest.raises(StaleObject):
        write(row)


@pytest.mark.parametrize("write", [save, save_fields, touch])
def test_write_of_a_deleted_row_inserts_nothing(account, write):
    Account.objects.all().delete()

    with pytest.raises(StaleObject) as caught:
        write(account)

    assert caught.value.actual is None
    assert not Account.objects.exists()


@committing
@pytest.mark.parametrize("write", WRITES)
def test_conflict_leaves_the_transaction_usable(write):
    row = Account.objects.create(name="A")
    changed_meanwhile(row)

    with transaction.atomic():
        Account.objects.create(name="B")
        with pytest.raises(StaleObject):
            write(row)
        Account.objects.create(name="C")

    assert Account.objects.count() == 3


def test_every_write_in_turn_counts_up_once(account):
    for write in WRITES[:-1]:
        before = account.version
        write(account)

        assert (account.version, stored(account)) == (before + 1, before + 1), write
        account.refresh_from_db()

    assert account.delete()[0] == 1


def test_empty_update_fields_write_nothing(account, django_assert_num_queries):
    with django_assert_num_queries(0):
        account.save(update_fields=[])

    assert (account.version, stored(account)) == (1, 1)


def test_only_takes_the_version_along(account):
    part = Account.objects.only("name").get()
    part.name = "changed"
    changed_meanwhile(account)

    with pytest.raises(StaleObject):
        part.save()


def test_only_none_is_refused_as_django_does():
    with pytest.raises(TypeError, match="Cannot pass None"):
        Account.objects.only(None)


def test_defer_of_others_takes_the_version_along(account):
    part = Account.objects.defer("balance").get()

    part.save()

    assert part.version == stored(account) == 2


def test_object_without_its_version_is_not_saved(account):
    part = Account.objects.defer("version").get()

    for write in (save, save_fields, touch, delete, lambda row: row.version):
        with pytest.raises(TypeError, match="read without version"):
            write(part)

    assert stored(account) == 1


def test_constructed_object_overwrites_nothing(account):
    for options in ({}, {"update_fields": ["name"]}, {"force_update": True}):
        with pytest.raises(StaleObject):
            Account(pk=account.pk, name="B").save(**options)

    assert other(account).name == "A"


def test_constructed_object_with_its_own_key_is_inserted(django_assert_num_queries):
    with django_assert_num_queries(2):
        Sheet(name="A").save()

    assert Sheet.objects.named("A").rev == 1


def test_version_may_have_another_name():
    sheet = Sheet.objects.create(name="A")
    stale = Sheet.objects.get()

    sheet.save()

    assert sheet.rev == 2
    with pytest.raises(StaleObject):
        stale.save()
    assert Sheet.objects.only("cells").get().rev == 2


def test_missing_version_is_refused(account):
    account.version = None

    with pytest.raises(TypeError, match="None"):
        account.save()


def test_version_that_somebody_names_is_what_is_compared(account):
    account.version = 99

    with pytest.raises(StaleObject) as caught:
        account.save()

    assert (caught.value.expected, caught.value.actual) == (99, 1)


def test_queryset_update_counts_up(account, django_assert_num_queries):
    with django_assert_num_queries(1):
        Account.objects.update(balance=F("balance") + 1)

    assert stored(account) == 2


def test_queryset_update_may_set_the_version_itself(account):
    Account.objects.update(version=F("version"), balance=5)

    assert stored(account) == 1


def test_reverse_relations_and_set_null_count_up(account):
    owner = Account.objects.create(name="owner")

    owner.owned.add(account)
    assert stored(account) == 2
    owner.owned.update(note="x")
    assert stored(account) == 3
    owner.owned.remove(account)
    assert stored(account) == 4
    owner.owned.add(account)
    owner.delete()
    assert stored(account) == 6


def test_update_or_create_counts_up(account):
    row, created = Account.objects.update_or_create(pk=account.pk, defaults={"balance": 5})

    assert (created, row.version, stored(account)) == (False, 2, 2)


def test_rows_created_together_have_version_1():
    rows = Account.objects.bulk_create([Account(name="A"), Account(name="B")])

    assert [row.version for row in rows] == [1, 1]
    assert [stored(row) for row in Account.objects.all()] == [1, 1]


def test_upsert_is_refused(account):
    with pytest.raises(TypeError, match="update_or_create"):
        Account.objects.bulk_create(
            [account],
            update_conflicts=True,
            update_fields=["name"],
            unique_fields=["id"],
        )


def test_upsert_is_refused_by_position_too(account):
    with pytest.raises(TypeError, match="update_or_create"):
        Account.objects.bulk_create([account], None, False, True, ["name"], ["id"])


def test_bulk_update_gives_the_stale_ones(account):
    fresh = Account.objects.create(name="B")
    gone = Account.objects.create(name="C")
    Account.objects.filter(pk=gone.pk).delete()
    changed_meanwhile(account)
    for row in (account, fresh, gone):
        row.balance = 5

    stale = Account.objects.bulk_update([account, fresh, gone], ["balance", "version"])

    assert stale == [account, gone]
    assert (other(account).balance, other(fresh).balance) == (99, 5)
    assert [(row.version) for row in (account, fresh, gone)] == [1, 2, 1]
    assert stored(fresh) == 2


def test_bulk_update_takes_the_first_of_two_objects_for_a_row(account):
    second = other(account)
    account.balance, second.balance = 1, 2

    assert Account.objects.bulk_update([account, second], ["balance"]) == [second]
    assert other(account).balance == 1


@committing
def test_bulk_update_can_be_awaited():
    row = Account.objects.create(name="A")

    assert run_async(Account.objects.abulk_update([row], ["name"])) == []


def test_fixture_keeps_its_version_in_a_new_row_and_counts_up_an_old_one(account):
    account.save()
    text = serializers.serialize("json", [account])

    [loaded] = serializers.deserialize("json", text)
    loaded.save()

    assert stored(account) == 3
    with pytest.raises(StaleObject):
        account.save()
    Account.objects.all().delete()
    loaded.save()
    assert stored(account) == 2


@contextmanager
def rolled_back():
    with suppress(ZeroDivisionError), transaction.atomic():
        yield
        raise ZeroDivisionError


@committing
def test_rollback_puts_the_version_back():
    row = Account.objects.create(name="A")

    with rolled_back():
        row.save()
        with rolled_back():
            row.save()
            row.save()
            assert row.version == 4
        assert row.version == 2
        row.save()

    assert row.version == 1
    row.save()
    assert row.version == stored(row) == 2


@committing
def test_commit_keeps_the_version():
    row = Account.objects.create(name="A")

    with transaction.atomic():
        transaction.on_commit(lambda: seen.append(row.version))
        row.save()
        seen: list[int] = []

    assert (row.version, seen) == (2, [2])


@committing
def test_row_whose_insert_was_rolled_back_can_be_inserted():
    row = Account(name="A")
    with rolled_back():
        row.save()

    Account.objects.create(name="B")
    row.save()

    assert Account.objects.count() == 2


def test_child_tables_count_up_the_first(account):
    child = Savings.objects.create(name="S", rate=1)
    stale, parent = Savings.objects.get(), Account.objects.get(name="S")

    child.save(update_fields=["rate"])

    assert child.version == stored(child) == 2
    for row in (stale, parent):
        with pytest.raises(StaleObject):
            row.save()
    Savings.objects.update(rate=5)
    assert stored(child) == 3
    Savings.objects.filter(name="S").update(name="T", rate=6)
    assert stored(child) == 4
    child.refresh_from_db()
    child.rate = 7
    assert Savings.objects.bulk_update([child], ["rate"]) == []
    assert child.version == stored(child) == 5
    assert stored(account) == 1


@committing
def test_version_in_the_second_table_guards_the_first():
    branch = Branch.objects.create(town="A")
    stale = Branch.objects.get()
    branch.save()
    stale.town = "B"

    with transaction.atomic():
        with pytest.raises(StaleObject):
            stale.save()
        Place.objects.create(town="C")

    assert Branch.objects.get().town == "A"
    assert stale.version == 1


@committing
def test_version_goes_back_with_a_failed_second_table():
    Place.objects.create(town="A")
    child = Savings.objects.create(name="S")
    child.rate = "no number"

    with pytest.raises((ValueError, DatabaseError)):
        child.save()

    assert child.version == stored(child) == 1


@committing
def test_other_errors_are_no_conflicts():
    Branch.objects.create(town="A")
    second = Branch.objects.create(town="B")
    second.town = "A"

    with pytest.raises(IntegrityError):
        second.save()

    assert second.version == 1


def test_partial_refresh_leaves_the_version(account):
    stale = other(account)
    changed_meanwhile(account)

    stale.refresh_from_db(fields=["name"])
    with pytest.raises(StaleObject):
        stale.save()
    stale.refresh_from_db()
    stale.save()

    assert stored(account) == 3


def test_copies_and_pickles_keep_the_version(account):
    account.save()

    assert pickle.loads(pickle.dumps(account)).version == 2  # noqa: S301 - made here.


def test_delete_of_an_unsaved_object_is_refused():
    with pytest.raises(ValueError, match="None"):
        Account().delete()


@committing
def test_signals_of_a_save_may_save_others():
    first, second = Account.objects.create(name="A"), Account.objects.create(name="B")
    stale = other(second)
    second.save()

    def follow(instance, **more):
        if instance == first:
            stale.save()

    post_save.connect(follow, sender=Account)
    try:
        with transaction.atomic(), pytest.raises(StaleObject):
            first.save()
    finally:
        post_save.disconnect(follow, sender=Account)
    assert first.version == stored(first) == 2


@committing
@pytest.mark.parametrize("bases", [("V", "C"), ("C", "V")])
@isolate_apps("tests")
def test_guard_goes_together_with_that_of_django_fsm(bases):
    kinds = {"V": VersionedModel, "C": ConcurrentTransitionMixin}

    class Meta:
        app_label = "tests"

    members = {
        "__module__": __name__,
        "Meta": Meta,
        "state": FSMField(default="new"),
        "twice": models.GeneratedField(
            expression=F("number") * 2, output_field=models.IntegerField(), db_persist=True
        ),
        "number": models.IntegerField(default=1),
    }
    model = type("Both", (*(kinds[base] for base in bases), models.Model), members)
    with connection.schema_editor() as editor:
        editor.create_model(model)
    try:
        row = model.objects.create()
        stale = model.objects.get()
        row.number = 2
        row.save()
        row.save(update_fields=["number"])
        row.refresh_from_db()

        assert (row.version, row.twice) == (3, 4)
        with pytest.raises(StaleObject):
            stale.save()
    finally:
        with connection.schema_editor() as editor:
            editor.delete_model(model)


@isolate_apps("tests")
def test_manager_that_does_not_count_up_is_told():
    class Plain(VersionedModel):
        objects = models.Manager()

        class Meta:
            app_label = "tests"

    class Mixed(Place, VersionedModel):
        objects = VersionedManager()

        class Meta:
            app_label = "tests"

    for model, kind in ((Plain, "default"), (Mixed, "base")):
        [message] = [found for found in model.check() if found.id == "idempotency.W007"]
        assert message.msg.startswith(f"The {kind} manager of tests.{model.__name__} ")
    assert not [found for model in (Account, Branch, Sheet) for found in model.check()]


@committing
def test_retry_stale_reads_again():
    row = Account.objects.create(name="A")
    tries = []

    @retry_stale
    def add():
        fresh = Account.objects.get(pk=row.pk)
        Account.objects.create(name="effect")
        if not tries:
            changed_meanwhile(row)
        tries.append(1)
        fresh.note = "added"
        fresh.save()
        return fresh.balance

    assert add() == 0
    assert len(tries) == 2
    assert Account.objects.filter(name="effect").count() == 1
    assert other(row).note == "added"


@committing
def test_only_the_outermost_is_run_again():
    runs = []

    @retry_stale
    def inner():
        runs.append("inner")
        raise StaleObject

    @retry_stale(attempts=3)
    def outer():
        runs.append("outer")
        inner()

    with pytest.raises(StaleObject):
        outer()

    assert runs == ["outer", "inner"] * 3


@committing
def test_retry_inside_of_a_transaction_is_refused():
    with transaction.atomic(), pytest.raises(TransactionManagementError, match="outside"):
        retry_stale(lambda: None)()


def test_retry_of_other_errors_does_not_happen():
    runs = []

    @retry_stale
    def fail():
        runs.append(1)
        raise KeyError

    with pytest.raises(KeyError):
        fail()

    assert runs == [1]


def test_what_cannot_be_retried_is_refused_when_decorated():
    async def coroutine():
        raise AssertionError

    with pytest.raises(TypeError, match="coroutines"):
        retry_stale(coroutine)
    with pytest.raises(TypeError, match="above 0"):
        retry_stale(attempts=0)(lambda: None)


def test_many_saves_of_one_transaction_leave_one_hook(account):
    with TestCase.captureOnCommitCallbacks() as hooks, transaction.atomic():
        for number in range(10):
            account.balance = number
            account.save()
            Account(name=str(number)).save()

    assert len(hooks) == 1


def test_saves_between_savepoints_are_undone_together_or_apart(account):
    with transaction.atomic():
        account.save()
        with transaction.atomic():
            account.save()
            transaction.set_rollback(True)
        assert account.version == 2
        account.save()
        with transaction.atomic():
            account.save()
        transaction.set_rollback(True)

    assert account.version == 1
