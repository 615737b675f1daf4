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

    late.add(FIRST, 900, lambda: told.append("first"))
    late.add(SECOND, 900, fail_once)

    with pytest.raises(StoreUnavailable):
        late.renew([FIRST, SECOND])
    assert late.renew([FIRST, SECOND]) == [FIRST, SECOND]

    assert told == ["first", "second", "second"]


def test_end_of_a_claim_that_was_taken_over_is_dropped(late):
    def refuse():
        raise StaleClaim

    late.add(FIRST, 900, refuse)

    assert late.renew([FIRST]) == [FIRST]


def test_first_try_is_soon(late):
    late.add(FIRST, 900, lambda: None)

    (holding,) = (each for each in renewal.holdings if each.renewer is late)
    assert holding.due_at < holding.ends_at - 1_600


def test_all_of_a_store_are_told_by_one():
    assert belated(get_store()) is belated(get_store())
