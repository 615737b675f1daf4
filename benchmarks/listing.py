"""How long it takes to list live locks in a Redis that is full of other things."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from statistics import median

from django.conf import settings
from django.test import override_settings

from idempotency.locks import BaseLockBackend, build_backend
from idempotency.locks.base import Ask
from tests.services import first, redis, redis_programs, run_folder

BATCH = 10_000
FILL = """
for number = ARGV[1], ARGV[1] + ARGV[2] - 1 do
    redis.call('SET', 'other:' .. string.format('%.0f', number), 'something that is cached')
end
"""


@contextmanager
def full_redis(keys: int, locks: int, advance: Callable[[int], None]) -> Iterator[BaseLockBackend]:
    """Give a backend in a Redis of its own, which has *keys* other keys and *locks* live locks."""
    with run_folder() as folder, ExitStack() as servers:
        url = first("Redis", partial(redis, folder), redis_programs(), servers).url
        caches = settings.CACHES | {"locks": settings.CACHES["locks"] | {"LOCATION": url}}
        servers.enter_context(override_settings(CACHES=caches))
        backend = build_backend("cache")
        for number in range(0, keys, BATCH):
            backend.server.send("EVAL", FILL, 0, number, min(BATCH, keys - number))
            advance(BATCH)
        for number in range(locks):
            backend.acquire(Ask(f"order:{number}", f"somewhere:1:{number:016x}", lease=3_600))
        yield backend


def time_listing(backend: BaseLockBackend, limit: int, times: int = 50) -> float:
    """Give the seconds that it takes to list *limit* locks: the median of *times*."""
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        found = backend.live(limit)
        seconds.append(time.perf_counter() - began)
        if len(found) != limit:
            raise AssertionError(f"{len(found)} locks were listed instead of {limit}.")
    return median(seconds)
