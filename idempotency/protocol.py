"""The claim protocol: claim, run, complete or release; or replay what is known."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from asgiref.sync import sync_to_async

from .claims import running
from .codecs import Codec, JsonCodec, Verdict
from .exceptions import (
    IdempotencyError,
    KeyInProgress,
    KeyReused,
    OutcomeUnknown,
    StaleClaim,
    StoreUnavailable,
)
from .keys import check_key, check_name, new_token
from .policy import Policy
from .renewal import Holding, renewal
from .stores import get_store
from .stores.base import Answer, Call, Claim, Interrupted, Seen, State, Unconfirmed

logger = logging.getLogger("idempotency")
Result = TypeVar("Result")

TRIES = 3
"""How often a claim is tried that a deadlock or a lost connection interrupts."""


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Result]):
    """The result of a call, and whether an earlier call had made it."""

    result: Result
    replayed: bool


def make_call(scope: str, operation: str, key: str, fingerprint: str | None) -> Call:
    """Give a call whose parts every store can keep; raise `KeyInvalid` or `ValueError` if not."""
    check_name(scope, "scope")
    check_name(operation, "operation")
    return Call(scope, operation, check_key(key), fingerprint or "")


class Run(Generic[Result]):
    """One call on its way through the protocol."""

    def __init__(self, call: Call, policy: Policy, codec: Codec[Result]) -> None:
        self.call = call
        self.policy = policy
        self.codec = codec
        self.store = get_store(policy.store)
        self.lease = policy.lease or self.store.lease
        self.retention = policy.retention or self.store.retention
        self.token = new_token()
        self.has_started = False

    def execute(self, work: Callable[[], Result]) -> Outcome[Result]:
        attempt = self._atomic if self.policy.mode_for(self.store) == "atomic" else self._leased
        retries = _Retries(self.policy.wait, 1 if self.store.in_transaction else TRIES)
        while True:
            try:
                return attempt(work)
            except IdempotencyError as error:
                if self.has_started or not retries.cures(error):
                    if self._runs_unprotected(error):
                        return Outcome(work(), replayed=False)
                    raise
            time.sleep(retries.pause())

    async def aexecute(self, work: Callable[[], Awaitable[Result]]) -> Outcome[Result]:
        retries = _Retries(self.policy.wait, TRIES)
        while True:
            try:
                return await _to_its_end(self._aleased(work))
            except IdempotencyError as error:
                if self.has_started or not retries.cures(error):
                    if self._runs_unprotected(error):
                        return Outcome(await work(), replayed=False)
                    raise
            await asyncio.sleep(retries.pause())

    def _runs_unprotected(self, error: IdempotencyError) -> bool:
        """Whether the store is away, and the work was to run even so."""
        if self.has_started or not isinstance(error, StoreUnavailable):
            return False
        if self.policy.on_store_error == "refuse":
            return False
        logger.error("%s runs unprotected.", self.call.operation, exc_info=error)
        return True

    def _atomic(self, work: Callable[[], Result]) -> Outcome[Result]:
        found: _Found[Result] | None = self._peek()
        if found is not None:
            return _outcome(found)
        finished: _Finished[Result] | None = None
        try:
            with self.store.transaction():
                found = self._claim(lease=None)
                if isinstance(found, Claim):
                    finished = self._finish(found, work)
        except Unconfirmed:
            if isinstance(found, Claim) and not self._was_settled(found):
                raise
        return _outcome(finished or found)

    def _leased(self, work: Callable[[], Result]) -> Outcome[Result]:
        found = self._peek() or self._claim(self.lease)
        return _outcome(self._finish(found, work) if isinstance(found, Claim) else found)

    async def _aleased(self, work: Callable[[], Awaitable[Result]]) -> Outcome[Result]:
        found = await sync_to_async(lambda: self._peek() or self._claim(self.lease))()
        if not isinstance(found, Claim):
            return _outcome(found)
        try:
            with self._started(found):
                result = await work()
            verdict, answer = self._judge(result)
        except BaseException as error:
            await sync_to_async(self._settle_error)(found, error)
            raise
        await sync_to_async(self._settle_after)(found, verdict, answer)
        return Outcome(result, replayed=False)

    def _peek(self) -> Outcome[Result] | IdempotencyError | None:
        """Give what a cheap look already decides."""
        seen = self.store.peek(self.call)
        if seen is None or self._may_claim(seen):
            return None
        return self._read(seen)

    def _claim(self, lease: float | None) -> _Found[Result]:
        found = self.store.claim(
            self.call,
            token=self.token,
            lease=lease,
            retention=self.retention,
            take_over=self.policy.on_crash == "retry",
        )
        if found is None:
            return KeyInProgress(retry_after=1)
        return self._read(found) if isinstance(found, Seen) else found

    def _may_claim(self, seen: Seen) -> bool:
        takes_over = not seen.is_abandoned or self.policy.on_crash == "retry"
        return takes_over and seen.may_be_claimed(self.call.fingerprint)

    def _read(self, seen: Seen) -> Outcome[Result] | IdempotencyError:
        """Give what a record means for this call: the one place where inputs are compared."""
        if not seen.matches(self.call.fingerprint):
            return KeyReused()
        if seen.state == "completed":
            return Outcome(self.codec.load(seen.answer), replayed=True)
        if seen.state == "unknown":
            return OutcomeUnknown()
        if self.policy.on_crash == "block" and seen.is_abandoned and self._block(seen):
            return OutcomeUnknown()
        return KeyInProgress(retry_after=max(1.0, seen.lease_left or 0))

    def _block(self, seen: Seen) -> bool:
        blocked = self.store.block(self.call, seen)
        if blocked:
            logger.error("%s died, and its outcome is unknown.", self.call.operation)
        return blocked

    def _finish(self, claim: Claim, work: Callable[[], Result]) -> _Finished[Result]:
        """Run the work, and settle in the transaction of its effects or, if undone, after it."""
        try:
            with self._effects(claim):
                with self._started(claim):
                    result = work()
                verdict, answer = self._judge(result)
                if verdict is Verdict.FAIL:
                    self.store.roll_back()
                else:
                    self._settle(claim, verdict, answer)
        except Unconfirmed:
            if not self._was_settled(claim):
                raise
        except BaseException as error:
            if self._dies_with_its_effects(claim):
                raise
            self._settle_error(claim, error)
            return _Raised(error)
        if verdict is Verdict.FAIL and not self._dies_with_its_effects(claim):
            self._settle_after(claim, verdict, answer)
        return Outcome(result, replayed=False)

    def _dies_with_its_effects(self, claim: Claim) -> bool:
        """Whether the claim itself is undone by undoing the effects."""
        return claim.lease is None and self.policy.on_error == "release"

    def _effects(self, claim: Claim) -> AbstractContextManager[object]:
        """Open what effects can be undone by: the claim's own transaction, or one within."""
        return nullcontext() if self._dies_with_its_effects(claim) else self.store.transaction()

    @contextmanager
    def _started(self, claim: Claim) -> Iterator[None]:
        self.has_started = True
        with self._renewed(claim) as holding, running(claim, holding):
            yield

    def _renewed(self, claim: Claim) -> AbstractContextManager[Holding | None]:
        if claim.lease is None:
            return nullcontext()
        return renewal.holding(self.store, claim, claim.lease)

    def _judge(self, result: Result) -> tuple[Verdict, Answer]:
        verdict = self.codec.judge(result)
        if self.store.is_rolling_back():
            verdict = Verdict.FAIL
        kept = verdict is Verdict.KEEP or self.policy.on_error == "store"
        return verdict, self.codec.dump(result) if kept else Answer()

    def _state(self, verdict: Verdict) -> State:
        if verdict is Verdict.KEEP:
            return "completed"
        if verdict is Verdict.FREE or self.policy.on_error == "release":
            return "released"
        return "completed" if self.policy.on_error == "store" else "unknown"

    def _settle(self, claim: Claim, verdict: Verdict, answer: Answer) -> None:
        self.store.settle(claim, self._state(verdict), answer, self.retention)

    def _settle_after(self, claim: Claim, verdict: Verdict, answer: Answer) -> None:
        """Settle what is over and cannot be undone any more, whatever the connection does."""
        for _ in range(TRIES):
            try:
                return self._settle(claim, verdict, answer)
            except (StoreUnavailable, StaleClaim) as error:
                failure = error
                if self._was_settled(claim):
                    return None
                if isinstance(error, StaleClaim):
                    raise
        logger.error("%s could not be settled.", self.call.operation, exc_info=failure)
        return None

    def _settle_error(self, claim: Claim, error: BaseException) -> None:
        if isinstance(error, StaleClaim):
            return
        kept = isinstance(error, Exception) and self.policy.on_error == "store"
        answer = self.codec.dump_error(error) if kept else Answer()
        try:
            self._settle_after(claim, Verdict.FAIL, answer)
        except StaleClaim:
            logger.warning("%s lost its claim, and then failed.", self.call.operation)

    def _was_settled(self, claim: Claim) -> bool:
        """Look whether the end of *claim* was committed, when nothing confirmed it."""
        try:
            seen = self.store.look(self.call)
        except StoreUnavailable:
            return False
        return seen is not None and seen.token == claim.token and seen.state != "in_progress"


