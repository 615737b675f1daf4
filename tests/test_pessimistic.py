"""Rows that are locked before they are read."""

import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.db.models import Count
from django.db.transaction import TransactionManagementError
from django.test.utils import CaptureQueriesContext

from idempotency import LockUnavailable
from idempotency.pessimistic import (
    atomic_retry,
    declare_effect,
    get_or_create_locked,
    lock_row,
    lock_rows,
    lock_timeout,
)
from tests.conftest import Gate, standing_at
from tests.models import Parcel, Savings, Ticket

pytestmark = pytest.mark.django_db
committing = pytest.mark.django_db(transaction=True)

HAS_ROW_LOCKS = connection.features.has_select_for_update


@pytest.fixture
def ticket():
    return Ticket.objects.create(number="A", title="first")


@pytest.fixture
def locked_by_another():
    """Give a function that has another connection hold the row while the block runs."""

    def hold(row):
        gate = Gate()

        def other():
            with transaction.atomic():
                lock_row(type(row), pk=row.pk)
                gate.pass_through()

        return standing_at(gate, other)

    return hold


@committing
@pytest.mark.parametrize(
    "call",
    [
        lambda row: lock_row(Ticket, pk=row.pk),
        lambda row: lock_row(row),
        lambda row: lock_rows(Ticket.objects.all()),
        lambda row: get_or_create_locked(Ticket, number="A"),
        lambda row: lock_timeout(1).__enter__(),
    ],
)
def test_use_outside_of_a_transaction_is_the_same_error_everywhere(call):
    row = Ticket.objects.create(number="A")

    with pytest.raises(TransactionManagementError, match="none is open on 'default'"):
        call(row)


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_transaction_on_another_database_does_not_count():
    elsewhere = pytest.raises(TransactionManagementError, match="'other'")
    with transaction.atomic(using="default"), elsewhere:
        lock_row(Ticket.objects.using("other"), pk=1)


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_bound_without_a_database_is_for_the_default_one():
    refused = pytest.raises(TransactionManagementError, match="'default'")
    with transaction.atomic(using="other"), refused:
        lock_timeout(1).__enter__()


@pytest.mark.parametrize(
    "call",
    [
        lambda row: lock_row(Ticket, pk=row.pk),
        lambda row: lock_row(Ticket.objects, number="A"),
        lambda row: lock_row(Ticket.objects.all(), number__exact="A", title="now"),
        lambda row: lock_row(row),
        lambda row: lock_row(Ticket, title="now", many=True),
        lambda row: lock_rows(Ticket)[0],
    ],
)
def test_row_is_locked_when_the_call_returns(ticket, call):
    Ticket.objects.update(title="now")

    with CaptureQueriesContext(
        connection,
    ) as queries:
        row = call(ticket)

    assert (row.pk, row.title) == (ticket.pk, "now")
    statement = queries[-1]["sql"]
    if HAS_ROW_LOCKS:
        assert "FOR " in statement
    else:
        assert queries[0]["sql"].startswith("UPDATE")
    if connection.vendor == "postgresql":
        assert "FOR NO KEY UPDATE OF" in statement


def test_look_up_by_no_unique_key_is_refused_unless_asked_for(ticket):
    for lookup in (
        {"title": "first"},
        {"number__startswith": "A"},
        {"venue": "x"},
        {"nothing": 1},
        {},
    ):
        with pytest.raises(TypeError, match="many=True"):
            lock_row(Ticket, **lookup)

    assert lock_row(Ticket, many=True, title="first") == ticket


def test_missing_row_is_told_as_django_tells_it(ticket):
    with pytest.raises(Ticket.DoesNotExist):
        lock_row(Ticket, pk=0)
    assert lock_row(Ticket, pk=0, skip_locked=True) is None
    assert lock_rows(Ticket.objects.none()) == []


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (lambda: Ticket.objects.all()[:1], "sliced"),
        (lambda: Ticket.objects.distinct(), "distinct"),
        (lambda: Ticket.objects.filter(parcel__isnull=True), "joins"),
        (lambda: Ticket.objects.annotate(parcels=Count("parcel")), "groups"),
        (lambda: Ticket.objects.union(Ticket.objects.all()), "combined"),
    ],
)
def test_queryset_whose_result_is_not_the_rows_is_refused(rows, words):
    with pytest.raises(TypeError, match=words):
        lock_rows(rows())


@pytest.mark.parametrize(
    "call",
    [
        lambda: lock_row(object()),
        lambda: lock_row(Ticket(number="B")),
        lambda: lock_row(Ticket, pk=1, wait=-1),
        lambda: lock_row(Ticket, pk=1, wait=True),
        lambda: lock_row(Ticket, pk=1, wait="1"),
        lambda: lock_row(Ticket, pk=1, wait=1, skip_locked=True),
        lambda: get_or_create_locked(Ticket, title="x"),
        lambda: lock_row(Ticket.objects.get_or_create(number="C")[0], number="C"),
    ],
)
def test_bad_use_is_refused(call):
    with pytest.raises(TypeError):
        call()


def test_rows_come_in_the_order_of_their_keys(ticket):
    second = Ticket.objects.create(number="B")

    assert lock_rows(Ticket.objects.order_by("-number")) == [ticket, second]


@pytest.mark.parametrize("has_ticket", [True, False])
def test_nullable_relations_can_be_selected_along(ticket, has_ticket):
    parcel = Parcel.objects.create(code="P", ticket=ticket if has_ticket else None)

    locked = lock_row(Parcel.objects.select_related("ticket"), pk=parcel.pk)

    assert locked.ticket == parcel.ticket
    assert lock_rows(Parcel.objects.select_related("ticket")) == [parcel]


