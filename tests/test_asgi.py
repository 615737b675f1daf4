"""Real ASGI servers: what a client does to its connection changes nothing for its request."""

import os
import signal
import socket
import subprocess
import sys

import httpx
import pytest

from idempotency.models import IdempotencyRecord
from tests.conftest import KEY, wait_until
from tests.models import Effect
from tests.test_demo import ROOT

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(sys.platform == "win32", reason="sockets are handed over by their number"),
]

SERVERS = {
    "uvicorn": ["uvicorn", "tests.asgi:application", "--log-level=error", "--lifespan=off", "--fd"],
    "daphne": ["daphne", "tests.asgi:application", "-v0", "--fd"],
}


@pytest.fixture(params=SERVERS)
def server(request):
    """Give where a server listens, and its connections."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = subprocess.Popen(
            [sys.executable, "-m", *SERVERS[request.param], str(listener.fileno())],
            cwd=ROOT,
            env=os.environ,
            pass_fds=[listener.fileno()],
            stdin=subprocess.DEVNULL,
        )
        try:
            yield listener.getsockname()
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            finally:
                process.kill()
                process.wait()


def post(server, path, **options):
    url = f"http://127.0.0.1:{server[1]}{path}"
    return httpx.post(url, json={"a": 1}, headers={"Idempotency-Key": KEY}, timeout=60, **options)


def hang_up(server, path):
    """Send a request, and leave once it has begun to take effect."""
    body = b'{"a":1}'
    with socket.create_connection(server) as client:
        client.sendall(
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nIdempotency-Key: {KEY}\r\n\r\n".encode()
            + body
        )
        wait_until(Effect.objects.filter(name="begun").exists)


def test_work_goes_on_to_its_end_when_its_client_leaves(server):
    hang_up(server, "/linger/")
    twin = post(server, "/linger/")
    Effect.objects.create(name="go")
    wait_until(IdempotencyRecord.objects.filter(state="completed").exists)
    replay = post(server, "/linger/")

    assert twin.status_code == 409
    assert (replay.status_code, replay.headers["Idempotent-Replayed"]) == (201, "true")
    assert replay.json() == {"effect": Effect.objects.get(name="begun").pk}


def test_synchronous_view_takes_effect_once(server):
    first, second = post(server, "/once/"), post(server, "/once/")

    assert (first.status_code, second.status_code) == (201, 201)
    assert second.content == first.content
    assert Effect.objects.count() == 1
