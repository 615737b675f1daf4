"""A view that takes effect once: what decorator and middleware share."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.core.handlers.exception import response_for_exception
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponseBase

from ..claims import current_claim
from ..codecs import Verdict
from ..exceptions import IdempotencyError
from ..fingerprints import check_pointer
from ..policy import Policy
from ..protocol import Run, make_call
from ..signals import CallEvent, announce
from ..stores.base import Call
from ..stores.reaching import Transaction, refuse_broken
from .arriving import refuse_cut_body
from .marks import first_view_of, is_protected, marked
from .problems import problem_response, status_of
from .requests import Scope, input_of, key_of, operation_of, request_id_of, scope_of
from .responses import Final, ResponseCodec
from .transactions import atomic_requests, close_idle_connections, opened

logger = logging.getLogger("idempotency")
Respond = Callable[[], HttpResponseBase]
ARespond = Callable[[], Awaitable[HttpResponseBase]]
Tell = Callable[[HttpRequest, Exception], HttpResponseBase]


class _Work(NamedTuple):
    """What one run of a view needs."""

    request: HttpRequest
    respond: Any  # `Respond` or `ARespond`.
    tell: Tell
    codec: ResponseCodec
    run: Run[HttpResponseBase]
    admit: Callable[[], object] = lambda: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """
    The options of one protected view.

    Raises: `TypeError`, `ValueError` for options that cannot be, when it is made.
    """

    policy: Policy
    required: bool = True
    scope: Scope | None = None
    fingerprint: Callable[[HttpRequest], Any] | None = None
    ignore: Sequence[str] = ()
    final: Final | None = None
    buffer: bool = False
    view_name: str = ""
    own_transactions: Collection[str] = ()
    """Aliases of databases whose transactions the view handles itself."""

    def __post_init__(self) -> None:
        if isinstance(self.ignore, str):
            raise TypeError('ignore is a sequence of JSON pointers: ignore=("/sent_at",).')
        for pointer in self.ignore:
            check_pointer(pointer)
        for name in ("scope", "fingerprint", "final"):
            value = getattr(self, name)
            if value is not None and (not callable(value) or iscoroutinefunction(value)):
                raise TypeError(f"{name} is a synchronous function, not {value!r}.")

    def serve(self, request: HttpRequest, respond: Respond) -> HttpResponseBase:
        """Answer *request* with *respond*, its replay, or a problem."""
        try:
            return self.answer(request, respond)
        except IdempotencyError as error:
            return problem_response(error)

    def answer(
        self,
        request: HttpRequest,
        respond: Respond,
        tell: Tell = response_for_exception,
        admit: Callable[[], object] = lambda: None,
    ) -> HttpResponseBase:
        """
        Do what `serve` does, but raise what it would tell as a problem.

        *tell* gives the answer to an error of the view that is to be kept as its outcome. *admit*
        is called before the view, and what it raises leaves the key as if there had been no call.
        """
        call = self._call_or_refusal(request)
        if call is None:
            admit()
            return self.pass_through(respond)
        work = self._work(request, call, respond, tell)._replace(admit=admit)
        with marked(request, call.key, self.view_name) as mark:
            outcome = work.run.execute(lambda: self._respond(work))
            mark.replayed = outcome.replayed
        return outcome.result

    def pass_through(self, respond: Respond) -> HttpResponseBase:
        """Answer without protection, in the transactions that Django would have opened."""
        with opened(self.own_transactions):
            return respond()

    async def aserve(self, request: HttpRequest, respond: ARespond) -> HttpResponseBase:
        """Do what `serve` does, for an asynchronous view."""
        try:
            return await self.aanswer(request, respond)
        except IdempotencyError as error:
            return problem_response(error)

    async def aanswer(
        self, request: HttpRequest, respond: ARespond, tell: Tell = response_for_exception
    ) -> HttpResponseBase:
        """Do what `answer` does, for an asynchronous view."""
        call = await sync_to_async(self._call_or_refusal)(request)
        if call is None:
            return await respond()
        work = self._work(request, call, respond, tell)
        work.run.rest = close_idle_connections
        with marked(request, call.key, self.view_name) as mark:
            outcome = await work.run.aexecute(lambda: self._arespond(work))
            mark.replayed = outcome.replayed
        return outcome.result

    def _work(self, request: HttpRequest, call: Call, respond: Any, tell: Tell) -> _Work:
        is_translated = hasattr(request, "LANGUAGE_CODE")  # As LocaleMiddleware sets it.
        codec = ResponseCodec(self.final, buffer=self.buffer, is_translated=is_translated)
        run = Run(call, self.policy, codec)
        run.report.request_id = request_id_of(request)
        run.report.status_of = status_of
        return _Work(request, respond, tell, codec, run)

    def _call_or_refusal(self, request: HttpRequest) -> Call | None:
        try:
            return self._call(request)
        except IdempotencyError as error:
            announce(
                CallEvent(
                    operation=operation_of(request, self.view_name),
                    outcome="refused",
                    status=status_of(error),
                    request_id=request_id_of(request),
                )
            )
            raise

    def _call(self, request: HttpRequest) -> Call | None:
        """Give the call to protect, or None if it needs no protection or has some already."""
        if is_protected(request):
            return None
        key = key_of(request, required=self.required)
        if key is None:
            return None
        scope = scope_of(request, self.scope, key)
        operation = operation_of(request, self.view_name)
        if first_view_of(request) not in ("", self.view_name):
            # The same address leads to several protected views, each with an effect of its own.
            operation = f"{operation} {self.view_name}"
        given = input_of(request, self.ignore, self.fingerprint)
        return make_call(scope, operation, key, given.fingerprint, given.outline)

    def _respond(self, work: _Work) -> HttpResponseBase:
        run = work.run
        own_alias = run.store.using if run.has_started else None
        aliases = atomic_requests(self.own_transactions, but=own_alias)
        committed: set[str] = set()
        try:
            with ExitStack() as stack:
                with run.before_effects():
                    work.admit()
                    for alias in aliases:
                        stack.enter_context(Transaction(alias))
                        transaction.on_commit(partial(committed.add, alias), using=alias)
                response = self._response(work)
                refuse_cut_body(work.request)  # The view may have read it itself.
                run.report.status = response.status_code
                run.has_worked = True
                self._confirm(work.codec, response, aliases, run)
        except Exception:
            # What a callback of `on_commit` raises comes too late to undo anything.
            if not aliases or committed != set(aliases):
                raise
            logger.exception("A callback after the commit of %s failed.", run.call.operation)
        return response

    def _response(self, work: _Work) -> HttpResponseBase:
        try:
            return work.codec.prepare(work.respond())
        except Exception as error:
            if self.policy.on_error != "store":
                raise
            work.codec.has_failed = True
            return work.codec.prepare(work.tell(work.request, error))

    def _confirm(
        self, codec: ResponseCodec, response: HttpResponseBase, aliases: list[str], run: Run[Any]
    ) -> None:
        """Let the open transactions be committed only for an outcome that will be kept."""
        claim = current_claim() if run.has_started else None
        if codec.judge(response) is Verdict.FAIL:
            for alias in aliases:
                transaction.set_rollback(True, using=alias)
        elif any(transaction.get_rollback(using=alias) for alias in aliases):
            codec.has_failed = True
        else:
            for alias in aliases:
                refuse_broken(connections[alias])
            if claim is not None:
                claim.assert_held()

    async def _arespond(self, work: _Work) -> HttpResponseBase:
        try:
            response = await work.codec.aprepare(await work.respond())
        except Exception as error:
            if self.policy.on_error != "store":
                raise
            work.codec.has_failed = True
            told = await sync_to_async(work.tell)(work.request, error)
            response = await work.codec.aprepare(told)
        refuse_cut_body(work.request)
        work.run.report.status = response.status_code
        return response