def test_row_of_two_tables_is_locked_in_both():
    row = Savings.objects.create(name="S")

    assert lock_row(Savings, pk=row.pk) == row
    assert lock_rows(Savings.objects.filter(name="S")) == [row]


def test_object_is_read_again_in_place(ticket):
    ticket.title = "unsaved"
    Ticket.objects.update(title="now")

    assert lock_row(ticket) is ticket
    assert ticket.title == "now"
    Ticket.objects.all().delete()
    with pytest.raises(Ticket.DoesNotExist):
        lock_row(ticket)


@committing
@pytest.mark.parametrize("wait", [0, 0.05])
def test_held_row_is_told_and_the_transaction_goes_on(locked_by_another, wait):
    row, free = Ticket.objects.create(number="A"), Ticket.objects.create(number="B")

    with locked_by_another(row):
        if not HAS_ROW_LOCKS:
            pytest.skip("a SQLite transaction of these tests begins with the lock")
        with transaction.atomic():
            with pytest.raises(LockUnavailable) as caught:
                lock_row(Ticket, pk=row.pk, wait=wait)
            with pytest.raises(LockUnavailable):
                lock_rows(Ticket.objects.all(), wait=wait)
            assert lock_row(Ticket, pk=free.pk, wait=wait) == free
            assert lock_row(Ticket, pk=row.pk, skip_locked=True) is None
            assert lock_rows(Ticket.objects.all(), skip_locked=True) == [free]
            assert lock_row(Ticket, number__in="AB", many=True, skip_locked=True) == free
    assert caught.value.retry_after == 1


def bound():
    """Give the present bound of lock waits, as the database says it."""
    asked = {
        "postgresql": "SHOW lock_timeout",
        "mysql": "SELECT @@SESSION.innodb_lock_wait_timeout",
        "sqlite": "PRAGMA busy_timeout",
    }
    with connection.cursor() as cursor:
        cursor.execute(asked[connection.vendor])
        return cursor.fetchone()[0]


@committing
def test_bound_of_waits_comes_back_whatever_happens():
    Ticket.objects.create(number="A")

    with transaction.atomic():
        before = bound()
        with lock_timeout(2):
            assert bound() != before
            with lock_timeout(3):
                pass
            assert str(bound()) in ("2s", "2", "2000")
        assert bound() == before
        with pytest.raises(ZeroDivisionError), lock_timeout(2):
            raise ZeroDivisionError
        assert bound() == before
        lock_row(Ticket, number="A", wait=2)
        assert bound() == before
    with pytest.raises(IntegrityError), transaction.atomic(), lock_timeout(2):
        Ticket.objects.create(number="A")
    assert bound() == before


def test_row_is_made_or_locked(ticket):
    found, made = (
        get_or_create_locked(Ticket, number="A"),
        get_or_create_locked(Ticket.objects, number="B", defaults={"title": "second"}, wait=1),
    )

    assert found == (ticket, False)
    assert (made[0].title, made[1]) == ("second", True)


@committing
def test_a_passing_error_is_retried_in_a_new_transaction():
    runs = []

    @atomic_retry(attempts=4)
    def work():
        Ticket.objects.create(number=str(len(runs)))
        runs.append(1)
        if len(runs) < 3:
            raise LockUnavailable from passing_error()
        return "done"

    assert work() == "done"
    assert len(runs) == 3
    assert Ticket.objects.count() == 1


def passing_error():
    error = DatabaseError("locked")
    error.__cause__ = type("Locked", (Exception,), {"sqlstate": "55P03"})()
    return error


@committing
def test_nothing_is_retried_after_a_declared_effect():
    runs = []

    @atomic_retry
    def work():
        runs.append(1)
        declare_effect("a mail was sent")
        declare_effect("a file was written")
        raise passing_error()

    with pytest.raises(DatabaseError) as caught:
        work()
    assert runs == [1]
    [note] = caught.value.__notes__
    assert note.endswith("done already: a mail was sent, a file was written.")
    declare_effect("outside of any retry")


@committing
@pytest.mark.parametrize(("attempts", "error"), [(1, "passing"), (3, "lasting")])
def test_declared_effect_is_not_blamed_for_what_would_not_be_run_again(attempts, error):
    @atomic_retry(attempts=attempts)
    def work():
        declare_effect("a mail was sent")
        raise passing_error() if error == "passing" else DatabaseError("no")

    with pytest.raises(DatabaseError) as caught:
        work()
    assert not hasattr(caught.value, "__notes__")


@committing
def test_other_errors_are_not_retried():
    runs = []

    @atomic_retry
    def work(error):
        runs.append(1)
        raise error

    for error in (KeyError(), DatabaseError("no"), LockUnavailable()):
        with pytest.raises(type(error)):
            work(error)
    assert len(runs) == 3


@committing
def test_retry_inside_of_a_transaction_is_refused():
    with transaction.atomic(), pytest.raises(TransactionManagementError, match="outside"):
        atomic_retry(lambda: None)()


def test_what_cannot_be_retried_is_refused_when_decorated():
    async def coroutine():
        raise AssertionError

    with pytest.raises(TypeError, match="coroutines"):
        atomic_retry(coroutine)
    with pytest.raises(TypeError, match="above 0"):
        atomic_retry(attempts=0)(lambda: None)
