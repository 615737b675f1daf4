"""The line in the log for each event: its level, its members, and what it never tells."""

import json
import logging
import os
import subprocess
import sys
import uuid

import pytest
from django.http import HttpResponse

from idempotency import idempotent_view, signals
from idempotency.contrib import logging as event_logging
from idempotency.contrib.logging import JSONFormatter
from idempotency.signals import CallEvent, LockEvent, RowEvent, announce

RECORD = uuid.UUID("0198c5a2-7c1e-7b53-9d3c-2f1f0f6f3a11")


class Keeping(logging.Handler):
    """Keeps all lines."""

    def __init__(self):
        super().__init__()
        self.lines = []
        self.emit = self.lines.append


@pytest.fixture
def lines(caplog):
    logger, keeping = logging.getLogger("idempotency.events"), Keeping()
    logger.addHandler(keeping)
    event_logging.install()
    with caplog.at_level(logging.DEBUG, logger.name):
        yield keeping.lines
    event_logging.uninstall()
    logger.removeHandler(keeping)


def call(outcome="executed"):
    return CallEvent(
        operation="POST pay",
        outcome=outcome,
        seconds=0.1234567,
        scope="user:scope-of-somebody",
        record_id=RECORD,
        attempt=1,
        status=201,
        request_id="request-1",
        differences=("/amount",),
    )


def lock_event(outcome):
    return LockEvent(
        name="order:name-of-somebody",
        template="order:…",
        backend="default",
        outcome=outcome,
        seconds=0.5,
    )


def test_line_has_what_came_of_a_call(lines):
    announce(call())

    (line,) = lines
    assert line.getMessage() == "POST pay: call executed"
    assert line.idempotency == {
        "kind": "call",
        "operation": "POST pay",
        "outcome": "executed",
        "seconds": 0.123457,
        "record": "0198c5a27c1e",
        "attempt": 1,
        "status": 201,
        "request_id": "request-1",
    }


def test_line_of_a_call_without_a_record_says_so(lines):
    announce(CallEvent(operation="POST pay", outcome="refused"))

    assert lines[0].idempotency["record"] is None


def test_line_has_what_came_of_a_lock(lines):
    announce(lock_event("waited"))

    (line,) = lines
    assert line.getMessage() == "order:…: lock waited"
    assert line.idempotency == {
        "kind": "lock",
        "template": "order:…",
        "backend": "default",
        "outcome": "waited",
        "seconds": 0.5,
    }


def test_line_has_what_came_of_a_row(lines):
    announce(RowEvent(name="orders.order.pay", outcome="conflict"))

    (line,) = lines
    assert line.getMessage() == "orders.order.pay: row conflict"
    assert line.idempotency == {"kind": "row", "name": "orders.order.pay", "outcome": "conflict"}


@pytest.mark.parametrize("outcome", sorted(signals.OF_CALL))
def test_call_that_somebody_should_look_at_is_a_warning(lines, outcome):
    announce(call(outcome))

    wanted = {"lost", "blocked", "store_error", "unprotected", "taken_over"}
    assert [line.levelname for line in lines] == ["WARNING" if outcome in wanted else "INFO"]


@pytest.mark.parametrize(
    ("outcome", "level"),
    [
        ("taken", "DEBUG"),
        ("released", "DEBUG"),
        ("waited", "INFO"),
        ("turned_away", "INFO"),
        ("lost", "WARNING"),
        ("store_error", "WARNING"),
    ],
)
def test_lock_that_nobody_waited_for_is_told_only_to_those_who_debug(lines, outcome, level):
    announce(lock_event(outcome))

    assert [line.levelname for line in lines] == [level]


def test_call_that_freed_its_key_is_told_as_any_other(lines):
    announce(call("released"))

    assert lines[0].levelname == "INFO"


def test_line_below_the_level_of_the_logger_is_not_written(lines, caplog):
    with caplog.at_level(logging.WARNING, "idempotency.events"):
        announce(call())
        announce(call("lost"))

    assert [line.idempotency["outcome"] for line in lines] == ["lost"]


def test_line_never_tells_a_scope_or_the_name_of_a_lock(lines):
    for outcome in signals.OF_CALL:
        announce(call(outcome))
    for outcome in signals.OF_LOCK:
        announce(lock_event(outcome))

    told = "".join(JSONFormatter().format(line) for line in lines)
    assert len(lines) == len(signals.OF_CALL) + len(signals.OF_LOCK)
    assert "somebody" not in told
    assert "amount" not in told


@pytest.mark.django_db(transaction=True)
def test_view_is_told_without_its_key_and_body(lines, served):
    @idempotent_view
    def pay(request):
        return HttpResponse(status=201)

    send = served(pay)
    for _ in range(2):
        send("a-key-of-somebody-in-particular", b'{"card": 4111}', headers={"X-Request-ID": "r-1"})

    assert [line.idempotency["outcome"] for line in lines] == ["executed", "replayed"]
    assert {line.idempotency["status"] for line in lines} == {201}
    assert {line.idempotency["request_id"] for line in lines} == {"r-1"}
    told = "".join(JSONFormatter().format(line) for line in lines)
    assert "somebody" not in told
    assert "4111" not in told


# Lines for machines


def record_of(message, *arguments, error=None, **more):
    found = logging.LogRecord("idempotency", logging.ERROR, "", 0, message, arguments, error)
    vars(found).update(more)
    return found


def test_json_line_has_the_members_of_its_event(lines):
    announce(RowEvent(name="orders.order", outcome="stale"))

    told = json.loads(JSONFormatter().format(lines[0]))
    time = told.pop("time")
    assert time.endswith("+00:00")
    assert told == {
        "level": "INFO",
        "logger": "idempotency.events",
        "message": "orders.order: row stale",
        "kind": "row",
        "name": "orders.order",
        "outcome": "stale",
    }


def test_json_line_of_another_logger_has_its_error():
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        told = JSONFormatter().format(record_of("%s failed", "it", error=sys.exc_info()))

    assert json.loads(told)["message"] == "it failed"
    assert json.loads(told)["error"].endswith("ZeroDivisionError")


def test_json_line_can_tell_what_json_does_not_know():
    told = JSONFormatter().format(record_of("done", idempotency={"record": RECORD}))

    assert json.loads(told)["record"] == str(RECORD)


AS_AN_APP = """
import django
from django.conf import settings

settings.configure(
    INSTALLED_APPS=["idempotency.contrib.logging"],
    LOGGING={
        "version": 1,
        "formatters": {"json": {"()": "idempotency.contrib.logging.JSONFormatter"}},
        "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "json"}},
        "loggers": {"idempotency.events": {"handlers": ["console"], "level": "INFO"}},
    },
)
django.setup()

from idempotency.signals import CallEvent, announce

announce(CallEvent(operation="POST pay", outcome="executed"))
"""


def test_app_logs_to_where_the_settings_say():
    command = [sys.executable, "-W", "error", "-c", AS_AN_APP]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stderr)["operation"] == "POST pay"
