"""Entering a lock and leaving it, by terms that are checked when they are made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from asgiref.sync import iscoroutinefunction

from ..backends import LONGEST, SHORTEST
from ..exceptions import IdempotencyError, LockReentered, LockUnavailable, StaleLock
from ..renewal import renewal
from . import context
from .base import BaseLockBackend, Grant
from .context import Place
from .events import Life
from .held import HeldLock, OnLost
from .leaving import finish_leaving, is_unfinished, leave
from .taking import Taking, in_thread, is_inside_sync_code


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """
    How a lock is wanted; durations are seconds.

    Raises: `ValueError` for a value that means nothing, when it is made.
    """

    wait: float = 0
    lease: float | None = None
    renew: bool = True
    on_lost: OnLost | None = None
    reentrant: bool = False

    def __post_init__(self) -> None:
        if not _is_seconds(self.wait) or self.wait < 0:
            raise ValueError(
                f"wait is a number of seconds, from 0 to {LONGEST}, not {self.wait!r:.80}."
            )
        if self.lease is not None and not (_is_seconds(self.lease) and self.lease >= SHORTEST):
            raise ValueError(
                f"lease is a number of seconds, from {SHORTEST} to {LONGEST}, not"
                f" {self.lease!r:.80}."
            )
        if self.on_lost is None:
            return
        if not callable(self.on_lost):
            raise ValueError(f"on_lost is a function that takes the lock, not {self.on_lost!r}.")
        if iscoroutinefunction(self.on_lost):
            raise ValueError("on_lost is called in a thread without a loop: it is synchronous.")


def _is_seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value <= LONGEST


@contextmanager
def _told(life: Life) -> Iterator[None]:
    """Announce if a lock is refused in the block."""
    try:
        yield
    except IdempotencyError as error:
        life.refused(error)
        raise


class Entrance:
    """One name in one backend, for this context to enter and to leave."""

    __slots__ = ("backend", "name", "place", "template", "terms")

    def __init__(
        self, backend: BaseLockBackend, name: str, terms: Terms, template: str | None = None
    ) -> None:
        self.backend = backend
        self.name = name
        self.terms = terms
        self.template = template
        self.place: Place = (backend.place, name)

    def enter(self) -> HeldLock:
        """
        Hold the lock.

        Raises: `LockUnavailable`, `LockReentered`, `StoreUnavailable`.
        """
        finish_leaving(self.place)
        held = self._again()
        if held is None:
            life, taking = self._life(), self._taking()
            with _told(life):
                held = self._hold(taking, taking.take(), life)
        return held

    async def aenter(self) -> HeldLock:
        """Do what `enter` does, for asynchronous code."""
        if is_unfinished(self.place):
            await self._in_thread(lambda: finish_leaving(self.place))
        held = self._again()
        if held is None:
            life, taking = self._life(), self._taking()
            with _told(life):
                held = self._hold(taking, await taking.atake(), life)
        return held

    def leave(self, held: HeldLock, *, failed: bool) -> None:
        """Let go of *held*; raise `StaleLock` if it was lost, unless the block *failed* anyway."""
        try:
            leave(held, failed=failed)
        finally:
            self._forget(held)

    async def aleave(self, held: HeldLock, *, failed: bool) -> None:
        """Do what `leave` does, for asynchronous code."""
        try:
            await self._in_thread(lambda: leave(held, failed=failed))
        finally:
            self._forget(held)

    async def _in_thread(self, step: Callable[[], None]) -> None:
        sensitive = self.backend.thread_sensitive or is_inside_sync_code()
        await in_thread(step, thread_sensitive=sensitive)

    def _again(self) -> HeldLock | None:
        """Give the lock if this context has it already, and may have it once more."""
        held = context.remembered(self.place)
        if held is None or held.is_over:
            return None
        if held.lost and not (held.is_entered and self.terms.reentrant):
            return None  # It may be another's, so that only the backend knows.
        if held.enter(reentrant=self.terms.reentrant):
            return self._still_held(held)
        if held.is_entered:
            raise LockReentered(
                f"This code holds the lock {self.name!r} already, and would wait for itself. Say"
                " reentrant=True to enter it again."
            )
        return None

    def _still_held(self, held: HeldLock) -> HeldLock:
        try:
            held.assert_held()
        except StaleLock:
            leave(held, failed=True)
            raise
        if self.terms.on_lost is not None:
            held.tell_also(self.terms.on_lost)
        return held

    def _life(self) -> Life:
        return Life(self.name, self.template, self.backend.alias)

    def _taking(self) -> Taking:
        lease = self.terms.lease
        if lease is None:
            lease = self.backend.lease
        else:
            self.backend.check_lease(lease)
        return Taking(self.backend, self.name, self.terms.wait, lease)

    def _hold(self, taking: Taking, grant: Grant, life: Life) -> HeldLock:
        try:
            held = HeldLock(
                self.backend,
                grant,
                taking.started_at,
                life,
                renew=self.terms.renew,
                on_lost=self.terms.on_lost,
            )
        except BaseException:  # A signal: nobody has the lock, who could leave it.
            renewal.run_soon(taking.withdraw, self.backend)
            raise
        if held.remaining <= 0:
            leave(held, failed=True)
            raise LockUnavailable(
                f"Taking the lock {self.name!r} took longer than its lease; nothing was done.",
                retry_after=1,
            )
        context.remember(self.place, held)
        life.taken(tries=taking.tries)
        return held

    def _forget(self, held: HeldLock) -> None:
        # One that waits for the end of its transaction may be entered again until then.
        is_needed = held.is_entered or held.is_leaving
        if not is_needed and context.remembered(self.place) is held:
            context.forget(self.place)
