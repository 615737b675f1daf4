"""Declaring a method as a transition."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, cast

import django_fsm
from asgiref.sync import async_to_sync, sync_to_async

from .journal import FOR_THE_LOG, name_of
from .rows import OURS, TransitionsMixin
from .running import Run
from .steps import Step
from .underway import is_called_by_its_override

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
    sources = (
        source if isinstance(source, str | int) or not isinstance(source, Iterable) else [*source]
    )
    declare = django_fsm.transition(
        field, sources, target, on_error, list(conditions or ()), permission, custom
    )

    def decorate(method: Method) -> Method:
        if hasattr(method, "_django_fsm"):
            declare(method)  # One more source of a method that is a transition already.
            return method
        if not inspect.isfunction(method):
            raise TypeError("@transition stands on a method: put it nearest to the function.")
        if inspect.isgeneratorfunction(method) or inspect.isasyncgenfunction(method):
            raise TypeError(f"{method.__name__}() is a generator: a call of it would run nothing.")
        declare(method)
        return _dress(method)

    return decorate


def _dress(method: Method) -> Method:
    signature = inspect.signature(method)

    def run(instance: Any, body: Method, args: Any, kwargs: Any) -> Any:
        _require_ready(instance, method)
        step = Step.of(instance, method)
        said = {name: kwargs.get(name) for name in FOR_THE_LOG}
        given = {
            name: value
            for name, value in kwargs.items()
            if name in signature.parameters or name not in FOR_THE_LOG
        }
        if is_called_by_its_override(step):
            return body(instance, *args, **given)
        bound = signature.bind(instance, *args, **given).arguments
        said |= {name: bound[name] for name in FOR_THE_LOG & bound.keys()}
        by, note = name_of(said["by"]), "" if said["note"] is None else str(said["note"])
        return Run(step, body, args, given, by=by, note=note).run()

    if inspect.iscoroutinefunction(method):

        @wraps(method)
        async def acall(instance: Any, /, *args: Any, **kwargs: Any) -> Any:
            # The transaction is that of one thread; the body runs in the caller's loop meanwhile.
            return await sync_to_async(run)(instance, async_to_sync(method), args, kwargs)

        return _mark(acall)

    @wraps(method)
    def call(instance: Any, /, *args: Any, **kwargs: Any) -> Any:
        return run(instance, method, args, kwargs)

    return _mark(call)


def _mark(call: Any) -> Method:
    call.alters_data = True  # A template must not run it.
    setattr(call, OURS, True)
    return cast("Method", call)


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
