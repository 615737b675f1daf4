"""A real server for the demo: gunicorn with several processes, on loopback only."""

from __future__ import annotations

import http.client
import os
import random
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from subprocess import Popen
from tempfile import TemporaryFile
from typing import IO

from django.conf import settings

from .client import HOST
from .processes import children_of, start, stop

WORKERS = 4
FIRST_ANSWER = 30
"""Seconds within which the server has to answer for the first time."""
PATIENCE = 10
"""Seconds that the server has to end when it is asked to."""
OPTIONS = (
    f"--workers={WORKERS}",
    "--worker-class=sync",
    "--timeout=30",
    "--graceful-timeout=3",
    "--log-level=warning",
    "--preload",
    "--no-control-socket",
)


class ServerDown(Exception):
    """The server did not start; this is what it said."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server and where it listens."""

    port: int
    process: Popen[bytes]

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.port}/"

    def kill_worker(self) -> bool:
        """Kill one of the workers with -9; tell whether there was one."""
        workers = children_of(self.process.pid)
        if not workers:
            return False
        with suppress(ProcessLookupError):
            os.kill(random.choice(workers), signal.SIGKILL)  # noqa: S311 - Any of them.
        return True


@contextmanager
def serve(port: int) -> Iterator[Server]:
    """
    Serve the example on *port*, or on a free one if it is taken, while the block runs.

    Raises: `ServerDown`
    """
    with TemporaryFile() as output:
        server = _start(port, output)
        try:
            _check_answers(server, output)
            yield server
        finally:
            stop(server.process, PATIENCE)


def _start(port: int, output: IO[bytes]) -> Server:
    with _listen(port) as listener:
        bind = f"--bind=fd://{listener.fileno()}"
        command = [sys.executable, "-m", "gunicorn", *OPTIONS, bind, "orders.demo.wsgi"]
        inherited = [listener.fileno()]
        process = start(command, output=output, cwd=settings.BASE_DIR, pass_fds=inherited)
        return Server(listener.getsockname()[1], process)


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server((HOST, port), backlog=1024)
    except OSError:
        return socket.create_server((HOST, 0), backlog=1024)


def _check_answers(server: Server, output: IO[bytes]) -> None:
    # The port is open before the server is: the request waits in its queue, there is no polling.
    connection = http.client.HTTPConnection(HOST, server.port, timeout=FIRST_ANSWER)
    try:
        connection.request("GET", "/")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        output.seek(0)
        raise ServerDown(output.read().decode(errors="replace")) from error
    finally:
        connection.close()
    if status != HTTPStatus.OK:
        raise ServerDown(f"Its first answer was {status}.")
