"""The tables of what holds now: locks in each backend, and rows that sessions wait for."""

from __future__ import annotations

from collections.abc import Callable

from django.utils.translation import gettext as _

from ..locks.base import LiveLock
from ..statistics.figures import HeldLocks, RowLock, RowLocks
from .tables import Cell, Table, code, figure, heads, length, text

ReleaseUrl = Callable[[str, LiveLock], str]
"""Gives the address at which this reader may release a lock of an alias, or ""."""


def held_table(held: HeldLocks, release_url: ReleaseUrl) -> Table:
    """Give the locks that one backend holds, the oldest first."""
    labels = (_("Lock"), _("Holder"), _("Held for"), _("Lease left"), _("Token"), _("Waiting"))
    rows = [_held(lock, release_url(held.alias, lock)) for lock in held.locks]
    can_release = any(row[-1].url for row in rows)
    return Table(
        f"held-{held.alias}",
        _("Backend “%(alias)s”") % {"alias": held.alias},
        [*heads(*labels, numbers=4), *([text(_("Action"))] if can_release else [])],
        rows if can_release else [row[:-1] for row in rows],
        _("Nobody holds a lock here."),
        held.failure and _("What is held here is not known: %(why)s") % {"why": held.failure},
    )


def _held(lock: LiveLock, url: str) -> list[Cell]:
    return [
        code(lock.name),
        code(lock.owner),
        length(lock.held_for),
        length(lock.left),
        Cell(str(lock.token), is_number=True),
        figure(lock.waiters),
        Cell(_("Release"), url, action=_("Release the lock %(name)s") % {"name": lock.name}),
    ]


def blocked_table(blocked: RowLocks) -> Table:
    """Give the sessions of one database that wait for others."""
    labels = (_("Statement that waits"), _("Table"), _("Session"), _("Blocked by"), _("Waits for"))
    return Table(
        f"rows-{blocked.database}",
        _("Database “%(alias)s”") % {"alias": blocked.database},
        heads(*labels, numbers=3),
        [_blocked(lock) for lock in blocked.locks],
        _("No session waits for another one's lock."),
        blocked.failure and _("Who waits is not known: %(why)s") % {"why": blocked.failure},
    )


def _blocked(lock: RowLock) -> list[Cell]:
    return [
        code(lock.statement),
        code(lock.table),
        Cell(str(lock.session), is_number=True),
        Cell(", ".join(map(str, lock.blocked_by)), is_number=True),
        length(lock.waits_for),
    ]
