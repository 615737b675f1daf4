"""What was counted is written when a process ends, however it is told to."""

import asyncio
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime

import httpx
import pytest

from idempotency.statistics import flushing
from idempotency.statistics.asgi import flush_at_shutdown
from tests.conftest import wait_until
from tests.test_demo import ROOT

SET_UP = """
import sys, threading, time
import django
from django.conf import settings

settings.configure(
    SECRET_KEY="k",
    INSTALLED_APPS=["idempotency"],
    DATABASES={
        alias: {"ENGINE": "django.db.backends.sqlite3", "NAME": sys.argv[1]}
        for alias in ("default", "stats")
    },
    IDEMPOTENCY_STATISTICS={"USING": "stats", "INTERVAL": float(sys.argv[2])},
    USE_TZ=sys.argv[3:] != ["naive"],
    TIME_ZONE="Europe/Berlin",
)
django.setup()

from django.core.management import call_command
from django.db import connections
from idempotency import run_once
from idempotency.statistics import flushing

call_command("migrate", verbosity=0)


def call():
    run_once(lambda: 1, scope="s", operation="op", key="key")


"""


def run(program, tmp_path, interval=60, *more):
    """Run *program* to its end, and give what it counted."""
    file = tmp_path / "x.sqlite3"
    command = [sys.executable, "-c", SET_UP + program, file, str(interval), *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return counted(file), done.stderr


def counted(file):
    with closing(sqlite3.connect(file)) as connection:
        rows = connection.execute("SELECT name, outcome, count FROM idempotency_statistic")
        return rows.fetchall()


def test_rest_is_written_at_the_end(tmp_path):
    assert run("call()", tmp_path) == ([("op", "executed", 1)], "")


def test_end_waits_for_what_is_just_being_written(tmp_path):
    program = """
begun, write = threading.Event(), flushing.write


def slowly(*args):
    begun.set()
    time.sleep(0.3)
    write(*args)


flushing.write = slowly
call()
begun.wait()
"""
    assert run(program, tmp_path, 0.05) == ([("op", "executed", 1)], "")


def test_end_does_not_wait_for_a_database_that_never_answers(tmp_path):
    program = """
flushing.PATIENCE = 0.3
connections.settings["stats"] = {
    **connections.settings["default"],
    "ENGINE": "django.db.backends.postgresql",
    "HOST": "127.0.0.1",
    "PORT": %d,
    "NAME": "x",
}
call()
"""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert run(program % silent.getsockname()[1], tmp_path) == ([], "")


def test_thread_goes_on_after_any_error(tmp_path):
    program = """
write, tries = flushing.write, []


def fail_once(*args):
    tries.append(1)
    if len(tries) == 1:
        raise RuntimeError("the router is not ready")
    write(*args)


flushing.write = fail_once
call()
while len(tries) < 2:
    time.sleep(0.01)
"""
    rows, said = run(program, tmp_path, 0.05)

    assert rows == [("op", "executed", 1)]
    assert "RuntimeError: the router is not ready" in said


@pytest.mark.parametrize("kept", ["naive", "aware"])
def test_hour_that_comes_twice_is_summed_up_once(tmp_path, kept):
    first = datetime(2025, 10, 26, 0, 30, tzinfo=UTC).timestamp()
    program = f"""
from idempotency.statistics.counting import Counted, Tally
from idempotency.statistics.rolling import roll_up
from idempotency.statistics.writing import add

for at in ({first:.0f}, {first:.0f} + 3600, {first:.0f} + 7200):
    add({{Counted(at, 60, "call", "op", "executed"): Tally(1, 1.0, 1.0)}}, "default")
for number, _ in zip(range(100), roll_up("default")):
    pass
assert number < 99
"""
    rows, _ = run(program, tmp_path, 60, kept)

    assert sum(count for *_, count in rows) == 3


def test_shutdown_of_an_asgi_server_writes_the_rest(monkeypatch):
    messages = [{"type": f"lifespan.{name}"} for name in ("startup", "shutdown")]
    sent, flushed = [], []

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message["type"])

    async def application(scope, receive, send):
        sent.append(scope["type"])

    monkeypatch.setattr(flushing.flushing, "flush_at_exit", lambda: flushed.append(len(sent)))
    served = flush_at_shutdown(application)
    asyncio.run(served({"type": "lifespan"}, receive, send))
    asyncio.run(served({"type": "http"}, receive, send))

    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete", "http"]
    assert flushed == [1]


@pytest.mark.skipif(sys.platform == "win32", reason="it has no SIGTERM")
def test_uvicorn_that_is_told_to_end_has_counted_everything(tmp_path):
    file = tmp_path / "x.sqlite3"
    environment = {
        **{name: os.environ[name] for name in ("PATH",)},
        "DATABASE_URL": f"sqlite:///{file}",
        "DJANGO_SETTINGS_MODULE": "config.settings",
    }
    subprocess.run(
        [sys.executable, "manage.py", "migrate", "-v0"], cwd=ROOT, env=environment, check=True
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [sys.executable, "-m", "uvicorn", "config.asgi:application", "--log-level=error"]
        server = subprocess.Popen(
            [*command, f"--fd={listener.fileno()}"],
            cwd=ROOT,
            env=environment,
            pass_fds=[listener.fileno()],
        )
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/orders/"
        try:
            for _ in range(3):
                answer = httpx.post(url, json={}, headers={"Idempotency-Key": "k" * 20}, timeout=30)
                assert answer.status_code == 400
            server.send_signal(signal.SIGTERM)
            server.wait(30)
        finally:
            server.kill()
            server.wait()
    wait_until(lambda: counted(file))
    assert sum(count for *_, count in counted(file)) == 3
