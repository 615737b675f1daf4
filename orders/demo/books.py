"""The books after a storm: what the database holds, against what was meant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from django.db.models import Sum

from orders.ledger import Payment
from orders.models import Product

from .storm import Intent, Tally


@dataclass(frozen=True, slots=True)
class Effects:
    """How many rows there are, how many of them are too many, and how many are missing."""

    made: int
    duplicates: int
    lost: int


@dataclass(frozen=True, slots=True)
class Books:
    """What came of a storm in the database."""

    orders: Effects
    payments: Effects
    balanced: bool  # Whether the stock and what was ordered add up.

    @property
    def duplicates(self) -> int:
        return self.orders.duplicates + self.payments.duplicates

    @property
    def lost(self) -> int:
        return self.orders.lost + self.payments.lost

    @property
    def right(self) -> bool:
        return self.balanced and not self.duplicates and not self.lost


def audit(product: Product, intents: Sequence[Intent], tally: Tally) -> Books:
    """Compare what was done to *product* since it was read with what its clients meant."""
    keys = [intent.key for intent in intents]
    orders = product.orders.values_list("id", "client_reference")
    payments = Payment.objects.filter(order__product=product)
    paid = payments.values_list("id", "order__client_reference")
    return Books(
        orders=_compare(dict(orders), tally.orders, keys),
        payments=_compare(dict(paid), tally.payments, keys),
        balanced=_balances(product),
    )


def _compare(
    rows: Mapping[int, str | None], told: Mapping[str, set[int]], keys: Sequence[str]
) -> Effects:
    made = Counter(rows.values())
    # Lost is also what a client never heard of, or was told of although it is not there.
    kept = [key for key in keys if made[key] and told.get(key) and told[key] <= rows.keys()]
    return Effects(made=len(rows), duplicates=len(rows) - len(made), lost=len(keys) - len(kept))


def _balances(product: Product) -> bool:
    ordered = product.orders.aggregate(total=Sum("quantity", default=0))["total"]
    return Product.objects.get(pk=product.pk).stock + int(ordered) == product.stock
