"""The decorators: a view, or any function, that takes effect once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any, TypeVar, cast, overload

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.http import HttpRequest

from .codecs import JsonCodec
from .fingerprints import fingerprint as fingerprint_value
from .http import Endpoint
from .http.options import OPTIONS
from .http.placement import (
    is_async_dispatch,
    name_of_view,
    place_of_request,
    refuse_dispatch_that_authenticates,
    refuse_inner_authentication,
    refuse_lease_in_a_transaction,
)
from .http.requests import Scope
from .http.responses import Final
from .http.transactions import OwnTransactions, own_transactions_of
from .policy import Mode, OnCrash, OnError, OnStoreError, Policy
from .protocol import Run, make_call

View = TypeVar("View", bound=Callable[..., Any])


@overload
def idempotent_view(view: View, /) -> View: ...


@overload
def idempotent_view(
    *,
    required: bool = True,
    mode: Mode | None = None,
    scope: Scope | None = None,
    fingerprint: Callable[[HttpRequest], Any] | None = None,
    ignore: Sequence[str] = (),
    wait: float = 0,
    lease: float | None = None,
    retention: float | None = None,
    final: Final | None = None,
    buffer: bool = False,
    on_error: OnError = "release",
    on_crash: OnCrash = "retry",
    on_store_error: OnStoreError = "refuse",
    store: str = "default",
) -> Callable[[View], View]: ...


def idempotent_view(
    view: Any = None,
    /,
    *,
    required: bool = True,
    scope: Scope | None = None,
    fingerprint: Callable[[HttpRequest], Any] | None = None,
    ignore: Sequence[str] = (),
    final: Final | None = None,
    buffer: bool = False,
    **policy: Any,
) -> Any:
    """
    Let each idempotency key make the view take effect once, and replay its answer after that.

    Works on functions, on methods of a `View` (through `method_decorator`, or directly), and on
    what `as_view()` gives; synchronous and asynchronous.

    Args:
        required: answer 400 if a POST or PATCH has no key.
        mode: "atomic" puts claim, effects and answer into one transaction; "lease" commits the
            claim first. None takes "atomic" where it can be.
        scope: function of the request that says who may share keys.
        fingerprint: function of the request that gives what makes two requests the same.
        ignore: JSON pointers into the body that may differ between retries.
        wait: seconds to wait for a twin that is still running; 0 answers 409 at once.
        lease: seconds after which a claim that is not renewed may be taken over.
        retention: seconds for which the answer is replayed.
        final: function of the response: whether it is replayed; in place of the table of statuses.
        buffer: read streams, so that they can be replayed.
        on_error: "release" lets an error be retried, "store" replays it, "block" keeps it unknown.
        on_crash: "retry" lets an ended lease be taken over, "block" makes the outcome unknown.
        on_store_error: "refuse" answers 503, "run" runs the view unprotected.
        store: alias in `IDEMPOTENCY_STORES`.

    Raises: `TypeError` or `ValueError`, when decorating, for what cannot be protected.
    """
    endpoint = partial(
        Endpoint,
        policy=Policy.of(policy, others=OPTIONS),
        required=required,
        scope=scope,
        fingerprint=fingerprint,
        ignore=ignore,
        final=final,
        buffer=buffer,
    )
    endpoint()  # Tells of a wrong option here, not at the first request.

    def decorate(view: Any) -> Any:
        return _protect(view, endpoint)

    return decorate if view is None else decorate(view)


def _protect(view: Any, make_endpoint: Callable[..., Endpoint]) -> Any:
    _refuse_unprotectable(view)
    own = OwnTransactions(own_transactions_of(view))
    endpoint = make_endpoint(view_name=name_of_view(view), own_transactions=own.aliases)
    refuse_lease_in_a_transaction(view, endpoint.policy)
    if iscoroutinefunction(view):
        endpoint.policy.refuse_async()

        @wraps(view)
        async def protected(*args: Any, **kwargs: Any) -> Any:
            return await endpoint.aserve(_request(args), partial(view, *args, **kwargs))

    else:

        @wraps(view)
        def protected(*args: Any, **kwargs: Any) -> Any:
            refuse_dispatch_that_authenticates(view, args)
            respond = partial(view, *args, **kwargs)
            if is_async_dispatch(view, args):
                endpoint.policy.refuse_async()
                return endpoint.aserve(_request(args), respond)
            return endpoint.serve(_request(args), respond)

    protected.idempotent_endpoint = endpoint  # type: ignore[attr-defined]
    own.mark(protected)
    return protected


def _refuse_unprotectable(view: Any) -> None:
    if isinstance(view, type):
        raise TypeError(
            f"idempotent_view cannot protect the class {view.__name__}: decorate one of its"
            ' methods, or the class with @method_decorator(idempotent_view, name="dispatch"), or'
            " what its as_view() returns."
        )
    if isinstance(view, staticmethod | classmethod | property) or not callable(view):
        raise TypeError(f"idempotent_view protects functions, not a {type(view).__name__}.")
    if inspect.isgeneratorfunction(view) or inspect.isasyncgenfunction(view):
        raise TypeError("idempotent_view cannot protect a generator: return a response instead.")
    refuse_inner_authentication(view)


def _request(args: tuple[Any, ...]) -> HttpRequest:
    request: HttpRequest = args[place_of_request(args, "idempotent_view")]
    return request


def idempotent(
    *,
    key: Callable[..., str],
    scope: str | Callable[..., str] = "shared",
    operation: str | None = None,
    fingerprint: Callable[..., Any] | None = None,
    mode: Mode | None = None,
    wait: float = 0,
    lease: float | None = None,
    retention: float | None = None,
    on_error: OnError = "release",
    on_crash: OnCrash = "retry",
    on_store_error: OnStoreError = "refuse",
    store: str = "default",
) -> Callable[[View], View]:
    """
    Let a function take effect once for each key, and give its first result to every later call.

    The result must be JSON. A raised error rolls back and releases the key.

    Args:
        key: function of the same arguments that gives the key, the same one for every delivery.
        scope: who may share keys, or a function of the same arguments.
        operation: what is done; the function's dotted name if None.
        fingerprint: function of the same arguments that gives what makes two calls the same; a key
            that comes with another one raises `KeyReused`. None compares nothing.

    The other arguments are those of `idempotent_view`. Raises at a call what `run_once` raises.
    """
    if not callable(key):
        raise TypeError(f"key is a function of the call's arguments, not {key!r}.")
    policy = Policy(
        mode=mode,
        wait=wait,
        lease=lease,
        retention=retention,
        on_error=on_error,
        on_crash=on_crash,
        on_store_error=on_store_error,
        store=store,
    )

    def decorate(function: View) -> View:
        return cast(View, _once(function, policy, key, scope, operation, fingerprint))

    return decorate


def _once(
    function: Any,
    policy: Policy,
    key: Callable[..., str],
    scope: str | Callable[..., str],
    operation: str | None,
    fingerprint: Callable[..., Any] | None,
) -> Any:
    if isinstance(function, type) or not callable(function):
        raise TypeError(f"idempotent protects functions, not {function!r}.")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError("idempotent cannot protect a generator: return a result instead.")
    name = operation or f"{function.__module__}.{function.__qualname__}"

    def run(*args: Any, **kwargs: Any) -> Run[Any]:
        call = make_call(
            scope(*args, **kwargs) if callable(scope) else scope,
            name,
            key(*args, **kwargs),
            fingerprint_value(fingerprint(*args, **kwargs)) if fingerprint else None,
        )
        return Run(call, policy, JsonCodec())

    if iscoroutinefunction(function):
        policy.refuse_async()

        @wraps(function)
        async def protected(*args: Any, **kwargs: Any) -> Any:
            call = await sync_to_async(run)(*args, **kwargs)
            return (await call.aexecute(partial(function, *args, **kwargs))).result

    else:

        @wraps(function)
        def protected(*args: Any, **kwargs: Any) -> Any:
            return run(*args, **kwargs).execute(partial(function, *args, **kwargs)).result

    return protected
