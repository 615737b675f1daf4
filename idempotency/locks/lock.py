"""One lock, around a block or around each call of a function, synchronous or not."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from inspect import isawaitable
from types import TracebackType
from typing import Any, Literal, TypeVar, cast

from asgiref.sync import iscoroutinefunction
from django.utils.asyncio import async_unsafe

from ..exceptions import IdempotencyError, LockReentered, LockUnavailable, StaleLock
from . import context
from .aliases import get_backend
from .entering import Entrance, Terms
from .held import HeldLock
from .names import Namer, literal, namer_for

Function = TypeVar("Function", bound=Callable[..., Any])
OnLocked = Literal["raise", "skip"] | Callable[[LockUnavailable], Any]

_ASYNC = "Asynchronous code holds a lock by `async with`, or on a coroutine function."


class Lock:
    """What `lock` gives: for `with`, `async with` and `@`, and for any number of threads."""

    def __init__(self, name: str | Namer, alias: str, on_locked: OnLocked, terms: Terms) -> None:
        if not (isinstance(name, str) or callable(name)):
            raise TypeError(f"A lock's name is a string or a function, not {name!r}.")
        if on_locked not in ("raise", "skip") and not callable(on_locked):
            raise ValueError(f"on_locked is 'raise', 'skip' or a function, not {on_locked!r}.")
        self.name = name
        self.alias = alias
        self.on_locked = on_locked
        self.terms = terms
        self._entered: list[HeldLock] = []

    @async_unsafe(_ASYNC)
    def __enter__(self) -> HeldLock:
        return self._begin_block(self._entrance_of_block().enter())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        held = self._end_block()
        self._entrance(held.name).leave(held, failed=kind is not None)

    async def __aenter__(self) -> HeldLock:
        return self._begin_block(await self._entrance_of_block().aenter())

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        held = self._end_block()
        await self._entrance(held.name).aleave(held, failed=kind is not None)

    def __call__(self, function: Function) -> Function:
        """Give *function*, which holds the lock during each call."""
        _refuse_what_runs_later(function)
        namer = namer_for(self.name, function)
        if iscoroutinefunction(function):
            return cast(Function, wraps(function)(self._wrapped_async(function, namer)))
        if iscoroutinefunction(self.on_locked):
            raise TypeError("on_locked of a synchronous function is synchronous as well.")
        return cast(Function, wraps(function)(async_unsafe(_ASYNC)(self._wrapped(function, namer))))

    def _wrapped(self, function: Callable[..., Any], namer: Namer) -> Callable[..., Any]:
        def locked(*args: Any, **kwargs: Any) -> Any:
            entrance = self._entrance(namer(*args, **kwargs), self._template)
            try:
                held = entrance.enter()
            except IdempotencyError as error:
                return self.refuse(error, args, kwargs)
            try:
                result = _finished(function(*args, **kwargs))
            except BaseException as error:
                entrance.leave(held, failed=True)
                return self.fail(error, args, kwargs)
            try:
                entrance.leave(held, failed=False)
            except StaleLock as error:
                return self.tell_lost(error, args, kwargs, result)
            return result

        return locked

    def _wrapped_async(self, function: Callable[..., Any], namer: Namer) -> Callable[..., Any]:
        async def locked(*args: Any, **kwargs: Any) -> Any:
            entrance = self._entrance(namer(*args, **kwargs), self._template)
            try:
                held = await entrance.aenter()
            except IdempotencyError as error:
                instead = self.refuse(error, args, kwargs)
                return await instead if isawaitable(instead) else instead
            try:
                result = await function(*args, **kwargs)
            except BaseException as error:
                await entrance.aleave(held, failed=True)
                return self.fail(error, args, kwargs)
            try:
                await entrance.aleave(held, failed=False)
            except StaleLock as error:
                return self.tell_lost(error, args, kwargs, result)
            return result

        return locked

    def refuse(self, error: IdempotencyError, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Give what a call gives that did not get the lock."""
        if self.on_locked == "raise" or not isinstance(error, LockUnavailable):
            raise error
        if isinstance(error, LockReentered):  # A mistake, not another holder.
            raise error
        return None if self.on_locked == "skip" else self.on_locked(error)

    def fail(self, error: BaseException, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Give what a call gives whose function raised *error*."""
        raise error

    def tell_lost(
        self, error: StaleLock, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> Any:
        """Give what a call gives that lost the lock, but came to its *result*."""
        raise error

    def _entrance(self, name: str, template: str | None = None) -> Entrance:
        return Entrance(get_backend(self.alias), name, self.terms, template)

    @property
    def _template(self) -> str | None:
        return self.name if isinstance(self.name, str) else None

    def _entrance_of_block(self) -> Entrance:
        if self.on_locked != "raise":
            raise TypeError(
                "on_locked is for functions: a block cannot be skipped. Catch LockUnavailable."
            )
        return self._entrance(literal(self.name))

    def _begin_block(self, held: HeldLock) -> HeldLock:
        context.begin_block(self, held)
        self._entered.append(held)
        return held

    def _end_block(self) -> HeldLock:
        held = context.end_block(self)
        if held is None:  # It is left in another context than it was entered in.
            if len(self._entered) != 1:
                raise RuntimeError(
                    f"Nobody can tell which block of {self.name!r} is left here: it was entered in"
                    " another context. Leave it there, or call release() of what it gave."
                )
            held = self._entered[0]
        self._entered.remove(held)
        return held


def _finished(result: Any) -> Any:
    """Give *result*, unless it is still to be made, when the lock would be free again."""
    if isawaitable(result) or inspect.isgenerator(result) or inspect.isasyncgen(result):
        if hasattr(result, "close"):
            result.close()
        raise TypeError(
            f"The function gave {type(result).__name__}, whose work comes after its call, when the"
            " lock is free again: put the lock on the coroutine function itself, or inside."
        )
    return result


def _refuse_what_runs_later(function: Callable[..., Any]) -> None:
    if inspect.isclass(function):
        raise TypeError("A lock goes on a function or a method, not on a class.")
    if isinstance(function, staticmethod | classmethod):
        raise TypeError(f"Put the lock below @{type(function).__name__}, on the function itself.")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            "A generator runs after its call has returned, when the lock would be free again: take"
            " the lock inside, or around the loop that uses it."
        )
    if not callable(function):
        raise TypeError(f"A lock goes on a function, not on {function!r}.")
