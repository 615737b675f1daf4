"""Two calls with one key, stepped through each other in every order of their statements."""

import pytest
from django.db import connection

from idempotency import KeyInProgress, run_once
from idempotency.models import IdempotencyRecord
from idempotency.testing import interleavings
from tests.conftest import end_leases, end_retention
from tests.models import Effect

pytestmark = pytest.mark.django_db(transaction=True)


def place(number, **options):
    return run_once(
        lambda: Effect.objects.create(name=f"e{number}").pk,
        scope="s",
        operation="o",
        key=f"key-{number}",
        **options,
    )


def expect_one_effect(interleaving):
    name = f"e{interleaving.number}"
    made = list(Effect.objects.filter(name=name).values_list("pk", flat=True))
    assert len(made) == 1, interleaving
    for finish in interleaving.finishes:
        if finish.error is not None:
            assert isinstance(finish.error, KeyInProgress), interleaving
        else:
            assert finish.result.result == made[0], interleaving
    outcomes = [finish.result for finish in interleaving.finishes if finish.result is not None]
    assert [outcome.replayed for outcome in outcomes].count(False) == 1, interleaving


@pytest.mark.parametrize("modes", [("atomic",) * 2, ("lease",) * 2, ("atomic", "lease")], ids=str)
def test_two_first_calls_make_one_effect_in_every_order(modes):
    runs = [lambda number, mode=mode: place(number, mode=mode) for mode in modes]
    orders = 0

    for interleaving in interleavings(*runs):
        expect_one_effect(interleaving)
        assert place(interleaving.number).replayed
        orders += 1

    assert orders > 5


@pytest.mark.parametrize("end", [end_leases, end_retention], ids=["lease", "retention"])
def test_record_that_is_over_is_taken_over_once_in_every_order(end):
    numbers = range(900)  # More than there are orders, as a slow statement may add some.
    state = "in_progress" if end is end_leases else "completed"
    for number in numbers:
        place(number)
    Effect.objects.all().delete()
    IdempotencyRecord.objects.update(state=state)
    end()
    modes = ("lease", "lease") if connection.vendor != "sqlite" else ("atomic", "atomic")
    runs = [lambda number, mode=mode: place(number, mode=mode) for mode in modes]

    for interleaving in interleavings(*runs, most=len(numbers)):
        expect_one_effect(interleaving)
