"""How records are written in Redis: keys, fields and what is read of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import cast

from ..scripts import Word
from .base import Answer, Call, Seen, State


def key_of(call: Call, space: str) -> str:
    """Give the key of a record; the hash tag (in braces) gives it one place in a cluster."""
    return f"idempotency:{{{call.id.hex}}}:{space}"


def milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1_000))


def token_word(token: int) -> str:
    """Give *token* so that a greater one sorts later: 19 digits."""
    return f"{token:019d}"


def claim_words(call: Call, token: int, state: State) -> list[Word]:
    """Give the fields that every record has, each name before its value."""
    words: list[Word] = ["state", state, "token", token_word(token)]
    words += ["fingerprint", call.fingerprint, "outline", str(call.outline)]
    words += ["origin", call.origin]
    return [*words, "scope", call.scope, "operation", call.operation, "key", call.key]


def answer_words(attempt: int, answer: Answer) -> list[Word]:
    """Give the further fields of a claim that has an *answer*; what is None is left out."""
    headers = None if answer.headers is None else json.dumps(answer.headers)
    fields = [("status", answer.status), ("headers", headers), ("body", answer.body)]
    known = [word for name, value in fields if value is not None for word in (name, value)]
    return ["attempt", attempt, *known]


def seen_from(found: Sequence[bytes | None]) -> Seen:
    """Read what a script showed of a record that is there."""
    state, token, attempt, fingerprint, left, status, headers, body, outline, origin = found
    return Seen(
        state=cast(State, _text(state)),
        token=int(_text(token)),
        attempt=int(_text(attempt)),
        fingerprint=_text(fingerprint),
        lease_left=None if left is None else int(left) / 1_000,
        answer=Answer(
            status=None if status is None else int(status),
            headers=None if headers is None else json.loads(headers),
            body=body,
        ),
        outline=_text(outline),
        origin=_text(origin),
    )


def _text(word: bytes | None) -> str:
    return (word or b"").decode()
