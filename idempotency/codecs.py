"""How results are judged, kept and given again."""

from __future__ import annotations

import json
from enum import Enum
from typing import Any, Protocol, TypeVar

from .exceptions import ReplayUnavailable
from .stores.base import Answer

Result = TypeVar("Result")


class Verdict(Enum):
    """What becomes of a result: of its effects, and of the key."""

    KEEP = "keep"  # The effects stay, and the result is replayed.
    FREE = "free"  # The effects stay, and the key may be claimed again.
    FAIL = "fail"  # The effects are undone, and `on_error` decides about the key.


class Codec(Protocol[Result]):
    """Knows one kind of result; the protocol knows none."""

    def judge(self, result: Result) -> Verdict: ...

    def dump(self, result: Result) -> Answer: ...

    def dump_error(self, error: BaseException) -> Answer: ...

    def load(self, answer: Answer) -> Result:
        """Give the result again; raise `ReplayUnavailable` if it was not kept."""
        ...


class JsonCodec:
    """Keeps what a function returns, as JSON; every result counts as an effect."""

    def judge(self, result: Any) -> Verdict:
        return Verdict.KEEP

    def dump(self, result: Any) -> Answer:
        try:
            return Answer(body=json.dumps(result, allow_nan=False).encode())
        except (TypeError, ValueError, RecursionError) as error:
            raise TypeError(
                f"A result that is replayed must be JSON, and this one is not: {error}. Return"
                " plain values, for instance the primary key instead of the object."
            ) from error

    def dump_error(self, error: BaseException) -> Answer:
        return Answer(headers=[["error", f"{type(error).__name__}: {error}"]])

    def load(self, answer: Answer) -> Any:
        if answer.body is not None:
            return json.loads(answer.body)
        failures = [text for name, text in answer.headers or [] if name == "error"]
        raise ReplayUnavailable(f"The first run failed: {failures[0]}" if failures else "")
