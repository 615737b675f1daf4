"""Clients: one key for each intent, and repeats only where they help."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import pickle
import ssl
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import anyio
import httpx
import pytest
import requests
import trustme

from idempotency.contrib.client import Retries, new_key
from idempotency.contrib.client.httpx import AsyncIdempotentTransport, IdempotentTransport
from idempotency.contrib.client.requests import IdempotentAdapter

QUICK = Retries(pause=0.001, longest=0.02)
HANG_UP = "hang up"
CUT = (201, {"Content-Length": "9"}, b"done")
"""An answer that breaks off, as its connection is closed before it is whole."""


def problem(status, same_key, **headers):
    body = json.dumps({"status": status, "retry": {"same_key": same_key}})
    return status, {"Content-Type": "application/problem+json", **headers}, body.encode()


TWIN = problem(409, True, **{"Retry-After": "0"})


class Answers(BaseHTTPRequestHandler):
    """Gives the answers of its server's script, one after the other."""

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.heard.append((self.command, self.headers.get("Idempotency-Key"), body))
        answer = self.server.script.pop(0) if self.server.script else 201
        if answer == HANG_UP:
            self.close_connection = True
            return
        status, headers, content = (answer, {}, b"done") if isinstance(answer, int) else answer
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET = do_PATCH = do_PUT = do_DELETE = answer

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        server.heard, server.script = [], []
        server.url = f"http://127.0.0.1:{server.server_port}/"
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        yield server
        server.shutdown()


def by_httpx(server, method="POST", retries=QUICK, **options):
    with httpx.Client(transport=IdempotentTransport(retries=retries)) as client:
        return client.request(method, server.url, **options)


def by_async_httpx(server, method="POST", retries=QUICK, **options):
    async def send():
        async with httpx.AsyncClient(transport=AsyncIdempotentTransport(retries=retries)) as client:
            return await client.request(method, server.url, **options)

    return asyncio.run(send())


def by_requests(server, method="POST", retries=QUICK, **options):
    with requests.Session() as session:
        session.mount("http://", IdempotentAdapter(retries=retries))
        if "content" in options:
            options["data"] = options.pop("content")
        return session.request(method, server.url, **options)


libraries = pytest.mark.parametrize("send", [by_httpx, by_async_httpx, by_requests])
BROKEN = (
    httpx.TransportError,
    requests.ConnectionError,
    requests.exceptions.ChunkedEncodingError,
)


@libraries
@pytest.mark.parametrize(
    "script",
    [
        [],
        [HANG_UP],
        [HANG_UP, 503, 429, 201],
        [TWIN, 502, 201],
        [504],
        [TWIN, TWIN, TWIN],
        [CUT, CUT],
    ],
)
def test_intent_keeps_its_key_until_there_is_an_answer(server, send, script):
    server.script = [*script]
    response = send(server, content=b"once")

    assert (response.status_code, response.content) == (201, b"done")
    assert len(server.heard) == max(1, len(script) + (script[-1:] != [201]))
    assert len(set(server.heard)) == 1
    method, key, body = server.heard[0]
    assert (method, body, uuid.UUID(key).version) == ("POST", b"once", 7)


@libraries
def test_two_intents_have_two_keys(server, send):
    send(server)
    send(server)

    assert len({key for _, key, _ in server.heard}) == 2


@libraries
def test_key_that_was_kept_by_the_caller_is_used(server, send):
    key = new_key()
    send(server, headers={"idempotency-key": key})

    assert server.heard[0][1] == key


@libraries
@pytest.mark.parametrize("method", ["PATCH", "PUT", "DELETE"])
def test_methods_that_change_something_get_a_key(server, send, method):
    server.script = [503]
    assert send(server, method).status_code == 201
    assert len({key for _, key, _ in server.heard} - {None}) == 1


@libraries
def test_safe_methods_get_none_and_are_sent_once(server, send):
    server.script = [503]
    assert send(server, "GET").status_code == 503
    assert server.heard == [("GET", None, b"")]


@libraries
@pytest.mark.parametrize("file", [b"data", io.BytesIO(b"data")])
def test_form_with_a_file_is_sent_again(server, send, file):
    server.script = [HANG_UP, 503]

    assert send(server, files={"a": ("n", file)}).status_code == 201
    assert len(server.heard) == 3
    assert len(set(server.heard)) == 1
    assert b"data" in server.heard[0][2]


