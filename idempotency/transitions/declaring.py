"""Declaring a method as a transition."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

import django_fsm
from asgiref.sync import async_to_sync, sync_to_async

from .journal import name_of
from .outcomes import TransitionOutcome
from .rows import TransitionsMixin
from .running import run_transition
from .steps import Step

Method = Callable[..., Any]


def transition(
    field: Any,
    source: Any = "*",
    target: Any = None,
    on_error: Any = None,
    conditions: Any = None,
    permission: Any = None,
    custom: dict[str, Any] | None = None,
) -> Callable[[Method], Method]:
    """
    Make a method of a model with `TransitionsMixin` the only way from *source* to *target*.

    The row decides by one conditional UPDATE before the body runs; the body, what it changed of
    the object and a row of `TransitionLog` follow in the same transaction. The call takes `by=`
    and `note=` for the log, and gives a `TransitionOutcome`.

    Args:
        field: the state field, or its name.
        source: a state or several; "*" is any, "+" any but the target.
        target: a state, None to stay, or django-fsm's `RETURN_VALUE` or `GET_STATE`.
        on_error: a state to move to if the body fails, instead of staying in the source.
        conditions: guards, functions of the object; all must be true.
        permission: asked for by the admin, as it is there that a person acts.
        custom: what django-fsm's admin and graphs use.

    The call raises: `TransitionConflict` (which also is a `TransitionNotAllowed`) in another state
    or if a guard forbids it; `StaleObject` if the row is gone or, with a version, has changed.
    """
    declare = django_fsm.transition(
        field, source, target, on_error, list(conditions or ()), permission, custom
    )

    def decorate(method: Method) -> Method:
        if hasattr(method, "_django_fsm"):
            declare(method)  # One more source of a method that is a transition already.
            return method
        if not inspect.isfunction(method):
            raise TypeError("@transition stands on a method: put it nearest to the function.")
        declare(method)
        return _dress(method)

    return decorate


def _dress(method: Method) -> Method:
    own = frozenset(inspect.signature(method).parameters)

    def run(instance: Any, body: Method, args: Any, kwargs: Any) -> TransitionOutcome:
        _require_ready(instance, method)
        by, note = name_of(kwargs.get("by")), str(kwargs.get("note") or "")
        given = {name: kwargs[name] for name in kwargs if name in own or name not in _FOR_THE_LOG}
        return run_transition(Step.of(instance, method), body, args, given, by=by, note=note)

    if inspect.iscoroutinefunction(method):

        @wraps(method)
        async def acall(instance: Any, /, *args: Any, **kwargs: Any) -> TransitionOutcome:
            # The transaction is that of one thread; the body runs in the caller's loop meanwhile.
            return await sync_to_async(run)(instance, async_to_sync(method), args, kwargs)

        return acall

    @wraps(method)
    def call(instance: Any, /, *args: Any, **kwargs: Any) -> TransitionOutcome:
        return run(instance, method, args, kwargs)

    return call


_FOR_THE_LOG = frozenset({"by", "note"})


def _require_ready(instance: Any, method: Method) -> None:
    if not isinstance(instance, TransitionsMixin):
        raise TypeError(
            f"{type(instance).__name__}.{method.__name__}() is a transition, and its model has no"
            " TransitionsMixin: name it first among the bases of the model."
        )
    if instance._state.adding or instance.pk is None:
        raise TypeError(
            f"This {instance._meta.label} is not saved yet, so there is no row to move:"
            f" save it before {method.__name__}()."
        )
