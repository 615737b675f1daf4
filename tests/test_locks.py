"""The contract of every lock backend."""

import pytest

from idempotency import lock

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(params=["default"])
def alias(request):
    return request.param


def test_smoke(alias):
    with lock("a", backend=alias) as held:
        assert held.token > 0
        held.assert_held()
    with lock("a", backend=alias) as again:
        assert again.token > held.token