def test_file_of_httpx_is_sent_again(server):
    server.script = [503]

    assert by_httpx(server, content=io.BytesIO(b"once")).status_code == 201
    assert [body for *_, body in server.heard] == [b"once"] * 2


def test_trio_is_served_as_well(server):
    async def send():
        async with httpx.AsyncClient(transport=AsyncIdempotentTransport(retries=QUICK)) as client:
            return await client.post(server.url)

    server.script = [503, HANG_UP]
    assert anyio.run(send, backend="trio").status_code == 201
    assert len(server.heard) == 3


@libraries
@pytest.mark.parametrize(
    "odd",
    [
        (503, {"Retry-After": f"Mon, 01 Jan {'9' * 20} 00:00:00 GMT"}, b""),
        (503, {"Retry-After": f"Mon, 01 Jan 2001 00:00:00 +{'9' * 20}"}, b""),
        (503, {"Content-Type": "application/problem+json"}, b"[" * 200_000),
        (503, {"Content-Encoding": "gzip"}, b"no gzip"),
    ],
)
def test_odd_answer_is_taken_for_one_that_says_nothing(server, send, odd):
    server.script = [odd]

    assert send(server).status_code == 201
    assert len(server.heard) == 2


@libraries
@pytest.mark.parametrize(
    "answer",
    [
        problem(502, False),
        problem(504, False),
        problem(409, False),
        problem(422, False),
        problem(503, False),
        (409, {"Content-Type": "application/json"}, b"[1]"),
        (409, {"Content-Type": "application/json"}, b"{"),
        (409, {"Content-Type": "application/json"}, b'{"retry": {"same_key": "yes"}}'),
        (503, {"Retry-After": "3600"}, b""),
        400,
        404,
        500,
    ],
)
def test_what_will_not_change_is_not_sent_again(server, send, answer):
    server.script = [answer, 201]
    response = send(server)

    assert response.status_code == (answer if isinstance(answer, int) else answer[0])
    assert len(server.heard) == 1


@libraries
def test_attempts_are_bounded(server, send):
    server.script = [503] * 9
    assert send(server, retries=Retries(attempts=3, pause=0.001)).status_code == 503
    for broken in (HANG_UP, CUT):
        server.heard.clear()
        server.script = [broken] * 9
        with pytest.raises(BROKEN):
            send(server, retries=Retries(attempts=2, pause=0.001))
        assert len(server.heard) == 2


@libraries
def test_body_that_cannot_be_read_again_is_sent_once(server, send):
    async def in_loop():
        yield b""

    server.script = [503]
    content = in_loop() if send is by_async_httpx else (part for part in [b""])

    assert send(server, content=content).status_code == 503
    assert len(server.heard) == 1
    assert server.heard[0][1] is not None


def gzipped(status, content, **headers):
    content = gzip.compress(content)
    named = {"Content-Encoding": "gzip", "Content-Type": "application/problem+json", **headers}
    return status, named, content


@libraries
def test_packed_problem_is_understood(server, send):
    server.script = [gzipped(409, TWIN[2], **{"Retry-After": "0"}), gzipped(422, b'{"a": 1}')]
    response = send(server)

    assert (response.status_code, response.json(), len(server.heard)) == (422, {"a": 1}, 2)


@libraries
def test_wrongly_packed_problem_is_the_caller_s(server, send):
    server.script = [(409, {"Content-Encoding": "gzip"}, b"no gzip")]

    with pytest.raises((httpx.DecodingError, requests.exceptions.ContentDecodingError)):
        send(server)
    assert len(server.heard) == 1


@pytest.mark.parametrize("status", [201, 400, 409, 503])
def test_answer_of_httpx_lacks_nothing(server, status):
    server.script = [gzipped(status, b"done")] * 9
    with httpx.Client(transport=IdempotentTransport(retries=QUICK)) as client:
        response = client.post(server.url)
        with client.stream("POST", server.url) as streamed:
            raw = b"".join(streamed.iter_raw())

    assert (response.content, response.elapsed.total_seconds() > 0) == (b"done", True)
    assert gzip.decompress(raw) == b"done"


