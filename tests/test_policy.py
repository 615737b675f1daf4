"""Options and settings: refused early, read late."""

import pytest

from idempotency import InvalidBackend, exceptions
from idempotency.conf import Settings
from idempotency.conf import settings as ours
from idempotency.exceptions import IdempotencyError
from idempotency.policy import Policy
from idempotency.stores.base import BaseStore


class Elsewhere(BaseStore):
    """A store without transactions, as far as a policy looks."""

    claim = settle = renew = look = block = decide = None


@pytest.fixture
def elsewhere():
    return Elsewhere("elsewhere", {"OPTIONS": {}, "LEASE": 1, "RETENTION": 1})


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "both"},
        {"on_error": None},
        {"on_crash": "store"},
        {"on_store_error": True},
        {"wait": -0.1},
        {"wait": None},
        {"wait": float("inf")},
        {"lease": 0},
        {"lease": "30"},
        {"retention": -1},
        {"retention": True},
    ],
)
def test_option_that_means_nothing_is_refused_by_name(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Policy(**options)


def test_mode_is_the_strongest_that_the_store_has(elsewhere):
    assert Policy().mode_for(elsewhere) == "lease"
    elsewhere.supports_atomic = True
    assert Policy().mode_for(elsewhere) == "atomic"
    assert Policy(mode="lease").mode_for(elsewhere) == "lease"


def test_store_that_cannot_share_a_transaction_is_refused_for_atomic_mode(elsewhere):
    with pytest.raises(InvalidBackend, match="'elsewhere'"):
        Policy(mode="atomic").mode_for(elsewhere)


def test_store_without_transactions_has_nothing_to_undo(elsewhere):
    with elsewhere.transaction():
        elsewhere.roll_back()

    assert not elsewhere.in_transaction
    assert not elsewhere.is_rolling_back()
    assert elsewhere.peek(None) is None
    assert elsewhere.check() == []


def test_setting_is_read_when_it_is_used(settings):
    assert ours.MAX_BODY == Settings.MAX_BODY == 5 * 1024 * 1024
    settings.IDEMPOTENCY_MAX_BODY = 7
    assert ours.MAX_BODY == 7
    del settings.IDEMPOTENCY_MAX_BODY
    assert ours.MAX_BODY == 5 * 1024 * 1024


@pytest.mark.parametrize("name", sorted(exceptions.__all__))
def test_error_says_what_is_wrong_and_has_one_base(name):
    error = getattr(exceptions, name)

    assert error.__doc__.strip().endswith(".")
    if issubclass(error, IdempotencyError):
        assert str(error()) == " ".join(error.__doc__.split())
        assert str(error("More is known.")) == "More is known."
    else:
        assert name == "InvalidBackend"
