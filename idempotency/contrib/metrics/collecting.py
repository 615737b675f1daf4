"""What is counted and timed, and under which names."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram

from ...signals import CallEvent, LockEvent, RowEvent
from ..listening import Event, listen, stop_listening
from .bounding import Bounded

MOST = 500
"""How many operations, templates of locks, and rows are told apart by each process."""

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
"""Seconds: a replay takes a few thousandths, and a run may last as long as its lease."""

_WAITED = ("taken", "waited", "turned_away")
_HELD = ("released", "lost")


class Metrics:
    """The metrics of one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        of_call, of_lock = ["operation", "outcome"], ["template", "backend"]
        self.requests = Counter(
            "django_idempotency_requests",
            "Calls with a key, by what came of them.",
            of_call,
            registry=registry,
        )
        self.request_seconds = Histogram(
            "django_idempotency_request_seconds",
            "Seconds from the arrival of a call to what came of it.",
            of_call,
            registry=registry,
            buckets=BUCKETS,
        )
        self.take_overs = Counter(
            "django_idempotency_take_overs",
            "Calls that went on in place of one that died.",
            ["operation"],
            registry=registry,
        )
        self.locks = Counter(
            "django_idempotency_locks",
            "Steps in the lives of locks.",
            [*of_lock, "outcome"],
            registry=registry,
        )
        self.lock_wait_seconds = Histogram(
            "django_idempotency_lock_wait_seconds",
            "Seconds until a lock was got, or its caller was turned away.",
            of_lock,
            registry=registry,
            buckets=BUCKETS,
        )
        self.lock_held_seconds = Histogram(
            "django_idempotency_lock_held_seconds",
            "Seconds for which a lock was held.",
            of_lock,
            registry=registry,
            buckets=BUCKETS,
        )
        self.rows = Counter(
            "django_idempotency_rows",
            "Guarded changes of rows, by what came of them.",
            ["name", "outcome"],
            registry=registry,
        )
        self._operation, self._template, self._name = Bounded(MOST), Bounded(MOST), Bounded(MOST)

    def hear(self, *, event: Event, **kwargs: Any) -> None:
        """Count *event*."""
        if isinstance(event, CallEvent):
            self._hear_call(event)
        elif isinstance(event, LockEvent):
            self._hear_lock(event)
        else:
            self._hear_row(event)

    def _hear_call(self, event: CallEvent) -> None:
        operation = self._operation(event.operation)
        if event.outcome == "taken_over":
            self.take_overs.labels(operation).inc()
            return
        self.requests.labels(operation, event.outcome).inc()
        if event.outcome != "refused":  # Which nobody timed.
            self.request_seconds.labels(operation, event.outcome).observe(event.seconds)

    def _hear_lock(self, event: LockEvent) -> None:
        template = self._template(event.template)
        self.locks.labels(template, event.backend, event.outcome).inc()
        if event.outcome in _WAITED:
            self.lock_wait_seconds.labels(template, event.backend).observe(event.seconds)
        elif event.outcome in _HELD:
            self.lock_held_seconds.labels(template, event.backend).observe(event.seconds)

    def _hear_row(self, event: RowEvent) -> None:
        self.rows.labels(self._name(event.name), event.outcome).inc()

    def unregister(self) -> None:
        """Take all of them out of the registry."""
        for collector in (
            *(self.requests, self.request_seconds, self.take_overs),
            *(self.locks, self.lock_wait_seconds, self.lock_held_seconds, self.rows),
        ):
            self.registry.unregister(collector)


_installed: dict[CollectorRegistry, Metrics] = {}


def install(registry: CollectorRegistry = REGISTRY) -> None:
    """Count what is announced from now on in *registry*, once however often this is called."""
    if registry not in _installed:
        _installed[registry] = Metrics(registry)
    listen(_installed[registry].hear, _uid(registry))


def uninstall(registry: CollectorRegistry = REGISTRY) -> None:
    """Undo what `install` did, as a test wants it."""
    stop_listening(_uid(registry))
    metrics = _installed.pop(registry, None)
    if metrics is not None:
        metrics.unregister()


def _uid(registry: CollectorRegistry) -> Hashable:
    return "idempotency.metrics", id(registry)
