"""The claim protocol: claim, run, complete or release; or replay what is known."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, Generic, TypeVar

from .claiming import Claiming, Finished, Found, Outcome, Raised, make_call, outcome_of
from .claims import running
from .codecs import Codec, JsonCodec, Verdict
from .exceptions import IdempotencyError, StaleClaim, StoreUnavailable
from .patience import Patience
from .policy import Policy
from .renewal import Holding, renewal
from .reporting import Report
from .settling import Settling
from .stores.base import Answer, Call, Claim, Unconfirmed
from .waiting import finish_in_thread, to_its_end

__all__ = ["Outcome", "Run", "arun_once", "make_call", "run_once"]

logger = logging.getLogger("idempotency")
Result = TypeVar("Result")

TRIES = 3
"""How often a claim is tried that a deadlock or a lost connection interrupts."""


class Run(Generic[Result]):
    """One call on its way through the protocol."""

    def __init__(self, call: Call, policy: Policy, codec: Codec[Result]) -> None:
        self.call = call
        self.policy = policy
        self.claiming = Claiming(call, policy, codec)
        self.store = self.claiming.store
        self.settling = Settling(self.store, policy, codec, self.claiming.retention)
        self.has_started = False
        self.has_worked = False
        self.is_unprotected = False
        self.report = Report(self)
        self.rest: Callable[[], object] = lambda: None
        """Called by the thread of the ORM before an asynchronous call waits, or works."""

    def execute(self, work: Callable[[], Result]) -> Outcome[Result]:
        """Give the outcome of *work*, which runs unless another call's outcome is known."""
        return self.report.told(lambda: self._execute(work))

    async def aexecute(self, work: Callable[[], Awaitable[Result]]) -> Outcome[Result]:
        """Do what `execute` does, with a lease."""
        return await self.report.atold(self._aexecute(work))

    def _execute(self, work: Callable[[], Result]) -> Outcome[Result]:
        attempt = self._atomic if self.policy.mode_for(self.store) == "atomic" else self._leased
        patience = Patience(self.policy.wait, 1 if self.store.in_transaction else TRIES)
        while True:
            try:
                return attempt(work)
            except IdempotencyError as error:
                if self.has_started or not patience.cures(error):
                    if self._runs_unprotected(error):
                        return Outcome(work(), replayed=False)
                    raise
            time.sleep(patience.pause())

    async def _aexecute(self, work: Callable[[], Awaitable[Result]]) -> Outcome[Result]:
        patience = Patience(self.policy.wait, TRIES)
        while True:
            try:
                return await to_its_end(self._aleased(work))
            except IdempotencyError as error:
                if self.has_started or not patience.cures(error):
                    if self._runs_unprotected(error):
                        return Outcome(await work(), replayed=False)
                    raise
            await asyncio.sleep(patience.pause())

    def _runs_unprotected(self, error: IdempotencyError) -> bool:
        """Whether the store is away, and the work was to run even so."""
        if self.has_started or not isinstance(error, StoreUnavailable):
            return False
        if self.policy.on_store_error == "refuse":
            return False
        logger.error("%s runs unprotected.", self.call.operation, exc_info=error)
        self.is_unprotected = True
        return True

    def _atomic(self, work: Callable[[], Result]) -> Outcome[Result]:
        found: Found[Result] | None = self.claiming.peek()
        if found is not None:
            return outcome_of(found)
        finished: Finished[Result] | None = None
        try:
            with self.store.transaction():
                found = self.claiming.claim(lease=None)
                if isinstance(found, Claim):
                    finished = self._finish(found, work)
            self.report.is_over = True
        except Unconfirmed:
            if isinstance(found, Claim) and not self.settling.was_settled(found):
                raise
        return outcome_of(finished or found)

    def _leased(self, work: Callable[[], Result]) -> Outcome[Result]:
        found = self._claim_with_lease()
        return outcome_of(self._finish(found, work) if isinstance(found, Claim) else found)

    async def _aleased(self, work: Callable[[], Awaitable[Result]]) -> Outcome[Result]:
        found = await finish_in_thread(self._claim_and_rest)
        if not isinstance(found, Claim):
            return outcome_of(found)
        self.report.claimed(found)
        with self._started(found):  # The thread that writes the end may be busy for long.
            try:
                result = await work()
            except BaseException as error:
                await finish_in_thread(partial(self.settling.settle_error, found, error))
                raise
            await finish_in_thread(partial(self.settling.settle_result, found, result))
        return Outcome(result, replayed=False)

    def _claim_with_lease(self) -> Found[Result]:
        return self.claiming.peek() or self.claiming.claim(self.claiming.lease)

    def _claim_and_rest(self) -> Found[Result]:
        try:
            return self._claim_with_lease()
        finally:
            self.rest()

    def _finish(self, claim: Claim, work: Callable[[], Result]) -> Finished[Result]:
        """Run the work, and settle in the transaction of its effects or, if undone, after it."""
        self.report.claimed(claim)
        try:
            with self._effects(claim):
                with self._started(claim):
                    result = work()
                self.has_worked = True
                verdict, answer = self.settling.judge(result)
                if verdict is Verdict.FAIL:
                    self.store.roll_back()
                else:
                    self._settle(claim, verdict, answer)
        except Unconfirmed as error:
            if not self.settling.was_settled(claim):
                if claim.lease is not None:
                    self.settling.release(claim, error)
                raise
        except BaseException as error:
            if self._dies_with_its_effects(claim):
                raise
            self._end_with(claim, error)
            return Raised(error)
        if verdict is Verdict.FAIL and not self._dies_with_its_effects(claim):
            self.settling.settle_after(claim, verdict, answer)
        return Outcome(result, replayed=False)

    def _end_with(self, claim: Claim, error: BaseException) -> None:
        blocks = self.policy.on_error == "block" and not isinstance(error, StaleClaim)
        if not self.has_started or (self.has_worked and not blocks):
            self.settling.release(claim, error, has_worked=self.has_started)
        else:
            self.settling.settle_error(claim, error)

    def _settle(self, claim: Claim, verdict: Verdict, answer: Answer) -> None:
        undoes = self.store.undoes_effects
        settle = self.settling.settle if undoes else self.settling.settle_after
        settle(claim, verdict, answer)

    def _dies_with_its_effects(self, claim: Claim) -> bool:
        """Whether the claim itself is undone by undoing the effects."""
        return claim.lease is None and self.policy.on_error == "release"

    def _effects(self, claim: Claim) -> AbstractContextManager[object]:
        """Open what effects can be undone by: the claim's own transaction, or one within."""
        return nullcontext() if self._dies_with_its_effects(claim) else self.store.transaction()

    @contextmanager
    def before_effects(self) -> Iterator[None]:
        """Let an error of this part of the work leave the key as if there had been no call."""
        try:
            yield
        except BaseException:
            self.has_started = False
            raise

    @contextmanager
    def _started(self, claim: Claim) -> Iterator[None]:
        self.has_started = True
        with self._renewed(claim) as holding, running(claim, holding):
            yield

    def _renewed(self, claim: Claim) -> AbstractContextManager[Holding | None]:
        if claim.lease is None:
            return nullcontext()
        return renewal.holding(self.store, claim, claim.lease)


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
    return Run(call, Policy.of(options), codec or JsonCodec()).execute(work)


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
    policy = Policy.of(options)
    policy.refuse_async()
    call = make_call(scope, operation, key, fingerprint)
    return await Run(call, policy, codec or JsonCodec()).aexecute(work)