@pytest.mark.parametrize("status", [201, 400])
def test_stream_of_requests_is_left_to_its_reader(server, status):
    server.script = [status]
    with requests.Session() as session:
        session.mount("http://", IdempotentAdapter(retries=QUICK))
        with session.post(server.url, stream=True) as response:
            assert response.raw.read() == b"done"


def test_stream_without_a_length_is_left_to_its_reader(server):
    server.script = [(200, {"Content-Length": None, "Connection": "close"}, b"done")]
    with (
        httpx.Client(transport=IdempotentTransport(retries=QUICK)) as client,
        client.stream("POST", server.url) as response,
    ):
        assert not isinstance(response.stream, httpx.ByteStream)
        assert response.read() == b"done"


def test_session_may_be_pickled():
    session = requests.Session()
    session.mount("http://", IdempotentAdapter(retries=QUICK))

    kept = pickle.loads(pickle.dumps(session))  # noqa: S301 - our own.
    assert kept.get_adapter("http://a").retries == QUICK


def test_what_is_wrong_with_the_request_is_told_at_once():
    slow = IdempotentTransport(retries=Retries(pause=60, longest=60))
    with httpx.Client(transport=slow) as client, pytest.raises(httpx.UnsupportedProtocol):
        client.post("ftp://127.0.0.1/")


def test_file_is_read_again_from_where_it_began(server):
    file = io.BytesIO(b"head and body")
    file.seek(5)
    server.script = [503]

    assert by_requests(server, content=file).status_code == 201
    assert [body for *_, body in server.heard] == [b"and body"] * 2


@pytest.mark.parametrize("same_key", [True, False])
@libraries
def test_media_type_may_be_written_in_capitals(server, send, same_key):
    _, headers, body = problem(409, same_key)
    server.script = [(409, {**headers, "Content-Type": "application/problem+JSON"}, body)]

    assert send(server).status_code == (201 if same_key else 409)


@libraries
def test_twin_is_asked_for_before_its_lease_is_over(server, send):
    server.script = [problem(409, True, **{"Retry-After": "3600"})]

    assert send(server).status_code == 201


@libraries
def test_connection_that_fails_for_its_certificate_is_not_tried_again(server, send):
    tries = []

    class Telling(ssl.SSLSocket):
        def do_handshake(self, *args, **kwargs):
            tries.append(1)
            super().do_handshake(*args, **kwargs)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslsocket_class = Telling
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.url = server.url.replace("http:", "https:")

    with pytest.raises((httpx.ConnectError, requests.exceptions.SSLError)):
        send(server)

    assert len(tries) == 1
    assert not server.heard


def test_stream_of_an_adapter_around_is_left_to_its_reader(server):
    class Outer(IdempotentAdapter):
        def send(self, request, stream=False, timeout=None, verify=True, cert=None, proxies=None):
            return super().send(request, stream, timeout, verify, cert, proxies)

    with requests.Session() as session:
        session.mount("http://", Outer(retries=QUICK))
        response = session.post(server.url, stream=True)
        assert not response._content_consumed
        assert response.content == b"done"


@pytest.mark.parametrize("seconds", [0, 1])
def test_pause_is_the_one_that_the_server_names(seconds):
    retries = Retries()
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=10), usegmt=True)

    assert retries.pause_after(1, 503, {"Retry-After": str(seconds)}, b"") == seconds
    assert 5 < retries.pause_after(1, 503, {"Retry-After": date}, b"") <= 10
    assert 0.25 <= retries.pause_after(1, 503, {"Retry-After": "soon"}, b"") <= 0.5
    assert 1 <= retries.pause_after(3, None, {}, b"") <= 2
    assert retries.pause_after(4, None, {}, b"") is None
    assert Retries(attempts=99).pause_after(90, None, {}, b"") <= 30


@pytest.mark.parametrize("options", [{"attempts": 0}, {"pause": 0}, {"pause": 2, "longest": 1}])
def test_numbers_that_make_no_sense_are_refused(options):
    with pytest.raises(ValueError, match="above 0"):
        Retries(**options)


def test_keys_are_made_in_the_order_of_their_intents():
    first = new_key()
    time.sleep(0.002)

    assert first < new_key()
