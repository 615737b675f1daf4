"""Ends of claims that come late, but come."""

import pytest

from idempotency import StaleClaim, StoreUnavailable
from idempotency.renewal import renewal
from idempotency.stores import get_store
from idempotency.stores.base import Call, Claim
from idempotency.stores.belated import Belated, belated

FIRST, SECOND = (Claim(Call("s", "o", key), 1, 1, 900.0) for key in ("first", "second"))


@pytest.fixture
def late():
    before = renewal.holdings
    yield Belated(get_store())
    for holding in renewal.holdings - before:
        renewal.discard(holding)


def test_end_is_told_once_even_if_another_one_fails(late):
    told = []

    def fail_once():
        told.append("second")
        if told.count("second") == 1:
            raise StoreUnavailable

    late.add(SECOND, 900, fail_once)
    late.add(FIRST, 900, lambda: told.append("first"))

    assert late.renew([FIRST, SECOND]) == []
    assert late.renew([FIRST, SECOND]) == [FIRST, SECOND]

    assert told == ["second", "first", "second"]


def test_end_of_a_claim_that_was_taken_over_is_dropped(late, caplog):
    def refuse():
        raise StaleClaim

    late.add(FIRST, 900, refuse)

    assert late.renew([FIRST]) == [FIRST]
    assert "o ended too late" in caplog.text


@pytest.mark.parametrize("error", [StoreUnavailable, ZeroDivisionError])
def test_end_that_cannot_be_told_for_too_long_is_logged(late, caplog, error):
    def fail():
        raise error

    late.add(FIRST, 900, fail)
    late.add(SECOND, 0, fail)

    assert late.renew([FIRST, SECOND]) == []
    assert caplog.text == ""
    assert late.renew([FIRST, SECOND]) == [SECOND]
    assert "o ended, but its store could not be told" in caplog.text


def test_tries_are_soon_whatever_the_lease(late):
    late.add(FIRST, 900, lambda: None)

    (holding,) = (each for each in renewal.holdings if each.renewer is late)
    assert holding.ends_at - holding.due_at > 2
    assert holding.third == 1


def test_all_of_a_store_are_told_by_one():
    assert belated(get_store()) is belated(get_store())
