"""One lock, around a block or around each call of a function, synchronous or not."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from types import TracebackType
from typing import Any, Literal, TypeVar, cast

from asgiref.sync import iscoroutinefunction
from django.utils.asyncio import async_unsafe

from ..exceptions import IdempotencyError, LockReentered, LockUnavailable
from . import context
from .aliases import get_backend
from .entering import Entrance, Terms
from .held import HeldLock
from .names import Namer, literal, namer_for

Function = TypeVar("Function", bound=Callable[..., Any])
OnLocked = Literal["raise", "skip"] | Callable[[LockUnavailable], Any]


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

    @async_unsafe("A lock in asynchronous code is entered by `async with`, or by `@`.")
    def __enter__(self) -> HeldLock:
        held = self._entrance_of_block().enter()
        self._entered.append(held)
        return held

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        held = self._entered_here()
        self._entrance(held.name).leave(held, failed=kind is not None)

    async def __aenter__(self) -> HeldLock:
        held = await self._entrance_of_block().aenter()
        self._entered.append(held)
        return held

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        held = self._entered_here()
        await self._entrance(held.name).aleave(held, failed=kind is not None)

    def __call__(self, function: Function) -> Function:
        """Give *function*, which holds the lock during each call."""
        _refuse_what_runs_later(function)
        namer = namer_for(self.name, function)
        wrap = self._wrapped_async if iscoroutinefunction(function) else self._wrapped
        return cast(Function, wraps(function)(wrap(function, namer)))

    def _wrapped(self, function: Callable[..., Any], namer: Namer) -> Callable[..., Any]:
        def locked(*args: Any, **kwargs: Any) -> Any:
            entrance = self._entrance(namer(*args, **kwargs))
            try:
                held = entrance.enter()
            except IdempotencyError as error:
                return self.refuse(error, args)
            try:
                result = function(*args, **kwargs)
            except BaseException:
                entrance.leave(held, failed=True)
                raise
            try:
                entrance.leave(held, failed=False)
            except IdempotencyError as error:
                return self.refuse(error, args)
            return result

        return locked

    def _wrapped_async(self, function: Callable[..., Any], namer: Namer) -> Callable[..., Any]:
        async def locked(*args: Any, **kwargs: Any) -> Any:
            entrance = self._entrance(namer(*args, **kwargs))
            try:
                held = await entrance.aenter()
            except IdempotencyError as error:
                return self.refuse(error, args)
            try:
                result = await function(*args, **kwargs)
            except BaseException:
                await entrance.aleave(held, failed=True)
                raise
            try:
                await entrance.aleave(held, failed=False)
            except IdempotencyError as error:
                return self.refuse(error, args)
            return result

        return locked

    def refuse(self, error: IdempotencyError, args: tuple[Any, ...]) -> Any:
        """Give what a call gives that did not get the lock, or lost it."""
        if self.on_locked == "raise" or not isinstance(error, LockUnavailable):
            raise error
        if isinstance(error, LockReentered):  # A mistake, not another holder.
            raise error
        return None if self.on_locked == "skip" else self.on_locked(error)

    def _entrance(self, name: str) -> Entrance:
        return Entrance(get_backend(self.alias), name, self.terms)

    def _entrance_of_block(self) -> Entrance:
        if self.on_locked != "raise":
            raise TypeError(
                "on_locked is for functions: a block cannot be skipped. Catch LockUnavailable."
            )
        return self._entrance(literal(self.name))

    def _entered_here(self) -> HeldLock:
        """Take the lock that this context entered from those that all contexts did."""
        for held in reversed(self._entered):
            if context.remembered((self.alias, held.name)) is held:
                break
        else:
            held = self._entered[-1]  # It is left in another context than it was entered in.
        self._entered.remove(held)
        return held


def _refuse_what_runs_later(function: Callable[..., Any]) -> None:
    if inspect.isclass(function):
        raise TypeError("A lock goes on a function or a method, not on a class.")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            "A generator runs after its call has returned, when the lock would be free again: take"
            " the lock inside, or around the loop that uses it."
        )
    if not callable(function):
        raise TypeError(f"A lock goes on a function, not on {function!r}.")
