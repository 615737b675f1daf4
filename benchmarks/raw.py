"""The least that a lock in Redis can send: packed words on a socket, and nothing around them."""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

COMPARE_AND_DELETE = (
    b"if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"
)
POLL = 0.001
"""Seconds between two tries, if another has the lock."""


class RawLock:
    """`SET NX PX`, then compare-and-delete by EVALSHA, as a careful hand would send them."""

    def __init__(self, url: str, name: str) -> None:
        self._socket = _connected(url)
        reply = self._ask(_packed(b"SCRIPT", b"LOAD", COMPARE_AND_DELETE))
        digest = reply.split(b"\r\n")[1]
        key = name.encode()
        self._take_head, self._take_tail = _around(b"SET", key, None, b"NX", b"PX", b"30000")
        self._free_head, self._free_tail = _around(b"EVALSHA", digest, b"1", key, None)

    @contextmanager
    def held(self) -> Iterator[None]:
        owner = secrets.token_hex(8).encode()
        while self._ask(self._take_head + owner + self._take_tail) != b"+OK\r\n":
            time.sleep(POLL)
        yield
        assert self._ask(self._free_head + owner + self._free_tail) == b":1\r\n"  # noqa: S101

    def _ask(self, message: bytes) -> bytes:
        self._socket.sendall(message)
        return self._socket.recv(4_096)


def _connected(url: str) -> socket.socket:
    place = urlsplit(url)
    if place.scheme == "unix":
        connected = socket.socket(socket.AF_UNIX)
        connected.connect(place.path)
        return connected
    connected = socket.create_connection((place.hostname or "127.0.0.1", place.port or 6379))
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connected


def _packed(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(map(_word, words))


def _word(word: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(word), word)


def _around(*words: bytes | None) -> tuple[bytes, bytes]:
    """Give what stands before and after a name of 16 digits, whose place has None."""
    place = words.index(None)
    before = b"".join(_word(word) for word in words[:place] if word is not None)
    after = b"".join(_word(word) for word in words[place + 1 :] if word is not None)
    return b"*%d\r\n%b$16\r\n" % (len(words), before), b"\r\n" + after
