"""Records as hashes in Redis; every step is one script, and time is that of Redis."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection

from ..exceptions import StaleClaim, StoreUnavailable
from ..keys import later_token
from ..scripts import Server, Word
from . import lua
from .base import Answer, Bid, Call, Claim, Seen, State
from .recorded import End
from .words import answer_words, claim_words, key_of, milliseconds, seen_from, token_word

GRACE = 86_400
"""Seconds after the end of its lease for which a claim that nobody completed is kept."""
FOR_EVER = 0


class Hashes:
    """The records on one *server*; *lease* is that of claims which have none of their own."""

    def __init__(self, server: Server, lease: float) -> None:
        self.server = server
        self.lease = lease

    def claim(self, call: Call, bid: Bid, on_untold: Callable[[Claim], object]) -> Claim | Seen:
        """
        Do what a store's `claim` does.

        A claim that Redis did not confirm is given to *on_untold*, as it may yet be carried out.
        """
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
                on_untold(Claim(call, token, 1, bid.lease))
                raise
            if verdict == b"claimed":
                return Claim(call, token, int(found[0]), bid.lease, taken_over=bool(int(found[1])))
            if verdict == b"seen":
                return seen_from(found)
            token = later_token(int(found[0]))

    def end(self, end: End) -> None:
        """Write what came of a claim; raise `StaleClaim` if it is another's."""
        # What Redis has lost is free already.
        self._end(end, revives=end.state != "released")

    def prevent(self, claim: Claim, lease: float) -> None:
        """Free the key of *claim*, and let it stay so for a *lease* if *claim* is yet to come."""
        self._end(End(claim, "released", Answer(), lease), revives=True)

    def _end(self, end: End, *, revives: bool) -> None:
        claim = end.claim
        words = claim_words(claim.call, claim.token, end.state)
        words += answer_words(claim.attempt, end.answer)
        kept = _kept(end.state, end.retention)
        if not self._write(claim.call, claim.token, "in_progress", kept, words, revives=revives):
            raise StaleClaim

    def put(self, call: Call, found: Claim | Seen, instead: Seen, retention: float) -> bool:
        """Write *instead* over the record that was *found*; tell if it was still there."""
        state = found.state if isinstance(found, Seen) else "in_progress"
        words = claim_words(instead.of(call), instead.token, instead.state)
        words += answer_words(instead.attempt, instead.answer)
        kept = _kept(instead.state, retention)
        return self._write(call, found.token, state, kept, words, revives=True)

    def _write(
        self, call: Call, token: int, state: State, kept: int, words: list[Word], *, revives: bool
    ) -> bool:
        head: list[Word] = [token_word(token), state, _mark(), kept, int(revives)]
        return bool(self.server.run(lua.SETTLE, [self._key(call)], [*head, *words]))

    def renew(self, claims: Collection[Claim]) -> Collection[Claim]:
        """Let each lease start anew; give the claims that were lost."""
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
        """Give the record as it is now."""
        _, *found = self.server.run(lua.LOOK, [self._key(call)], [])
        return None if found[0] is None else seen_from(found)

    def block(self, call: Call, seen: Seen) -> bool:
        """Turn the abandoned claim that was *seen* into an unknown outcome; tell if it was."""
        words: list[Word] = [token_word(seen.token), _mark()]
        return bool(self.server.run(lua.BLOCK, [self._key(call)], words))

    def _key(self, call: Call) -> str:
        return key_of(call, self.server.space)


def _kept(state: State, retention: float) -> int:
    return FOR_EVER if state == "unknown" else milliseconds(retention)


def _mark() -> bytes:
    return secrets.token_bytes(8)
