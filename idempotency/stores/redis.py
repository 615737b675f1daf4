"""Keeps records in Redis, and what was completed in the database as well if asked."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

from django.core.cache import DEFAULT_CACHE_ALIAS
from django.core.checks import CheckMessage
from django.db import connections, transaction

from ..exceptions import StaleClaim, StoreUnavailable
from ..redis_checks import check_memory, check_server
from ..scripts import Server
from .base import Answer, BaseStore, Bid, Call, Claim, Seen, State
from .belated import LEASES, belated
from .completions import Completions
from .hashes import Hashes
from .recorded import End, Recorded, refuse_open_transactions

logger = logging.getLogger("idempotency")

PHANTOM_LEASES = 2
"""For how many leases a claim that nobody confirmed is prevented: an outage makes many of them."""


class RedisStore(BaseStore):
    """
    Keeps records in Redis, one hash each; every step is one script, and time is that of Redis.

    OPTIONS: `cache`, the alias of a django-redis cache; `record`, whether what is completed or
    unknown is written to the table of `IdempotencyRecord` as well, in the transaction of its
    effects; `using`, the alias of the database for that.
    """

    option_names = ("cache", "record", "using")

    def __init__(self, alias: str, options: Mapping[str, Any]) -> None:
        super().__init__(alias, options)
        self.server = Server(self.options.get("cache", DEFAULT_CACHE_ALIAS))
        self.hashes = Hashes(self.server, self.lease)
        self.completions = Completions(alias, options) if self.options.get("record") else None
        self.using = None if self.completions is None else self.completions.using
        self.undoes_effects = self.completions is not None
        self._transactions = threading.local()

    def claim(self, call: Call, bid: Bid) -> Claim | Seen:
        refuse_open_transactions()
        found = self.hashes.claim(call, bid, self._prevent_later)
        is_decided = isinstance(found, Seen) and found.state != "unknown" and not found.is_abandoned
        if self.completions is None or is_decided:
            return found
        try:
            kept = self.completions.look_first(call)
        except BaseException:
            self._free(found)
            raise
        if isinstance(found, Seen) and found.state == "unknown":
            return self._decided(call, bid, found, kept)
        if kept is None or kept.may_be_claimed(call.fingerprint, take_over=bid.take_over):
            return found
        self._give_way(call, found, kept)
        return kept

    def _decided(self, call: Call, bid: Bid, found: Seen, kept: Seen | None) -> Claim | Seen:
        """Give what became of an outcome that is unknown to Redis: the database is told first."""
        if kept is None or (kept.is_free and kept.token < found.token):
            self._note_unknown(call, found)
            return found
        if not kept.is_free:
            self._give_way(call, found, kept)
            return kept
        self.hashes.put(call, found, replace(found, state="released"), self.retention)
        return self.hashes.claim(call, bid, self._prevent_later)

    def _give_way(self, call: Call, found: Claim | Seen, kept: Seen) -> None:
        """Let Redis have what the database *kept*, which it had forgotten; else free the key."""
        if kept.state == "in_progress":
            self._free(found)
        elif not (isinstance(found, Seen) and found.state == kept.state):
            with suppress(StoreUnavailable):
                self.hashes.put(call, found, kept, kept.kept_for or self.retention)

    def _free(self, found: Claim | Seen) -> None:
        """Free the key of a claim that is not used; Redis does it later if it cannot now."""
        if isinstance(found, Claim):
            with suppress(StoreUnavailable, StaleClaim):
                self.hashes.end(End(found, "released", Answer(), self.retention))

    def settle(self, claim: Claim, state: State, answer: Answer, retention: float) -> None:
        end = End(claim, state, answer, retention)
        if self.completions is not None and self._open:
            self._open[-1].ends.append(end)
            if state == "completed":
                self.completions.add(claim, answer, retention)
        elif self.completions is not None and state == "completed":
            self._complete(end, self.completions)
        else:
            self.hashes.end(end)
            if state == "unknown":
                self._note_unknown(claim.call, claim)

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

    def _note_unknown(self, call: Call, found: Claim | Seen) -> None:
        """Let the database have an outcome that is unknown to Redis, or the next call does it."""
        if self.completions is None:
            return
        if isinstance(found, Seen):
            call = found.of(call)
        claim = Claim(call, found.token, found.attempt, None)
        with suppress(StoreUnavailable, StaleClaim), self.completions.transaction():
            self.completions.add(claim, Answer(), self.retention, state="unknown")

    def finish(self, end: End, *, is_new: bool = True) -> None:
        """Tell Redis of *end*, which the database has committed whatever Redis says."""
        try:
            self.hashes.end(end)
        except (StoreUnavailable, StaleClaim) as error:
            if isinstance(error, StaleClaim) and not is_new:
                raise
            logger.warning(_UNTOLD, end.claim.call.operation, end.state, exc_info=error)
            if isinstance(error, StoreUnavailable):
                seconds = LEASES * (end.claim.lease or self.lease)
                belated(self).add(end.claim, seconds, partial(self.hashes.end, end))

    def _prevent_later(self, claim: Claim) -> None:
        """Free the key of *claim*, which Redis may have given to a caller who has gone."""
        lease = claim.lease or self.lease
        prevent = partial(self.hashes.prevent, claim, lease)
        belated(self).add(claim, PHANTOM_LEASES * lease, prevent)

    def abandon(self, end: End) -> None:
        """Free the key of *end*, which was refused and rolled back."""
        self._free(end.claim)

    def renew(self, claims: Collection[Claim]) -> Collection[Claim]:
        return self.hashes.renew(claims)

    def look(self, call: Call) -> Seen | None:
        if self.completions is not None:
            kept = self.completions.look(call)
            if kept is not None and not kept.may_be_claimed(kept.fingerprint):
                return kept
        return self.hashes.look(call)

    def block(self, call: Call, seen: Seen) -> bool:
        if self.completions is not None and self.completions.block(call, seen):
            return True
        blocked = self.hashes.block(call, seen)
        if blocked:
            self._note_unknown(call, seen)
        return blocked

    def decide(self, call: Call, seen: Seen, state: State, answer: Answer) -> bool:
        decided = False
        if self.completions is not None:
            decided = self.completions.decide(call, seen, state, answer)
        instead = replace(seen, state=state, answer=answer)
        return self.hashes.put(call, seen, instead, self.retention) or decided

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


_UNTOLD = "%s ended (%s), but Redis does not know it."