@dataclass(frozen=True, slots=True)
class _Raised:
    """An error of the work, on its way out of the transaction that keeps what is known of it."""

    error: BaseException


_Found = Claim | Outcome[Result] | IdempotencyError
_Finished = Outcome[Result] | _Raised


def _outcome(found: _Found[Result] | _Finished[Result] | None) -> Outcome[Result]:
    if isinstance(found, Outcome):
        return found
    if isinstance(found, _Raised):
        raise found.error
    if isinstance(found, IdempotencyError):
        raise found
    raise AssertionError(f"{found!r} is not the end of a call.")


class _Retries:
    """Decides whether a claim that did not come about is tried again, and when."""

    def __init__(self, wait: float, tries: int) -> None:
        self.deadline = time.monotonic() + wait
        self.tries = tries
        self.longest = 0.01

    def cures(self, error: IdempotencyError) -> bool:
        if isinstance(error, Interrupted):
            self.tries -= 1
            return self.tries > 0
        return isinstance(error, KeyInProgress) and time.monotonic() < self.deadline

    def pause(self) -> float:
        """Give the seconds to wait: longer each time, never two callers alike."""
        self.longest = min(self.longest * 2, 0.25)
        return random.uniform(self.longest / 2, self.longest)  # noqa: S311 - not a secret.


