"""Which names a view may give its protected actions: a wrong one would protect nothing, unseen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.views import View
from rest_framework.viewsets import ViewSetMixin

STANDARD = frozenset({"create", "update", "partial_update", "destroy", "list", "retrieve"})


def check_names(view: type[Any], names: Any, routed: Mapping[str, str]) -> None:
    """
    Tell of what *names*, the `idempotent_actions` of *view*, has too many.

    *routed* gives the actions of a set of views by their methods, as `as_view` has got them.

    Raises: `TypeError` for what holds no names, `ValueError` for those that *view* does not have.
    """
    if names is None:
        return
    if isinstance(names, str):
        raise TypeError(f'idempotent_actions holds names: idempotent_actions = ("{names}",).')
    known = _names_of(view) | set(routed.values())
    wrong = sorted(set(names) - known)
    if wrong:
        raise ValueError(
            f"idempotent_actions of {view.__name__} names {', '.join(wrong)}, and would protect"
            f" nothing by that. There are: {', '.join(sorted(known))}."
        )


def _names_of(view: type[Any]) -> set[str]:
    """Give the names of actions; those that are standard also if only another subclass has them."""
    if not issubclass(view, ViewSetMixin):
        return {*View.http_method_names}
    return {*STANDARD, *(name for one in view.get_extra_actions() for name in one.mapping.values())}
