"""The client of kazoo, as the settings describe it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...exceptions import InvalidBackend

DELAYS = {"max_tries": -1, "delay": 0.05, "max_delay": 1}
"""How kazoo connects again: for ever, after so many seconds at first and at most."""


def new_client(alias: str, lease: float, options: Mapping[str, Any]) -> Any:
    """
    Give a client that asks for a session of *lease* seconds, and is not connected yet.

    Raises: `InvalidBackend` if kazoo cannot do with *options*, or is not installed.
    """
    where = f"IDEMPOTENCY_LOCKS[{alias!r}]"
    try:
        from kazoo.client import KazooClient
        from kazoo.exceptions import ConfigurationError
    except ImportError as error:
        raise InvalidBackend(
            f"{where} needs kazoo: pip install 'django-idempotency[zookeeper]'."
        ) from error
    hosts = options.get("hosts")
    if not isinstance(hosts, str) or not hosts:
        raise InvalidBackend(f"{where}: OPTIONS has no 'hosts', such as 'zk1:2181,zk2:2181'.")
    more = {"connection_retry": DELAYS, **options.get("client", {})}
    try:
        return KazooClient(hosts, lease, **more)
    except (TypeError, ValueError, ConfigurationError) as error:
        raise InvalidBackend(f"{where}: kazoo does not take OPTIONS: {error}.") from error
