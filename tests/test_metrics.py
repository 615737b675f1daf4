"""Prometheus metrics: what is counted, under which labels, and across processes."""

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from django.http import HttpResponse
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from idempotency import idempotent_view, lock, signals
from idempotency.contrib import metrics
from idempotency.contrib.metrics.bounding import OTHER, Bounded
from idempotency.contrib.metrics.collecting import MOST
from idempotency.signals import CallEvent, LockEvent, RowEvent, announce

PREFIX = "django_idempotency_"
PAGE = Path(__file__).parent.parent / "docs" / "howto" / "watch-with-metrics.md"


@pytest.fixture
def registry():
    registry = CollectorRegistry()
    metrics.install(registry)
    yield registry
    metrics.uninstall(registry)


def value(registry, name, /, **labels):
    return registry.get_sample_value(f"{PREFIX}{name}", labels)


def label_values(registry, label):
    return {
        sample.labels[label]
        for metric in registry.collect()
        for sample in metric.samples
        if label in sample.labels
    }


def call(outcome="executed", operation="POST pay", **more):
    return CallEvent(operation=operation, outcome=outcome, **more)


def lock_event(outcome, seconds=0.0, template="order:…"):
    name = "order:a-secret-name"
    return LockEvent(
        name=name, template=template, backend="default", outcome=outcome, seconds=seconds
    )


@pytest.mark.parametrize("outcome", sorted(set(signals.OF_CALL) - {"taken_over"}))
def test_call_is_counted_by_operation_and_outcome(registry, outcome):
    announce(call(outcome))
    announce(call(outcome))

    assert value(registry, "requests_total", operation="POST pay", outcome=outcome) == 2
    assert label_values(registry, "outcome") == {outcome}


def test_call_is_timed(registry):
    announce(call(seconds=0.002))
    announce(call(seconds=40))

    labels = {"operation": "POST pay", "outcome": "executed"}
    assert value(registry, "request_seconds_sum", **labels) == 40.002
    assert value(registry, "request_seconds_bucket", le="0.0025", **labels) == 1
    assert value(registry, "request_seconds_bucket", le="60.0", **labels) == 2


def test_request_that_nobody_timed_does_not_count_as_a_fast_one(registry):
    announce(call("refused"))

    labels = {"operation": "POST pay", "outcome": "refused"}
    assert value(registry, "requests_total", **labels) == 1
    assert value(registry, "request_seconds_count", **labels) is None


def test_take_over_is_no_end_of_a_call(registry):
    announce(call("taken_over"))

    assert value(registry, "take_overs_total", operation="POST pay") == 1
    assert label_values(registry, "outcome") == set()


@pytest.mark.parametrize(
    ("outcome", "waits", "holds"),
    [
        ("taken", 1, None),
        ("waited", 1, None),
        ("turned_away", 1, None),
        ("store_error", None, None),
        ("released", None, 1),
        ("lost", None, 1),
    ],
)
def test_lock_is_counted_and_its_wait_or_hold_is_timed(registry, outcome, waits, holds):
    announce(lock_event(outcome, 0.5))

    labels = {"template": "order:…", "backend": "default"}
    assert value(registry, "locks_total", outcome=outcome, **labels) == 1
    assert value(registry, "lock_wait_seconds_count", **labels) == waits
    assert value(registry, "lock_held_seconds_count", **labels) == holds


@pytest.mark.parametrize("outcome", sorted(signals.OF_ROW))
def test_row_is_counted_by_name_and_outcome(registry, outcome):
    announce(RowEvent(name="orders.order.pay", outcome=outcome))

    assert value(registry, "rows_total", name="orders.order.pay", outcome=outcome) == 1


def test_names_beyond_the_bound_are_counted_together(registry):
    for number in range(MOST + 20):
        announce(call(operation=f"POST pay-{number}"))
        announce(lock_event("taken", template=f"order-{number}"))
        announce(RowEvent(name=f"row-{number}", outcome="stale"))

    assert len(label_values(registry, "operation")) == MOST + 1
    assert value(registry, "requests_total", operation=OTHER, outcome="executed") == 20
    assert len(label_values(registry, "template")) == MOST + 1
    assert len(label_values(registry, "name")) == MOST + 1


def test_name_that_is_known_stays_known_when_there_is_room_for_no_other():
    bounded = Bounded(2)

    assert [bounded(name) for name in ("a", "b", "c", "a", "b")] == ["a", "b", OTHER, "a", "b"]


def test_threads_that_bring_the_same_name_at_once_do_not_exceed_the_bound():
    bounded = Bounded(2)

    class Raced(set):
        def __contains__(self, name):
            return False  # As seen before another thread added it.

    bounded._known = Raced()
    given = [bounded(name) for name in ("a", "a", "b")]

    assert given == ["a", "a", OTHER]


