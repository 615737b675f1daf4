"""What the active span of OpenTelemetry is told, and to which other it is linked."""

import os
import subprocess
import sys
import uuid

import pytest
from django.http import HttpResponse
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from idempotency import idempotent_view, lock
from idempotency.contrib import opentelemetry
from idempotency.contrib.opentelemetry.origins import written
from idempotency.origins import current_origin
from idempotency.signals import CallEvent, LockEvent, RowEvent, announce
from tests.conftest import run_async

ORIGIN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
RECORD = uuid.UUID("0198c5a2-7c1e-7b53-9d3c-2f1f0f6f3a11")


class Tracing:
    """Makes spans, and gives those that have ended."""

    def __init__(self):
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = provider.get_tracer("tests")

    def span(self, *events):
        """Give a span that ended after *events*."""
        with self.tracer.start_as_current_span("request"):
            for event in events:
                announce(event)
        return self.spans[-1]

    @property
    def spans(self):
        return self.exporter.get_finished_spans()


@pytest.fixture
def tracing():
    opentelemetry.install()
    yield Tracing()
    opentelemetry.uninstall()


def call(outcome="executed", record_id=RECORD, **more):
    more = {"attempt": 1, "scope": "user:1", **more}
    return CallEvent(operation="POST pay", outcome=outcome, record_id=record_id, **more)


def lock_event(outcome):
    return LockEvent(
        name="order:1", template="order:…", backend="default", outcome=outcome, seconds=0.5
    )


def test_span_tells_what_came_of_the_call(tracing):
    span = tracing.span(call(attempt=2))

    assert dict(span.attributes) == {
        "idempotency.operation": "POST pay",
        "idempotency.outcome": "executed",
        "idempotency.attempt": 2,
        "idempotency.record": "0198c5a27c1e",
    }


def test_span_tells_only_what_is_known(tracing):
    span = tracing.span(call("refused", record_id=None, attempt=None))

    assert dict(span.attributes) == {
        "idempotency.operation": "POST pay",
        "idempotency.outcome": "refused",
    }
    assert not span.links


def test_duplicate_is_linked_to_the_span_that_its_record_knows(tracing):
    second = tracing.span(call("replayed", origin=ORIGIN))

    assert [format(link.context.span_id, "x") for link in second.links] == ["b7ad6b7169203331"]


@pytest.mark.parametrize("origin", ["", "00-0-0-01", "no span", "00-" + "0" * 32 + "-1-01"])
def test_what_is_no_span_is_linked_to_nothing(tracing, origin):
    assert not tracing.span(call("replayed", origin=origin)).links


def test_repetition_in_the_same_span_is_not_linked_to_itself(tracing):
    with tracing.tracer.start_as_current_span("same"):
        announce(call("replayed", origin=written()))
    (span,) = tracing.exporter.get_finished_spans()

    assert not span.links


def test_take_over_is_told_beside_the_end_of_the_call(tracing):
    span = tracing.span(call("taken_over", attempt=2), call(attempt=2))

    (event,) = span.events
    assert event.name == "idempotency.take_over"
    assert event.attributes["idempotency.attempt"] == 2
    assert span.attributes["idempotency.outcome"] == "executed"


@pytest.mark.parametrize("outcome", ["taken", "waited", "turned_away", "store_error", "lost"])
def test_wait_for_a_lock_is_an_event(tracing, outcome):
    span = tracing.span(lock_event(outcome))

    (event,) = span.events
    assert event.name == "idempotency.lock"
    assert dict(event.attributes) == {
        "idempotency.template": "order:…",
        "idempotency.backend": "default",
        "idempotency.outcome": outcome,
        "idempotency.seconds": 0.5,
    }


def test_release_of_a_lock_and_changes_of_rows_are_no_events(tracing):
    span = tracing.span(lock_event("released"), RowEvent(name="orders.order", outcome="moved"))

    assert not span.events
    assert not span.attributes


def test_nothing_is_told_where_no_span_is_recording(tracing):
    with trace.use_span(trace.NonRecordingSpan(trace.SpanContext(1, 1, is_remote=False))):
        announce(call())

    assert current_origin() == ""
    assert not tracing.exporter.get_finished_spans()


def test_nothing_is_told_after_uninstalling(tracing):
    tracing.span(call())
    opentelemetry.uninstall()

    assert not tracing.span(call("replayed")).attributes
    assert current_origin() == ""


@pytest.mark.django_db(transaction=True)
def test_replay_of_a_view_is_linked_to_its_first_request(tracing, served):
    @idempotent_view
    @lock("till")
    def pay(request):
        return HttpResponse(status=201)

    send = served(pay)
    for _ in range(2):
        with tracing.tracer.start_as_current_span("request"):
            send()

    first, second = tracing.spans
    assert first.attributes["idempotency.outcome"] == "executed"
    assert [event.name for event in first.events] == ["idempotency.lock"]
    assert second.attributes["idempotency.outcome"] == "replayed"
    assert second.attributes["idempotency.record"] == first.attributes["idempotency.record"]
    assert [link.context.span_id for link in second.links] == [first.context.span_id]


@pytest.mark.django_db(transaction=True)
def test_asynchronous_view_tells_the_span_of_its_request(tracing, rf):
    @idempotent_view(mode="lease")
    async def pay(request):
        return HttpResponse(status=201)

    async def request():
        with tracing.tracer.start_as_current_span("request"):
            headers = {"Idempotency-Key": "a-key-that-nobody-guesses"}
            await pay(rf.post("/", headers=headers))

    for _ in range(2):
        run_async(request())

    first, second = tracing.spans
    assert first.attributes["idempotency.outcome"] == "executed"
    assert [link.context.span_id for link in second.links] == [first.context.span_id]


# Other processes

WITHOUT_SDK = """
import sys
sys.modules["opentelemetry.sdk"] = None

import django
from django.conf import settings
settings.configure(INSTALLED_APPS=["idempotency.contrib.opentelemetry"])
django.setup()

from idempotency.contrib.opentelemetry.spans import hear
from idempotency.signals import SIGNALS, CallEvent

assert all(signal.has_listeners() for signal in SIGNALS)
hear(event=CallEvent(operation="POST pay", outcome="executed"))
"""
WITHOUT_API = """
import sys
sys.modules["opentelemetry"] = None
import idempotency.contrib.opentelemetry
"""


def ended(program):
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stderr


def test_app_needs_no_sdk():
    assert ended(WITHOUT_SDK) == (0, "")


def test_import_without_the_package_tells_what_to_install():
    status, errors = ended(WITHOUT_API)

    assert status == 1
    assert "ImproperlyConfigured" in errors
    assert "pip install 'django-idempotency[opentelemetry]'" in errors
