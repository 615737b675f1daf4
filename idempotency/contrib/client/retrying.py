"""What a client repeats, when, and under which key; the same for every library."""

from __future__ import annotations

import json
import random
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

from ...keys import uuid7

HEADER = "Idempotency-Key"

METHODS = frozenset({"POST", "PATCH", "PUT", "DELETE"})
"""Those that get a key: what is safe needs none."""

PASSING = frozenset({429, 502, 503, 504})
"""Statuses after which the same request may succeed, if the answer says nothing else."""

SAID = frozenset({409, 422, 429, 502, 503, 504})
"""Statuses whose problem details may say whether to repeat the request."""


def new_key() -> str:
    """Give a key for one intent: a UUIDv7. Keep it where a retry after a restart finds it."""
    return str(uuid7())


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """
    How often and how long a request is repeated; seconds.

    Args:
        attempts: how often it is sent at most.
        pause: the first pause where the server names none; each further one is twice as long.
        longest: the longest pause; a server that asks for a longer one is not asked again, unless
            it says that a twin still runs.
        header: the name of the header that carries the key.

    Raises: `ValueError` for numbers that make no sense.
    """

    attempts: int = 4
    pause: float = 0.5
    longest: float = 30.0
    header: str = HEADER

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.pause <= 0 or self.longest < self.pause:
            raise ValueError("attempts is above 0, and pause above 0 and not above longest.")

    def needs_key(self, method: str, headers: Mapping[str, Any]) -> bool:
        """Whether a request is to get a key: one that has its own keeps it."""
        return method.upper() in METHODS and self.header not in headers

    def may_ask(self, status: int) -> bool:
        """Whether an answer with *status* may ask for the same request once more."""
        return status in SAID | PASSING

    def pause_after(
        self, sent: int, status: int | None, headers: Mapping[str, str], body: bytes
    ) -> float | None:
        """
        Give the seconds after which to repeat a request that was *sent* so often, or None.

        *status* is None if no answer came; the other two are those of the answer.
        """
        if sent >= self.attempts:
            return None
        asked = None
        if status is not None:
            may, asked = _said(status, headers, body)
            if not may:
                return None
        if asked is None:
            # Of its half at least, so that clients that failed together do not come together.
            most = min(self.longest, self.pause * 2 ** (sent - 1))
            return random.uniform(most / 2, most)  # noqa: S311 - not a secret.
        # A twin that still runs may be asked for earlier: its lease says when it would be over.
        is_twin = status == HTTPStatus.CONFLICT
        return min(asked, self.longest) if is_twin or asked <= self.longest else None


def _said(status: int, headers: Mapping[str, str], body: bytes) -> tuple[bool, float | None]:
    """Give whether an answer lets the same request be repeated, and after how many seconds."""
    retry = _retry_member(headers, body) if status in SAID else None
    same_key = retry.get("same_key") if isinstance(retry, dict) else None
    may = same_key if isinstance(same_key, bool) else status in PASSING
    return may, _retry_after(headers.get("Retry-After"))


def _retry_member(headers: Mapping[str, str], body: bytes) -> Any:
    if "json" not in headers.get("Content-Type", "").lower():
        return None
    try:
        problem = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return problem.get("retry") if isinstance(problem, dict) else None


def _retry_after(value: str | None) -> float | None:
    """Give the seconds that a `Retry-After` names, as a number or as a date."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        at = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    aware = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return max(0.0, (aware - datetime.now(UTC)).total_seconds())


def is_of_a_certificate(error: BaseException) -> bool:
    """Whether a connection failed for a certificate, which is the same the next time."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return True
    # What libraries wrap: httpx by `raise … from`, requests among the arguments.
    causes = [error.__cause__, getattr(error, "reason", None), *error.args]
    return any(isinstance(one, BaseException) and is_of_a_certificate(one) for one in causes)