def test_no_label_tells_a_key_a_scope_or_a_lock(registry):
    announce(call(scope="user:1", request_id="request-1"))
    announce(lock_event("taken"))

    used = set().union(
        *(sample.labels for metric in registry.collect() for sample in metric.samples)
    )
    assert used == {"operation", "outcome", "template", "backend", "le"}
    assert not label_values(registry, "template") & {"order:a-secret-name"}


def test_installing_twice_counts_once(registry):
    metrics.install(registry)

    announce(call())

    assert value(registry, "requests_total", operation="POST pay", outcome="executed") == 1


def test_registry_is_free_again_after_uninstalling():
    registry = CollectorRegistry()
    metrics.install(registry)
    metrics.uninstall(registry)
    metrics.uninstall(registry)

    announce(call())

    assert list(registry.collect()) == []


def cells(section):
    """Give the first cells of the tables in a section of the page."""
    _, _, rest = PAGE.read_text().partition(section)
    text, *_ = re.split(r"^##", rest, flags=re.M)
    return set(re.findall(r"^\| `(\w+)` \|", text, re.M))


def test_page_names_all_metrics_and_outcomes(registry):
    found = {metric.name for metric in registry.collect()}
    counted = {name for name in found if not name.endswith("_seconds")}

    named = cells("## Count with Prometheus") - {"outcome"}
    assert named == (
        (found - counted)
        | {f"{name}_total" for name in counted}
        | (set(signals.OF_CALL) - {"taken_over"})
    )


@pytest.mark.django_db(transaction=True)
def test_view_and_its_lock_are_counted(registry, served):
    @idempotent_view
    @lock("till")
    def pay(request):
        return HttpResponse(status=201)

    send = served(pay)
    for _ in range(3):
        send()

    labels = {"operation": "POST served"}
    assert value(registry, "requests_total", outcome="executed", **labels) == 1
    assert value(registry, "requests_total", outcome="replayed", **labels) == 2
    assert value(registry, "request_seconds_sum", outcome="replayed", **labels) > 0
    assert value(registry, "locks_total", template="till", backend="default", outcome="taken") == 1


# Other processes

COUNTING = """
import sys
from idempotency.contrib import metrics
from idempotency.signals import CallEvent, announce

metrics.install()
for _ in range(int(sys.argv[1])):
    announce(CallEvent(operation="POST pay", outcome="executed", seconds=0.5))
"""
FORKING = """
import os
from idempotency.contrib import metrics
from idempotency.signals import CallEvent, announce

metrics.install()
announce(CallEvent(operation="POST pay", outcome="executed", seconds=0.5))
child = os.fork()
announce(CallEvent(operation="POST pay", outcome="executed", seconds=0.5))
if child:
    os.waitpid(child, 0)
"""
AS_AN_APP = """
import django
from django.conf import settings
from prometheus_client import REGISTRY

settings.configure(INSTALLED_APPS=["idempotency.contrib.metrics"])
django.setup()

from idempotency.contrib import metrics
from idempotency.signals import RowEvent, announce

metrics.install()
announce(RowEvent(name="orders.order", outcome="stale"))
labels = {"name": "orders.order", "outcome": "stale"}
assert REGISTRY.get_sample_value("django_idempotency_rows_total", labels) == 1
"""
WITHOUT = """
import sys
sys.modules["prometheus_client"] = None
import idempotency.contrib.metrics
"""


def process(program, *arguments, **environment):
    command = [sys.executable, "-W", "error", "-c", program, *arguments]
    return subprocess.Popen(
        command, env={**os.environ, **environment}, stderr=subprocess.PIPE, text=True
    )


def ended(started):
    _, errors = started.communicate(timeout=60)
    return started.returncode, errors


def summed(folder):
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(folder))
    labels = {"operation": "POST pay", "outcome": "executed"}
    return Counter(
        total=value(registry, "requests_total", **labels),
        timed=value(registry, "request_seconds_count", **labels),
        at_most_half_a_second=value(registry, "request_seconds_bucket", le="0.5", **labels),
    )


def test_processes_that_count_at_the_same_time_are_summed(tmp_path):
    both = [
        process(COUNTING, times, PROMETHEUS_MULTIPROC_DIR=str(tmp_path)) for times in ("300", "200")
    ]

    assert [ended(one) for one in both] == [(0, ""), (0, "")]
    assert set(summed(tmp_path).values()) == {500}


def test_child_of_a_fork_counts_for_itself(tmp_path):
    done = ended(process(FORKING, PROMETHEUS_MULTIPROC_DIR=str(tmp_path)))

    assert done == (0, "")
    assert set(summed(tmp_path).values()) == {3}


def test_app_installs_the_metrics_once():
    assert ended(process(AS_AN_APP)) == (0, "")


def test_import_without_the_package_tells_what_to_install():
    status, errors = ended(process(WITHOUT))

    assert status == 1
    assert "ImproperlyConfigured" in errors
    assert "pip install 'django-idempotency[metrics]'" in errors