async def _to_its_end(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Await *coroutine*; if the caller is cancelled meanwhile, let it end before that is told."""
    task = asyncio.ensure_future(coroutine)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled() and task.exception() is not None:
            logger.error("A call failed after its caller had left.", exc_info=task.exception())
        raise


def run_once(
    work: Callable[[], Result],
    *,
    scope: str,
    operation: str,
    key: str,
    fingerprint: str | None = None,
    codec: Codec[Any] | None = None,
    **options: Any,
) -> Outcome[Result]:
    """
    Run *work* unless a call with the same scope, operation and key did; then replay its result.

    Args:
        fingerprint: tells other inputs apart, see `fingerprints.fingerprint`; None compares none.
        codec: how results are kept; JSON if None.
        options: those of `Policy`: mode, wait, lease, retention, on_error, on_crash,
            on_store_error, store.

    Raises: `KeyInProgress`, `KeyReused`, `KeyInvalid`, `OutcomeUnknown`, `ReplayUnavailable`,
    `StoreUnavailable` if *work* was not run; `StaleClaim` if its effects were refused; whatever
    *work* raises. `TypeError` if its result is not JSON.
    """
    call = make_call(scope, operation, key, fingerprint)
    return Run(call, Policy(**options), codec or JsonCodec()).execute(work)


async def arun_once(
    work: Callable[[], Awaitable[Result]],
    *,
    scope: str,
    operation: str,
    key: str,
    fingerprint: str | None = None,
    codec: Codec[Any] | None = None,
    **options: Any,
) -> Outcome[Result]:
    """Do what `run_once` does, for a coroutine function; it always has a lease."""
    policy = Policy(**options)
    policy.refuse_async()
    call = make_call(scope, operation, key, fingerprint)
    return await Run(call, policy, codec or JsonCodec()).aexecute(work)
