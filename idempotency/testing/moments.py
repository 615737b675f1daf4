"""The moments of a run: before and after each statement, commit and rollback."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

When = Literal["before", "after"]
Visit = Callable[[When, str], object]


@contextmanager
def visited(visit: Visit, using: Sequence[str]) -> Iterator[None]:
    """Call *visit* at each moment of this thread's connections to the databases *using*."""
    with ExitStack() as stack:
        for connection in (connections[alias] for alias in using):
            connection.ensure_connection()  # Its first statements belong to no run.
            stack.enter_context(_statements(connection, visit))
            stack.enter_context(_ends(connection, "commit", visit))
            stack.enter_context(_ends(connection, "rollback", visit))
        yield


def _statements(connection: BaseDatabaseWrapper, visit: Visit) -> Any:
    def wrapper(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        visit("before", sql)
        result = execute(sql, params, many, context)
        visit("after", sql)
        return result

    return connection.execute_wrapper(wrapper)


@contextmanager
def _ends(connection: BaseDatabaseWrapper, name: str, visit: Visit) -> Iterator[None]:
    end = getattr(connection, name)

    def visited_end() -> None:
        visit("before", name.upper())
        end()
        visit("after", name.upper())

    setattr(connection, name, visited_end)
    try:
        yield
    finally:
        delattr(connection, name)
