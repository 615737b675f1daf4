"""How many round trips a block under a lock makes."""

from __future__ import annotations

from django.db import connection
from django.test.utils import CaptureQueriesContext

from .lockers import REDIS, ZOOKEEPER, Hold, redis_client


def sent(kind: str, hold: Hold) -> int:
    """Count what is sent by one acquire and release; 0 if nobody counts it."""
    if kind == REDIS:
        return commands(hold)
    return 0 if kind == ZOOKEEPER else statements(hold)


def commands(hold: Hold) -> int:
    """Count what Redis is asked, without what its scripts call."""
    teller = redis_client()
    teller.ping()  # What comes with a new connection is not counted.
    with redis_client() as client, client.monitor() as monitor:
        with hold():
            pass
        teller.echo("the end")
        count = 0
        while not (heard := monitor.next_command())["command"].startswith("ECHO"):
            count += heard["client_type"] != "lua"
    teller.close()
    return count


def statements(hold: Hold) -> int:
    with CaptureQueriesContext(connection) as captured, hold():
        pass
    return len(captured)
