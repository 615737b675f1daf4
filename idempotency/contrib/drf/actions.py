"""Which actions of a view are protected, and how."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from django.http import HttpRequest
from django.views import View
from rest_framework.viewsets import ViewSetMixin

from ...http import Endpoint
from ...http.options import endpoint_of
from ...http.requests import is_keyed
from ...http.transactions import alias_to_join

STANDARD = frozenset({"create", "update", "partial_update", "destroy", "list", "retrieve"})
Actions = Collection[str] | Mapping[str, Mapping[str, Any]] | None


class Plan:
    """
    What a view says of its actions by `idempotent_actions` and `idempotent_options`.

    *routed* gives the actions of a set of views by their methods, as `as_view` has got them.
    """

    def __init__(
        self,
        view: type[Any],
        actions: Actions,
        options: Mapping[str, Any],
        own_transactions: Collection[str],
        routed: Mapping[str, str],
    ) -> None:
        self.view = view
        self.actions = actions
        self.options = options
        self.own_transactions = own_transactions
        self.routed = routed
        self._endpoints: dict[str, Endpoint] = {}

    def check(self) -> None:
        """
        Tell of a wrong option, and of a name that would protect nothing, unseen.

        Raises: `TypeError`, `ValueError`.
        """
        names = self.actions
        if isinstance(names, str | property):
            raise TypeError('idempotent_actions holds names: idempotent_actions = ("create",).')
        wrong = sorted(name for name in names or () if not self._is_action(name))
        if wrong:
            raise ValueError(
                f"idempotent_actions of {self.view.__name__} names {', '.join(wrong)}, and would"
                " protect nothing by that: name actions of a set of views, or methods, such as"
                ' "post", of any other view.'
            )
        for name in names or ("",):
            self.endpoint_of(name)

    def action_of(self, method: str | None) -> str:
        """Give the action that serves *method*: in a view without actions, the method."""
        name = (method or "").lower()
        return self.routed.get(name, name)

    def is_protected(self, action: str) -> bool:
        return self.actions is None or action in self.actions

    def is_heeded(self, request: HttpRequest) -> bool:
        """Whether *request* has a key that counts here."""
        return is_keyed(request) and self.is_protected(self.action_of(request.method))

    def alias_to_join(self, request: HttpRequest) -> str | None:
        """Give the database whose transaction around *request* its claim may be part of."""
        policy = self.endpoint_of(self.action_of(request.method)).policy
        return alias_to_join(policy, self.own_transactions)

    def endpoint_of(self, action: str) -> Endpoint:
        """Give how *action* is protected."""
        endpoint = self._endpoints.get(action)
        if endpoint is None:
            own = self.actions.get(action, {}) if isinstance(self.actions, Mapping) else {}
            name = ".".join(filter(None, [self.view.__module__, self.view.__qualname__, action]))
            endpoint = self._endpoints[action] = endpoint_of(
                name, own_transactions=self.own_transactions, **{**self.options, **own}
            )
        return endpoint

    def _is_action(self, name: str) -> bool:
        if not issubclass(self.view, ViewSetMixin):
            return name in View.http_method_names
        # Standard ones may be named by a base, and be there in some of its subclasses only.
        return name in STANDARD or callable(getattr(self.view, name, None))
