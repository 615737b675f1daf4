"""The span of a run as text, which its record keeps, and back again."""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.trace import SpanContext
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_NAME = "traceparent"
_propagator = TraceContextTextMapPropagator()


def written() -> str:
    """Give the active span as the header `traceparent` has it (W3C Trace Context), "" for none."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier.get(_NAME, "")


def read(origin: str) -> SpanContext | None:
    """Give the span that was `written`, or None if there was none."""
    context = _propagator.extract({_NAME: origin}) if origin else None
    span = trace.get_current_span(context).get_span_context() if context is not None else None
    return span if span is not None and span.is_valid else None
