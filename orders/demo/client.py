"""One request over a connection of its own, which may break or be cut at any moment."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

HOST = "127.0.0.1"
TIMEOUT = 15.0
"""Seconds that one request may take before its client takes it for broken."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client got; a status of 0 is a broken connection."""

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    content: Mapping[str, Any] = field(default_factory=dict)

    @property
    def succeeded(self) -> bool:
        return 200 <= self.status < 300

    @property
    def replayed(self) -> bool:
        return self.headers.get("idempotent-replayed") == "true"

    @property
    def turned_away(self) -> bool:
        """Whether the server asks for the same request again, later."""
        return bool(self.content.get("retry", {}).get("same_key"))

    @property
    def final(self) -> bool:
        """Whether there is nothing to gain from sending the same request again."""
        return 200 <= self.status < 500 and not self.turned_away

    @property
    def retry_after(self) -> float:
        """Seconds after which it is worth another try."""
        return float(self.headers.get("retry-after", 0.05))


async def post(port: int, path: str, content: Any, key: str, *, hang_up: bool = False) -> Answer:
    """Send *content* under *key*; if *hang_up*, leave before there is an answer."""
    try:
        async with asyncio.timeout(TIMEOUT):
            reader, writer = await asyncio.open_connection(HOST, port)
            try:
                writer.write(_request(path, json.dumps(content).encode(), key))
                await writer.drain()
                return Answer() if hang_up else _parse(await reader.read())
            finally:
                writer.close()
    except OSError:  # TimeoutError is one.
        return Answer()


def _request(path: str, body: bytes, key: str) -> bytes:
    head = (
        f"POST {path} HTTP/1.1",
        f"Host: {HOST}",
        "Connection: close",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        f'Idempotency-Key: "{key}"',
    )
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def _parse(received: bytes) -> Answer:
    head, _, body = received.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    if int(headers.get("content-length", -1)) != len(body):
        return Answer()  # The server died while it answered.
    return Answer(int(status.split()[1]), headers, _json(body, headers.get("content-type", "")))


def _json(body: bytes, content_type: str) -> Any:
    return json.loads(body) if "json" in content_type else {}
