"""Rows that are made once, decided by a unique key."""

import pytest
from django.db import DataError, IntegrityError, NotSupportedError, connection, transaction
from django.db.models import F
from django.test.utils import isolate_apps
from django.utils import timezone

from idempotency.inserts import _statement
from idempotency.keys import uuid7
from idempotency.testing import interleavings, race
from tests.models import Parcel, Ticket

pytestmark = pytest.mark.django_db
committing = pytest.mark.django_db(transaction=True)


def test_new_row_is_made_by_one_statement(django_assert_num_queries):
    with django_assert_num_queries(1):
        ticket, created = Ticket.objects.insert_once(number="A", defaults={"title": "first"})

    assert created
    stored = Ticket.objects.get()
    assert (ticket.pk, ticket.title, ticket.number) == (stored.pk, "first", "A")
    assert abs(stored.made_at - timezone.now()).total_seconds() < 60
    assert not ticket._state.adding


def test_row_that_is_there_is_given_and_left_as_it_is(django_assert_max_num_queries):
    first, _ = Ticket.objects.insert_once(number="A", defaults={"title": "first"})

    with django_assert_max_num_queries(2):
        second, created = Ticket.objects.insert_once(number="A", defaults={"title": "second"})

    assert (second, second.title, created) == (first, "first", False)


def test_transaction_stays_usable():
    with transaction.atomic():
        Ticket.objects.insert_once(number="A")
        Ticket.objects.insert_once(number="A")
        Ticket.objects.create(number="B")

    assert Ticket.objects.count() == 2


def test_several_fields_may_be_unique_together():
    _, first = Ticket.objects.insert_once(venue="hall", seat=1, defaults={"number": "A"})
    _, second = Ticket.objects.insert_once(seat=1, venue="hall", defaults={"number": "B"})
    _, third = Ticket.objects.insert_once(seat=2, venue="hall", defaults={"number": "C"})

    assert (first, second, third) == (True, False, True)


def test_primary_key_that_is_handed_out_before_is_kept():
    key = uuid7()
    ticket = Ticket.objects.create(number="A")

    first, created = Parcel.objects.insert_once(pk=key, defaults={"code": "x", "ticket": ticket})
    again, repeated = Parcel.objects.insert_once(id=key, defaults={"code": "y"})

    assert (created, repeated) == (True, False)
    assert (first.pk, again.code, again.ticket) == (key, "x", ticket)


def test_value_that_the_database_fills_is_read_when_asked_for():
    parcel, _ = Parcel.objects.insert_once(code="x")

    assert parcel.weight == 7


def test_value_may_be_named_by_its_column():
    ticket = Ticket.objects.create(number="A")

    parcel, _ = Parcel.objects.insert_once(code="x", defaults={"ticket_id": ticket.pk})

    assert parcel.ticket == ticket


@pytest.mark.parametrize(
    "unique", [{"title": "a"}, {"number": "a", "title": "b"}, {"venue": "hall"}, {}]
)
def test_fields_that_nothing_makes_unique_are_refused(unique):
    with pytest.raises(TypeError, match="No constraint"):
        Ticket.objects.insert_once(**unique)


def test_nothing_is_never_unique():
    with pytest.raises(TypeError, match="None"):
        Ticket.objects.insert_once(serial=None)


def test_expression_is_refused():
    with pytest.raises(TypeError, match="plain values"):
        Ticket.objects.insert_once(number="A", defaults={"seat": F("serial")})


@isolate_apps("tests")
def test_model_with_two_tables_is_refused():
    class Child(Ticket):
        class Meta:
            app_label = "tests"

    with pytest.raises(TypeError, match="two tables"):
        Child.objects.insert_once(number="A")


def test_row_that_breaks_another_constraint_is_an_error():
    Ticket.objects.insert_once(number="A", defaults={"serial": 1})

    with pytest.raises(IntegrityError), transaction.atomic():
        Ticket.objects.insert_once(number="B", defaults={"serial": 1})

    assert Ticket.objects.count() == 1


@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has no lengths")
def test_value_that_is_too_long_is_an_error_and_not_cut():
    with pytest.raises(DataError), transaction.atomic():
        Ticket.objects.insert_once(number="A", defaults={"title": "x" * 11})

    assert not Ticket.objects.exists()


@committing
def test_reference_to_nowhere_is_an_error():
    with pytest.raises(IntegrityError), transaction.atomic():
        Parcel.objects.insert_once(code="x", defaults={"ticket_id": 999_999})

    assert not Parcel.objects.exists()


@committing
def test_many_that_insert_at_once_get_one_row():
    def insert(process):
        made = [Ticket.objects.insert_once(number=f"n{number}") for number in range(50)]
        return [(ticket.pk, created) for ticket, created in made]

    finishes = race(insert, processes=8)

    assert [finish.error for finish in finishes] == [None] * 8
    assert Ticket.objects.count() == 50
    for results in zip(*(finish.result for finish in finishes), strict=True):
        assert len({pk for pk, _ in results}) == 1
        assert [created for _, created in results].count(True) == 1


@committing
def test_two_that_insert_in_any_order_get_one_row():
    def insert(number):
        with transaction.atomic():
            return Ticket.objects.insert_once(number=f"n{number}")

    for interleaving in interleavings(insert, insert):
        results = [finish.result for finish in interleaving.finishes]
        assert None not in results, interleaving
        assert results[0][0] == results[1][0], interleaving
        assert {created for _, created in results} == {True, False}, interleaving


@pytest.mark.django_db(databases=["default", "other"])
def test_manager_of_another_database_inserts_there():
    Ticket.objects.db_manager("other").insert_once(number="A")

    assert Ticket.objects.using("other").count() == 1
    assert not Ticket.objects.exists()


@pytest.mark.skipif(connection.vendor != "mysql", reason="a level of MariaDB and MySQL")
@committing
def test_row_that_an_old_snapshot_does_not_show_is_found():
    other = connection.copy()
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    with transaction.atomic():
        assert not Ticket.objects.exists()
        with other.cursor() as cursor:
            cursor.execute(
                "INSERT INTO tests_ticket (number, title, venue, seat, made_at)"
                " VALUES ('A', 'first', '', NULL, NOW())"
            )
        ticket, created = Ticket.objects.insert_once(number="A")
    other.close()
    connection.close()

    assert (ticket.title, created) == ("first", False)


def test_database_that_is_not_known_is_refused():
    class Unknown:
        vendor = "oracle"

    with pytest.raises(NotSupportedError, match="oracle"):
        _statement(Unknown())
