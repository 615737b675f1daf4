"""Keeps records in Redis, and what was completed in the database as well if asked."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import Any

from django.core.cache import DEFAULT_CACHE_ALIAS
from django.core.checks import CheckMessage
from django.db import connections, transaction

from ..exceptions import InvalidBackend, StaleClaim, StoreUnavailable
from ..keys import later_token
from ..redis_checks import check_memory, check_server
from ..scripts import Server, Word
from . import lua
from .base import Answer, BaseStore, Bid, Call, Claim, Seen, State
from .belated import belated
from .completions import Completions
from .recorded import End, Recorded, refuse_open_transactions
from .words import answer_words, claim_words, key_of, milliseconds, seen_from, token_word

logger = logging.getLogger("idempotency")

GRACE = 86_400
"""Seconds after the end of its lease for which a claim that nobody completed is kept."""
FOR_EVER = 0


class RedisStore(BaseStore):
    """
    Keeps records in Redis, one hash each; every step is one script, and time is that of Redis.

    OPTIONS: `cache`, the alias of a django-redis cache; `record`, whether what is completed is
    written to the table of `IdempotencyRecord` as well, in the transaction of its effects;
    `using`, the alias of the database for that.
    """

    option_names = ("cache", "record", "using")

    def __init__(self, alias: str, options: Mapping[str, Any]) -> None:
        super().__init__(alias, options)
        self.server = Server(self.options.get("cache", DEFAULT_CACHE_ALIAS))
        self.completions = Completions(alias, options) if self.options.get("record") else None
        self.using = None if self.completions is None else self.completions.using
        self.undoes_effects = self.completions is not None
        self._transactions = threading.local()

    def claim(self, call: Call, bid: Bid) -> Claim | Seen:
        refuse_open_transactions()
        found = self._claim(call, bid)
        is_decided = isinstance(found, Seen) and found.state != "unknown" and not found.is_abandoned
        if self.completions is None or is_decided:
            return found
        return self._recorded(call, bid, found, self.completions)

    def _claim(self, call: Call, bid: Bid) -> Claim | Seen:
        mark, token = _mark(), bid.token
        lease = milliseconds(bid.lease or self.lease)
        kept = lease + milliseconds(max(bid.retention, GRACE))
        flags: list[Word] = [call.fingerprint, int(bid.take_over), int(bid.is_unconfirmed)]
        while True:
            words: list[Word] = [token_word(token), mark, lease, kept, *flags]
            words += claim_words(call, token, "in_progress")
            try:
                verdict, *found = self.server.run(lua.CLAIM, [self._key(call)], words)
            except StoreUnavailable:
                # It may still be carried out, for a caller who has gone.
                self._settle_later(End(Claim(call, token, 1, bid.lease), "released", Answer(), 1))
                raise
            if verdict == b"claimed":
                return Claim(call, token, int(found[0]), bid.lease)
            if verdict == b"seen":
                return seen_from(found)
            token = later_token(int(found[0]))

    def _recorded(
        self, call: Call, bid: Bid, found: Claim | Seen, completions: Completions
    ) -> Claim | Seen:
        """Give what the database knows better than Redis, which may have forgotten it."""
        try:
            kept = completions.look_first(call)
        except (StoreUnavailable, InvalidBackend):
            self._free(found)
            raise
        if kept is None or kept.may_be_claimed(call.fingerprint):
            return found
        if kept.state == "completed":
            self._restore(call, found, kept, bid.retention)
        else:
            self._free(found)
        return kept

    def _restore(self, call: Call, found: Claim | Seen, kept: Seen, retention: float) -> None:
        state = found.state if isinstance(found, Seen) else "in_progress"
        words = claim_words(call, kept.token, "completed", kept.fingerprint)
        words += answer_words(kept.attempt, kept.answer)
        with suppress(StoreUnavailable):
            self._write(call, found.token, state, milliseconds(retention), words)

    def _free(self, found: Claim | Seen) -> None:
        """Free the key of a claim that is not used; Redis does it later if it cannot now."""
        if isinstance(found, Claim):
            with suppress(StoreUnavailable, StaleClaim):
                self._end(End(found, "released", Answer(), self.retention))

    def settle(self, claim: Claim, state: State, answer: Answer, retention: float) -> None:
        end = End(claim, state, answer, retention)
        if self.completions is None:
            self._end(end)
        elif self._open:
            self._open[-1].ends.append(end)
            if state == "completed":
                self.completions.add(claim, answer, retention)
        elif state == "completed":
            self._complete(end, self.completions)
        else:
            self._end(end)

    def _complete(self, end: End, completions: Completions) -> None:
        """Record *end*, whose effects are committed, unless an earlier try did."""
        is_new = True
        with suppress(StoreUnavailable):  # Then the database decides alone.
            if self.renew([end.claim]) and not completions.has(end.claim):
                raise StaleClaim
        try:
            with completions.transaction():
                completions.add(end.claim, end.answer, end.retention)
        except StaleClaim:
            if not completions.has(end.claim):
                raise
            is_new = False
        self.finish(end, is_new=is_new)

    def finish(self, end: End, *, is_new: bool = True) -> None:
        """Tell Redis of *end*, which the database has committed whatever Redis says."""
        try:
            self._end(end)
        except (StoreUnavailable, StaleClaim) as error:
            if isinstance(error, StaleClaim) and not is_new:
                raise
            logger.warning(_UNTOLD, end.claim.call.operation, end.state, exc_info=error)
            if isinstance(error, StoreUnavailable):
                self._settle_later(end)

    def _settle_later(self, end: End) -> None:
        belated(self).add(end.claim, end.claim.lease or self.lease, partial(self._end, end))

    def abandon(self, end: End) -> None:
        """Free the key of *end*, which was refused and rolled back."""
        self._free(end.claim)

    def _end(self, end: End) -> None:
        claim = end.claim
        kept = FOR_EVER if end.state == "unknown" else milliseconds(end.retention)
        words = claim_words(claim.call, claim.token, end.state)
        words += answer_words(claim.attempt, end.answer)
        # What Redis has lost is free already.
        revives = end.state != "released"
        if not self._write(claim.call, claim.token, "in_progress", kept, words, revives=revives):
            raise StaleClaim

    def _write(
        self,
        call: Call,
        token: int,
        state: State,
        kept: int,
        words: list[Word],
        *,
        revives: bool = True,
    ) -> bool:
        head: list[Word] = [token_word(token), state, _mark(), kept, int(revives)]
        return bool(self.server.run(lua.SETTLE, [self._key(call)], [*head, *words]))

    def renew(self, claims: Collection[Claim]) -> Collection[Claim]:
        replies = self.server.run_each(
            lua.RENEW, [([self._key(claim.call)], self._renewal(claim)) for claim in claims]
        )
        return [claim for claim, reply in zip(claims, replies, strict=True) if reply == 0]

    def _renewal(self, claim: Claim) -> list[Word]:
        lease = milliseconds(claim.lease or self.lease)
        words = claim_words(claim.call, claim.token, "in_progress")
        words += answer_words(claim.attempt, Answer())
        return [token_word(claim.token), lease, lease + milliseconds(GRACE), *words]

    def look(self, call: Call) -> Seen | None:
        if self.completions is not None:
            kept = self.completions.look(call)
            if kept is not None and not kept.may_be_claimed(kept.fingerprint):
                return kept
        _, *found = self.server.run(lua.LOOK, [self._key(call)], [])
        return None if found[0] is None else seen_from(found)

    def block(self, call: Call, seen: Seen) -> bool:
        words: list[Word] = [token_word(seen.token), _mark()]
        return bool(self.server.run(lua.BLOCK, [self._key(call)], words))

    @property
    def _open(self) -> list[Recorded]:
        """The transactions that this thread has opened here, the innermost last."""
        opened: list[Recorded] = self._transactions.__dict__.setdefault("opened", [])
        return opened

    def transaction(self) -> AbstractContextManager[object]:
        if self.using is None:
            return super().transaction()
        return Recorded(self.using, self._open, self.finish, self.abandon)

    def roll_back(self) -> None:
        if self.using is not None:
            transaction.set_rollback(True, using=self.using)

    def is_rolling_back(self) -> bool:
        if self.using is None:
            return super().is_rolling_back()
        is_open = connections[self.using].in_atomic_block
        return is_open and transaction.get_rollback(using=self.using)

    def check(self) -> list[CheckMessage]:
        found = check_server(self.server, f"IDEMPOTENCY_STORES[{self.alias!r}]")
        return [*found, *(self.completions.check() if self.completions else [])]

    def check_service(self) -> list[CheckMessage]:
        found = check_memory(self.server, f"IDEMPOTENCY_STORES[{self.alias!r}]")
        return [*found, *(self.completions.check_service() if self.completions else [])]

    def _key(self, call: Call) -> str:
        return key_of(call, self.server.space)


_UNTOLD = "%s ended (%s), but Redis does not know it."


def _mark() -> bytes:
    return secrets.token_bytes(8)
