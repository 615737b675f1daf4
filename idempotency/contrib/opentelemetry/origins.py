"""In which spans this process ran what it is asked to repeat."""

from __future__ import annotations

from contextlib import suppress
from uuid import UUID

from opentelemetry.trace import SpanContext

MOST = 10_000
"""How many are remembered: those that were run or repeated last."""


class Origins:
    """
    Remembers the *most* records that were last used, each with the span of its run.

    Has no lock, which a child of a fork might find taken for ever: a dict does each step at once.
    """

    __slots__ = ("_spans", "most")

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self._spans: dict[UUID, SpanContext] = {}

    def add(self, record_id: UUID, span: SpanContext) -> None:
        """Remember that *record_id* was run in *span*."""
        self._spans.pop(record_id, None)
        self._spans[record_id] = span
        # Another thread may have changed the dict, or taken the oldest away.
        with suppress(KeyError, RuntimeError, StopIteration):
            while len(self._spans) > self.most:
                del self._spans[next(iter(self._spans))]

    def find(self, record_id: UUID) -> SpanContext | None:
        """Give the span of the run of *record_id*, if it is remembered."""
        span = self._spans.get(record_id)
        if span is not None:
            self.add(record_id, span)
        return span

    def clear(self) -> None:
        """Forget all of them."""
        self._spans.clear()
