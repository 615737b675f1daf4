"""Where protection would be in vain, told as soon as it is seen."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import partial
from typing import Any

from django.http import HttpRequest
from django.views import View

from ..policy import Policy
from .transactions import atomic_requests, has_lease, own_transactions_of

_INSIDE = {
    "rest_framework": (
        "Django REST framework",
        "add IdempotentMixin of idempotency.contrib.drf to its class",
    ),
    "ninja": (
        "Django Ninja",
        "put idempotent_operation of idempotency.contrib.ninja on its operations",
    ),
}


def refuse_inner_authentication(view: Any) -> None:
    """
    Raise `TypeError` for a view that finds out inside who calls.

    Its callers would all be anonymous here: they would share keys, and a replay would ask nobody
    for a permission.
    """
    for module in frameworks_of(view):
        name, way_out = _INSIDE[module]
        raise TypeError(
            f"A view of {name} authenticates inside, where this protection cannot see who calls,"
            f" and keys would be shared between users. Protect it from inside: {way_out}."
        )


def name_of_view(view: Any) -> str:
    """Give the dotted name of *view*: of its class, if it is what `as_view()` gives."""
    named = getattr(view, "view_class", view)
    name = getattr(named, "__qualname__", None) or type(named).__name__
    return f"{getattr(named, '__module__', '')}.{name}"


def frameworks_of(view: Any) -> set[str]:
    """Give the packages of those frameworks that serve *view* and authenticate inside."""
    found = list(layers(view))
    for layer in layers(view):
        found += inspect.getmro(layer if isinstance(layer, type) else getattr(layer, "cls", object))
    modules = {str(getattr(each, "__module__", "")) for each in found}
    own = {name for name in modules if not name.startswith("ninja.openapi.")}  # Its documentation.
    return {name.partition(".")[0] for name in own} & _INSIDE.keys()


def layers(view: Any) -> Iterator[Any]:
    """Give *view*, and what it decorates or partially applies, the outermost first."""
    while view is not None:
        yield view
        view = view.func if isinstance(view, partial) else getattr(view, "__wrapped__", None)


def is_settled(view: Any, method: str | None = None) -> bool:
    """
    Whether *view* says itself how it is protected, or that it is not.

    A view of Ninja is settled if its operations are: those for *method*, or all that change data;
    one of Django REST framework also if it has none.
    """
    if any(_is_marked(layer) for layer in layers(view)):
        return True
    asked = {"POST", "PUT", "PATCH", "DELETE"} if method is None else {method}
    of_class = next((layer for layer in layers(view) if hasattr(layer, "cls")), None)
    if of_class is not None:
        handlers = {*(getattr(of_class, "actions", None) or dir(of_class.cls))}
        served = handlers & {*of_class.cls.http_method_names}
        return asked.isdisjoint(name.upper() for name in served)
    operations = operations_of(view)
    concerned = [one for one in operations or () if asked & {*one.methods}]
    return operations is not None and all(is_settled(one.view_func) for one in concerned)


def _is_marked(layer: Any) -> bool:
    is_protected = hasattr(layer, "idempotent_endpoint")
    return is_protected or getattr(layer, "not_idempotent", False) is True


def is_protecting(view: Any) -> bool:
    """Whether *view*, one of its methods, or one of its operations takes keys."""
    kind = getattr(view, "view_class", None)
    methods = [getattr(kind, name, None) for name in kind.http_method_names] if kind else []
    operations = [one.view_func for one in operations_of(view) or ()]
    return any(hasattr(one, "idempotent_endpoint") for one in (view, *methods, *operations))


def operations_of(view: Any) -> list[Any] | None:
    """Give the operations of a view of Ninja, which has them in a variable of its maker."""
    if getattr(view, "__module__", "") != "ninja.operation":
        return None
    made_by = [cell.cell_contents for cell in getattr(view, "__closure__", None) or ()]
    return next((one.operations for one in made_by if hasattr(one, "operations")), None)


def refuse_lease_in_a_transaction(view: Any, policy: Policy) -> None:
    """Raise `TypeError` for a method whose claim Django would wrap into a transaction."""
    name = getattr(view, "__qualname__", "").rpartition("<locals>.")[2]
    is_handler = "." in name and not name.endswith(".dispatch")
    if is_handler and opens_transactions(view) and has_lease(policy):
        raise TypeError(
            f"{name} cannot have a lease (mode='lease', or a store outside of the database) under"
            " ATOMIC_REQUESTS: Django opens the transaction around the class. Decorate dispatch,"
            " or what as_view() returns."
        )


def is_async_dispatch(view: Any, args: tuple[Any, ...]) -> bool:
    """Whether *view* is `dispatch` of an asynchronous class, which gives a coroutine unawaited."""
    owner = _owner_of(view, args)
    return isinstance(owner, View) and bool(owner.view_is_async)


def refuse_dispatch_that_authenticates(view: Any, args: tuple[Any, ...]) -> None:
    """Raise `TypeError` if *view* is `dispatch` of a class that finds out inside who calls."""
    owner = _owner_of(view, args)
    if owner is not None:
        refuse_inner_authentication(type(owner))


def _owner_of(view: Any, args: tuple[Any, ...]) -> Any:
    """Give the object whose `dispatch` *view* is, called with *args*; None if it is none."""
    if getattr(view, "__name__", "") != "dispatch":
        return None
    # `method_decorator` gives a partial function of what is bound, maybe below other decorators.
    while hasattr(view, "__wrapped__") and not hasattr(view, "func"):
        view = view.__wrapped__
    bound = getattr(getattr(view, "func", view), "__self__", None)
    return args[0] if bound is None and args else bound


def place_of_request(args: tuple[Any, ...], decorator: str) -> int:
    """Give the place of the request among the arguments of a view: 1 after self, else 0."""
    for place, argument in enumerate(args[:2]):
        if isinstance(argument, HttpRequest):
            return place
    found = ", ".join(type(argument).__name__ for argument in args[:2]) or "nothing"
    raise TypeError(
        f"{decorator} was called without Django's HttpRequest as first argument (or second,"
        f" after self), but with {found}: put it on the view that Django calls. In Django REST"
        " framework that is IdempotentMixin's part, or idempotent_api_view's. Nothing was run."
    )


def opens_transactions(view: Any) -> bool:
    """Whether Django opens a transaction around *view*."""
    return bool(atomic_requests(own_transactions_of(view)))
