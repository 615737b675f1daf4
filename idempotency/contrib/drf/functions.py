"""Functions as views of Django REST framework."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rest_framework.decorators import api_view

from .views import IdempotentMixin


def idempotent_api_view(methods: Sequence[str], **options: Any) -> Callable[[Any], Any]:
    """
    Do what `api_view` does, and let each idempotency key make the function take effect once.

    Stands in its place, above `permission_classes` and its like.

    Args:
        methods: those that the view takes.
        options: those of `idempotent_view`.
    """

    def decorate(function: Any) -> Any:
        kind = api_view(methods)(function).cls
        own = {
            "idempotent_options": options,
            "__doc__": function.__doc__,
            "__module__": function.__module__,
        }
        protected: Any = type(function.__name__, (IdempotentMixin, kind), own)
        return protected.as_view()

    return decorate
